"""``ash api-key``: keys for the gateway."""

from typing import Any, Final

import click

from borough.cli.ash_session import AshGroup, ash_command, ask, member, show_done, show_table, when
from borough.cli.output import output, warn

_HERE: Final = "borough.cli.ash_keys"
_ID: Final = "550e8400-e29b-41d4-a716-446655440000"

api_key = AshGroup(
    "api-key",
    help="Keys for the gateway; each speaks for one agent.",
    example=f'ash api-key create --name "ci-pipeline" --agent-id {_ID}',
    table={
        "create": (f"{_HERE}:create", "Make a key; it is shown once."),
        "list": (f"{_HERE}:list_keys", "List the keys."),
        "ls": (f"{_HERE}:list_keys", "The same as list."),
        "rotate": (f"{_HERE}:rotate", "Replace a key's token."),
        "revoke": (f"{_HERE}:revoke", "End a key, for good."),
    },
)


@ash_command("create", example=f'ash api-key create --name "ci-pipeline" --agent-id {_ID}')
@click.option("--name", required=True, help="What it is known by.")
@click.option("--agent-id", required=True, type=click.UUID, metavar="UUID", help="The agent that it speaks for.")
@click.option("--role", type=click.Choice(["operator", "agent"]), help="How far it reaches.  [default: operator]")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="Only for this, as in agents.read.")
@click.option("--expires", "expires_at", metavar="TIME", help="Until then (RFC 3339).")
def create(*, name: str, agent_id: Any, role: str | None, scopes: tuple[str, ...], expires_at: str | None) -> None:
    """Make a key; its token is shown once and never again."""
    made = ask(
        "ApiKeyCreate", name=name, agent_id=str(agent_id), role=role, scopes=list(scopes) or None, expires_at=expires_at
    )
    if made.get("warning"):
        warn(str(made["warning"]))
    output().show(made, lambda: _shown(f"Created API key '{name}'", made))


def _shown(first: str, made: dict[str, Any]) -> None:
    out = output()
    out.line(first)
    out.line(f"Agent: {made['agent_id']}")
    out.line("")
    out.line(f"Token: {made['token']}")
    out.line("")
    out.line("Save this token. It will not be shown again.")


@ash_command("list", example="ash api-key list")
def list_keys() -> None:
    """List the keys; tokens are never shown."""
    show_table(
        ask("ApiKeyList")["tokens"],
        [
            ("name", member("name")),
            ("agent id", member("agent_id")),
            ("created", lambda one: str(one["created_at"])[:19] + "Z"),
            ("role", member("role")),
            ("expires", when("expires_at")),
            ("last used", when("last_used_at")),
        ],
        empty="no keys; make one with 'ash api-key create'",
    )


@ash_command("rotate", example="ash api-key rotate ci-pipeline --overlap 3600")
@click.argument("name")
@click.option("--overlap", type=click.IntRange(min=0), metavar="SECONDS", help="The old token holds for so long still.")
def rotate(*, name: str, overlap: int | None) -> None:
    """Replace a key's token; the new one is shown once."""
    made = ask("ApiKeyRotate", name=name, overlap_secs=overlap)
    output().show(made, lambda: _shown(f"Rotated API key '{name}'", made))


@ash_command("revoke", example="ash api-key revoke ci-pipeline")
@click.argument("name")
def revoke(*, name: str) -> None:
    """End a key, for good; from the next request on it is refused."""
    show_done("ApiKeyRevoke", f"Revoked API key '{name}'", name=name)
