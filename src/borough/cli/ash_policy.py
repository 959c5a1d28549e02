"""``ash policy``: what a manifest would decide, without doing anything."""

from typing import Any, Final

import click

from borough.cli.ash_session import AshGroup, ash_command, ask, json_argument, manifest_text, member
from borough.cli.errors import FAILED
from borough.cli.output import output
from borough.core.clock import utc_now

_HERE: Final = "borough.cli.ash_policy"

policy = AshGroup(
    "policy",
    help="What a manifest would decide, without doing anything.",
    example='ash policy test manifest.yaml fs.read \'{"path": "/workspace/notes"}\'',
    table={
        "test": (f"{_HERE}:test", "Decide about one call, without any daemon."),
        "simulate": (f"{_HERE}:simulate", "Say which past calls a changed manifest would decide otherwise."),
    },
)


@ash_command("test", example='ash policy test manifest.yaml fs.read \'{"path": "/etc/passwd"}\'')
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.argument("tool")
@click.argument("arguments", metavar="JSON", default="{}")
@click.option("--tainted", is_flag=True, help="As if the agent had read data from outside.")
def test(*, manifest: str, tool: str, arguments: str, tainted: bool) -> int:
    """Decide about one call as for a fresh agent, without any daemon; exit 1 when it would be denied."""
    from borough.governance.decisions import Allowed, Denied
    from borough.governance.manifest_reading import parse_manifest
    from borough.governance.policy import try_out

    called: Any = json_argument(arguments, "the tool's input")
    decision = try_out(parse_manifest(manifest_text(manifest)), tool, called, at=utc_now(), tainted=tainted)
    rule = ", ".join(decision.rules) if isinstance(decision, Allowed) else decision.rule
    reason = None if isinstance(decision, Allowed) else decision.reason
    told = {"verdict": decision.verdict, "rule": rule, "reason": reason}
    if isinstance(decision, Denied):
        told |= {"code": decision.code, "resolution": decision.resolution}
    output().show(told, lambda: output().fields(list(told.items())))
    return FAILED if isinstance(decision, Denied) else 0


@ash_command("simulate", example="ash policy simulate manifest.yaml --since 2026-11-01T00:00:00Z")
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--since", metavar="TIME", help="Calls from then on (RFC 3339).")
@click.option("-a", "--agent", "agent_id", metavar="ID", help="Calls of this agent.  [default: of the manifest's name]")
def simulate(*, manifest: str, since: str | None, agent_id: str | None) -> None:
    """Say which past calls a changed manifest would decide otherwise."""
    found = ask("PolicySimulate", manifest_yaml=manifest_text(manifest), since=since, agent_id=agent_id)
    out = output()
    columns = [
        ("timestamp", member("timestamp")),
        ("tool", member("tool")),
        ("was", member("was")),
        ("would be", member("would_be")),
        ("reason", member("reason")),
    ]

    def human() -> None:
        out.table(
            [heading for heading, _ in columns],
            [[cell(change) for _, cell in columns] for change in found["changed"]],
            empty="nothing would change",
        )
        out.line(f"{len(found['changed'])} would change, {found['same']} would not")

    out.show(found, human)
