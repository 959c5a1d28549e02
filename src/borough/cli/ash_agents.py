"""``ash``: agents and the daemon itself."""

import sys
from typing import Any, Final

import click

from borough.cli.ash_session import (
    ash_command,
    ask,
    daemon,
    flat,
    manifest_folder,
    manifest_text,
    member,
    show_done,
    show_table,
    show_value,
)
from borough.cli.errors import FAILED
from borough.cli.output import output, say
from borough.core.errors import Invalid

_STATES: Final = ("plan", "act", "observe", "terminate")
_ID: Final = "550e8400-e29b-41d4-a716-446655440000"
_LOG_PART_BYTES: Final = 65_536
_LOG_WAIT_S: Final = 30


@ash_command("ping", example="ash ping")
def ping() -> None:
    """Ask whether the daemon is there."""
    ask("Ping")
    output().show({"ok": True}, lambda: output().line("pong"))


@ash_command("status", example="ash status")
def status() -> None:
    """Show the daemon: version, uptime, agents."""
    found = ask("Status")
    output().show(found, lambda: output().fields(flat(found)))


@ash_command("spawn", example="ash spawn manifest.yaml\nash spawn manifest.yaml --task 'Summarize Q1'")
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--task", metavar="TEXT", help="Instead of the manifest's task.")
def spawn(*, manifest: str, task: str | None) -> None:
    """Start an agent from a manifest; ``-`` reads it from standard input."""
    made = ask(
        "SpawnAgent", manifest_yaml=manifest_text(manifest), task_override=task, folder=manifest_folder(manifest)
    )
    output().show(made, lambda: output().line(f"Spawned agent {made['agent_id']}"))


@ash_command("validate", example="ash validate manifest.yaml")
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
def validate(*, manifest: str) -> int:
    """Check a manifest, without any daemon."""
    from borough.governance.documents import load_document
    from borough.governance.manifest_reading import read_manifest

    try:
        reading = read_manifest(load_document(manifest_text(manifest)))
    except Invalid as error:
        return _not_valid([error.reason or error.message])
    for warning in reading.warnings:
        say(f"warning: {warning}")
    problems = [str(problem) for problem in reading.problems]
    if problems:
        return _not_valid(problems)
    output().show({"valid": True}, lambda: output().line("Manifest is valid"))
    return 0


def _not_valid(problems: list[str]) -> int:
    def human() -> None:
        for problem in problems:
            sys.stderr.write(f"Error: {problem}\n")

    output().show({"valid": False, "problems": problems}, human)
    return FAILED


@ash_command("list", example="ash list\nash list --json")
@click.option("--ended", is_flag=True, help="Also agents that have ended and are still kept.")
def list_agents(*, ended: bool) -> None:
    """List the agents that run."""
    found = ask("ListAgents", ended=ended or None)["agents"]
    show_table(
        found,
        [
            ("id", member("id")),
            ("name", member("name")),
            ("version", member("version")),
            ("state", member("state")),
            ("status", member("status")),
            ("trust", member("trust_level")),
            ("uptime", lambda one: _uptime(one.get("uptime_secs"))),
        ],
        empty="no agents run; start one with 'ash spawn manifest.yaml'",
    )


@ash_command("info", example=f"ash info {_ID}")
@click.argument("agent_id")
def info(*, agent_id: str) -> None:
    """Show everything about an agent, also what really confines it."""
    found = ask("AgentInfo", agent_id=agent_id)
    output().show(found, lambda: output().fields(flat(found)))


@ash_command("kill", example=f"ash kill {_ID}")
@click.argument("agent_id")
def kill(*, agent_id: str) -> None:
    """End an agent with everything that it started."""
    show_done("KillAgent", f"Killed agent {agent_id}", agent_id=agent_id)


@ash_command("transition", example=f"ash transition {_ID} act")
@click.argument("agent_id")
@click.argument("state", type=click.Choice(_STATES, case_sensitive=False))
def transition(*, agent_id: str, state: str) -> None:
    """Move an agent to another state."""
    show_done("Transition", f"Agent {agent_id} is in {state.capitalize()}", agent_id=agent_id, state=state)


@ash_command("pause", example=f"ash pause {_ID}")
@click.argument("agent_id")
def pause(*, agent_id: str) -> None:
    """Stop an agent where it is; its calls of tools wait."""
    show_done("PauseAgent", f"Paused agent {agent_id}", agent_id=agent_id)


@ash_command("resume", example=f"ash resume {_ID}")
@click.argument("agent_id")
def resume(*, agent_id: str) -> None:
    """Let a paused agent go on."""
    show_done("ResumeAgent", f"Agent {agent_id} goes on", agent_id=agent_id)


@ash_command("logs", example=f"ash logs {_ID}\nash logs {_ID} --follow")
@click.argument("agent_id")
@click.option("--run", "run_id", metavar="RUN", help="Of an earlier run.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the agent has ended.")
def logs(*, agent_id: str, run_id: str | None, follow: bool) -> None:
    """Print what an agent printed; with --json in parts, one document a line."""
    out, wait = output(), _LOG_WAIT_S if follow else None
    wanted: dict[str, Any] = {"agent_id": agent_id, "run_id": run_id, "offset": 0}
    with daemon() as asked:
        while True:
            part = asked.ask("AgentLogs", **wanted, limit=_LOG_PART_BYTES, wait=wait)
            wanted |= {"offset": part["next_offset"], "run_id": part["run_id"]}
            if part["text"] and out.json_asked:
                out.record({"run_id": part["run_id"], "text": part["text"]})
            elif part["text"]:
                out.stream.write(part["text"])
                out.stream.flush()
            if part["over"] or not (part["text"] or follow):
                return


@ash_command("result", example=f"ash result {_ID} --wait 60")
@click.argument("agent_id")
@click.option("--wait", type=click.IntRange(0, 60), default=0, help="Seconds to wait until it is there.")
def result(*, agent_id: str, wait: int) -> int:
    """Print what an agent handed back, as JSON; exit 1 when there is nothing (yet)."""
    found = ask("ResultShow", agent_id=agent_id, wait=wait)

    def human() -> None:
        if found["ready"]:
            show_value(found["result"])
        else:
            say(f"nothing was handed back; the agent is {found['status']}")

    output().show(found, human)
    return 0 if found["ready"] else FAILED


@ash_command("discover", example=f"ash discover {_ID} 'bus.*'")
@click.argument("agent_id")
@click.argument("pattern", default="*")
def discover(*, agent_id: str, pattern: str) -> None:
    """Find agents by their capabilities, as the named agent would."""
    found = ask("DiscoverAgents", agent_id=agent_id, pattern=pattern)["agents"]
    show_table(
        found,
        [
            ("id", member("id")),
            ("name", member("name")),
            ("state", member("state")),
            ("capabilities", lambda one: ", ".join(one.get("capabilities", ()))),
        ],
        empty="no agent has such a capability",
    )


def _uptime(seconds: Any) -> str:
    if not isinstance(seconds, int | float):
        return ""
    from datetime import timedelta

    from borough.cli.text import duration

    return duration(timedelta(seconds=float(seconds))) if seconds >= 1 else "0 s"
