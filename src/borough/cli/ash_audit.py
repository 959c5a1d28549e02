"""``ash audit``: the ledger, as it is shown and as it is proven."""

from collections.abc import Mapping
from typing import Any, Final

import click

from borough.cli.ash_session import ask, member, show_table
from borough.cli.commands import Described, shell_options
from borough.cli.errors import FAILED
from borough.cli.output import output

_ID: Final = "550e8400-e29b-41d4-a716-446655440000"


@click.command(
    "audit",
    cls=Described,
    common=shell_options,
    example=f"ash audit\nash audit --agent {_ID} --limit 5\nash audit verify",
)
@click.argument("verify", type=click.Choice(["verify"]), required=False)
@click.option("-a", "--agent", "agent_id", metavar="ID", help="Only what this agent did, or what was done for it.")
@click.option("-l", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="The newest ones.")
@click.option("--since", metavar="TIME", help="From then on (RFC 3339).")
@click.option("--until", metavar="TIME", help="Up to then (RFC 3339).")
@click.option("--action", metavar="NAME", help="Only this action, as in ToolInvoke.")
@click.option("--outcome", metavar="WORD", help="Only this outcome: success, denied, failure …")
def audit(*, verify: str | None, **wanted: Any) -> int:
    """Show the ledger, oldest first; ``ash audit verify`` has the daemon check all of it.

    Without trusting the daemon: export the ledger from the gateway and run ``borough verify``.
    """
    if verify:
        return _verify()
    show_table(
        ask("AuditQuery", **wanted)["entries"],
        [
            ("timestamp", member("timestamp")),
            ("agent", _who),
            ("event", member("action")),
            ("outcome", member("outcome")),
            ("detail", member("detail")),
        ],
        empty="no entries",
    )
    return 0


def _who(entry: Mapping[str, Any]) -> str:
    name = entry.get("agent_name") or entry["agent_id"]
    other = entry.get("on_behalf_of")
    return f"{name} for {other[:8]}" if other else str(name)


def _verify() -> int:
    found = ask("AuditVerify")
    whole = bool(found["ok"])

    def human() -> None:
        if whole:
            output().line(f"whole: {found['entries']} entries, head {found['head']}")
        else:
            output().line(f"broken at entry {found['first_bad']}: {found.get('reason') or 'it is not what was sealed'}")

    output().show(found, human)
    return 0 if whole else FAILED
