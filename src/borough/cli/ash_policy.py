"""``ash policy``: what a manifest would decide, without doing anything."""

import json
from collections.abc import Mapping
from typing import Any, Final

import click

from borough.cli.ash_session import AshGroup, ash_command, ask, json_argument, manifest_text, member, show_table, when
from borough.cli.errors import FAILED
from borough.cli.output import output, say
from borough.core.clock import utc_now

_HERE: Final = "borough.cli.ash_policy"
_ID: Final = "550e8400-e29b-41d4-a716-446655440000"

policy = AshGroup(
    "policy",
    help="What a manifest would decide, without doing anything.",
    example='ash policy test manifest.yaml fs.read \'{"path": "/workspace/notes"}\'',
    table={
        "test": (f"{_HERE}:test", "Decide about one call, without any daemon."),
        "simulate": (f"{_HERE}:simulate", "Say which past calls a changed manifest would decide otherwise."),
        "shadow": (f"{_HERE}:shadow", "Try a manifest beside the one in force: start, list, show, end."),
    },
)
shadow = AshGroup(
    "shadow",
    help="A manifest on trial: every call is decided under it too, without effect.",
    example=f"ash policy shadow start {_ID} manifest.yaml\nash policy shadow show {_ID}",
    table={
        "start": (f"{_HERE}:shadow_start", "Put a manifest on trial."),
        "list": (f"{_HERE}:shadow_list", "List manifests on trial."),
        "show": (f"{_HERE}:shadow_show", "Show which calls would have been decided otherwise."),
        "end": (f"{_HERE}:shadow_end", "End a trial, and show how it went."),
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
@click.option("--until", metavar="TIME", help="Calls up to then (RFC 3339).")
@click.option(
    "-a", "--agent", metavar="ID|NAME", help="Calls of this agent, or of all of a name.  [default: the manifest's name]"
)
def simulate(*, manifest: str, since: str | None, until: str | None, agent: str | None) -> None:
    """Say which past calls a changed manifest would decide otherwise."""
    from borough.governance.manifest_reading import parse_manifest

    text = manifest_text(manifest)
    found = ask(
        "PolicySimulate", manifest_yaml=text, agent_id=agent or parse_manifest(text).name, since=since, until=until
    )
    out = output()

    def human() -> None:
        out.table(
            ("timestamp", "tool", "was", "would be", "rule", "input"),
            [
                (
                    one["at"],
                    one["tool"],
                    one["was"],
                    one["now"]["verdict"],
                    _rules(one["now"]),
                    json.dumps(one["input"]),
                )
                for one in found["changed"]
            ],
            empty="nothing would change",
        )
        say(_summary(found))

    out.show(found, human)


def _summary(found: Mapping[str, Any]) -> str:
    told = f"{found['calls']} calls: {len(found['changed'])} would change, {found['same']} would not"
    if found["undecidable"]:
        told += f", {len(found['undecidable'])} are not kept whole"
    return told + ("; there were more calls than are looked at" if found["cut"] else "")


def _rules(verdict: Mapping[str, Any]) -> str:
    return ", ".join(verdict["rules"])


@ash_command("start", example=f"ash policy shadow start {_ID} manifest.yaml")
@click.argument("agent_id")
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
def shadow_start(*, agent_id: str, manifest: str) -> None:
    """Decide every call of an agent under another manifest too, without effect."""
    made = ask("PolicyShadow", agent_id=agent_id, manifest_yaml=manifest_text(manifest))
    output().show(made, lambda: output().line(f"{made['manifest']} is on trial beside {agent_id}"))


@ash_command("list", example="ash policy shadow list")
def shadow_list() -> None:
    """List manifests on trial."""
    show_table(
        ask("PolicyShadowList")["trials"],
        [
            ("agent", member("agent_id")),
            ("manifest", member("manifest")),
            ("since", when("since")),
            ("calls", member("calls")),
            ("differing", member("differing")),
        ],
        empty="no manifest is on trial",
    )


@ash_command("show", example=f"ash policy shadow show {_ID}")
@click.argument("agent_id")
def shadow_show(*, agent_id: str) -> None:
    """Show which calls would have been decided otherwise."""
    _show_trial(ask("PolicyShadowShow", agent_id=agent_id))


@ash_command("end", example=f"ash policy shadow end {_ID}")
@click.argument("agent_id")
def shadow_end(*, agent_id: str) -> None:
    """End a trial, and show how it went."""
    _show_trial(ask("PolicyShadowEnd", agent_id=agent_id))


def _show_trial(trial: Mapping[str, Any]) -> None:
    out = output()
    columns = ("at", "tool", "enforced", "trial", "rule")

    def human() -> None:
        out.table(
            ("timestamp", "tool", "was", "would be", "rule"),
            [[one[column] for column in columns] for one in trial["differences"]],
            empty="nothing would have been otherwise",
        )
        say(f"{trial['calls']} calls, {trial['differing']} of them would have been decided otherwise")

    out.show(trial, human)
