"""``ash memory`` and ``ash obs``: what agents keep, and what they say of themselves."""

from typing import Any, Final

import click

from borough.cli.ash_session import (
    AshGroup,
    ash_command,
    ask,
    daemon,
    every,
    json_argument,
    member,
    show_done,
    show_table,
    show_value,
)
from borough.cli.output import output

_HERE: Final = "borough.cli.ash_memory"
_ID: Final = "550e8400-e29b-41d4-a716-446655440000"

memory = AshGroup(
    "memory",
    help="What agents keep under keys, beyond their runs.",
    example=f"ash memory write {_ID} state/last '{{\"done\": 3}}'\nash memory read {_ID} state/last",
    table={
        "read": (f"{_HERE}:read", "Print what is kept under a key."),
        "write": (f"{_HERE}:write", "Keep a value under a key."),
        "cas": (f"{_HERE}:cas", "Keep a value if the version is still the one that you know."),
        "delete": (f"{_HERE}:delete", "Forget a key."),
        "list": (f"{_HERE}:list_keys", "List keys."),
    },
)
obs = AshGroup(
    "obs",
    help="What agents say of themselves, one chain for each.",
    example=f"ash obs query {_ID} --keyword refused",
    table={"query": (f"{_HERE}:query", "Show observations, oldest first.")},
)


@ash_command("read", example=f"ash memory read {_ID} state/last")
@click.argument("agent_id")
@click.argument("key")
def read(*, agent_id: str, key: str) -> None:
    """Print what is kept under a key, as JSON."""
    found = ask("MemoryRead", agent_id=agent_id, key=key)
    output().show(found, lambda: show_value(found["value"]))


@ash_command("write", example=f"ash memory write {_ID} state/last '{{\"done\": 3}}' --ttl 3600")
@click.argument("agent_id")
@click.argument("key")
@click.argument("value", metavar="JSON")
@click.option("--ttl", type=click.IntRange(min=1), metavar="SECONDS", help="Forget it after so long.")
def write(*, agent_id: str, key: str, value: str, ttl: int | None) -> None:
    """Keep a value under a key."""
    _written("MemoryWrite", agent_id=agent_id, key=key, value=json_argument(value, "the value"), ttl_secs=ttl)


@ash_command("cas", example=f"ash memory cas {_ID} state/last 3 '{{\"done\": 4}}'")
@click.argument("agent_id")
@click.argument("key")
@click.argument("version", type=click.IntRange(min=0))
@click.argument("value", metavar="JSON")
@click.option("--ttl", type=click.IntRange(min=1), metavar="SECONDS", help="Forget it after so long.")
def cas(*, agent_id: str, key: str, version: int, value: str, ttl: int | None) -> None:
    """Keep a value if the version is still the one that you know; 0: only if there is none."""
    _written(
        "MemoryWriteCas",
        agent_id=agent_id,
        key=key,
        expected_version=version,
        value=json_argument(value, "the value"),
        ttl_secs=ttl,
    )


def _written(variant: str, **fields: Any) -> None:
    # A value of null is a value; only a missing time to live is not said.
    with daemon() as asked:
        made = asked.send(variant, {name: said for name, said in fields.items() if name == "value" or said is not None})
    output().show(made, lambda: output().line(f"version {made['version']}"))


@ash_command("delete", example=f"ash memory delete {_ID} state/last")
@click.argument("agent_id")
@click.argument("key")
def delete(*, agent_id: str, key: str) -> None:
    """Forget a key."""
    show_done("MemoryDelete", f"Deleted {key}", agent_id=agent_id, key=key)


@ash_command("list", example=f"ash memory list {_ID} --pattern 'state/*'")
@click.argument("agent_id")
@click.option("--pattern", metavar="GLOB", help="Only keys like this.")
def list_keys(*, agent_id: str, pattern: str | None) -> None:
    """List keys."""
    show_keys(every("MemoryList", "keys", agent_id=agent_id, pattern=pattern))


def show_keys(keys: list[Any]) -> None:
    """Show keys, one a line."""
    show_table([{"key": name} for name in keys], [("key", member("key"))], empty="no keys", document=keys)


@ash_command("query", example=f"ash obs query {_ID} --since 2026-01-01T00:00:00Z --limit 10")
@click.argument("agent_id")
@click.option("--target", metavar="ID", help="Of another agent, read in this one's place.")
@click.option("--since", metavar="TIME", help="From then on (RFC 3339).")
@click.option("--until", metavar="TIME", help="Up to then (RFC 3339).")
@click.option("--keyword", metavar="TEXT", help="Only those that hold this text.")
@click.option("--tag", metavar="TAG", help="Only those with this tag.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="The newest ones.")
def query(*, agent_id: str, target: str | None, **wanted: Any) -> None:
    """Show observations, oldest first."""
    show_table(
        ask("ObservationQuery", agent_id=target or agent_id, **wanted)["observations"],
        [
            ("timestamp", member("timestamp")),
            ("action", member("action")),
            ("result", member("result")),
            ("tags", lambda one: ", ".join(one.get("tags", ()))),
        ],
        empty="no observations",
    )
