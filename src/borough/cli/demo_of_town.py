"""``borough demo-town``: a town of its own, three workers, twenty real tasks, one worker killed, nothing lost."""

import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click

from borough.cli.commands import command
from borough.cli.demo_report import Progress, report, tell
from borough.cli.demo_town import DemoTown, Killed, fresh_folder, kill_worker, sources
from borough.cli.errors import FAILED, OK
from borough.cli.output import output, say
from borough.client.http import Client

_ASSIGNED_EACH: Final = 2
_KILL_AFTER_DONE: Final = 2
_OVER: Final = frozenset({"completed", "failed", "cancelled"})


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of the demonstration."""

    tasks: list[dict[str, Any]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    killed: Killed | None = None
    took_s: float = 0.0

    @property
    def good(self) -> bool:
        """Whether everything is completed although a worker was killed."""
        return bool(self.tasks) and self.killed is not None and all(one["state"] == "completed" for one in self.tasks)


@command("demo-town", example="borough demo-town\nborough demo-town --source ~/code/project --folder /tmp/demo")
@click.option("--folder", type=click.Path(path_type=Path), help="A new folder.  [default: ./.borough/demo-N]")
@click.option("--source", type=click.Path(path_type=Path, exists=True, file_okay=False), help="What is read.")
@click.option("--workers", type=click.IntRange(2, 10), default=3, show_default=True, help="How many agents.")
@click.option("--within", type=click.FloatRange(5), default=120.0, show_default=True, help="Give up after so many s.")
@click.pass_context
def demo_town(context: click.Context, *, folder: Path | None, source: Path | None, workers: int, within: float) -> None:
    """Let three agents do twenty real tasks, kill one, and watch.

    Each task asks something about a source tree (by default Borough's own); the answer is a report in Markdown. One
    worker is killed in mid-task, and another finishes what it had. Everything that was started is stopped again.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()
    town = DemoTown(fresh_folder(folder), source=(source or sources()).absolute())
    outcome = Outcome()
    with town, Client(town.address) as server:
        names = [f"reader-{number}" for number in range(1, workers + 1)]
        _begin(server, names, town.texts())
        _watch(server, outcome, deadline=started + within)
        outcome.names = {one["id"]: one["name"] for one in server.get("/v1/agents")["agents"]}
        outcome.tasks = _read_tasks(server)
        if outcome.killed is not None:
            outcome.killed.task = server.get(f"/v1/tasks/{outcome.killed.task_id}")
    outcome.took_s = time.monotonic() - started
    document = report(outcome.tasks, outcome.names, outcome.killed, folder=town.folder, took_s=outcome.took_s)
    output().show(document, lambda: tell(output(), document))
    context.exit(OK if outcome.good else FAILED)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _begin(server: Client, names: list[str], texts: list[str]) -> None:
    for name in names:
        server.post("/v1/agents", {"name": name})
    assigned = len(names) * _ASSIGNED_EACH
    for index, text in enumerate(texts):
        if index < assigned:
            server.post("/v1/tasks/assign", {"agent": names[index % len(names)], "task": text, "tags": ["demo"]})
        else:
            server.post("/v1/backlog", {"description": text, "tags": ["demo"]})
    say(f"{len(names)} agents, {len(texts)} tasks: {min(assigned, len(texts))} assigned, the rest in the backlog")


def _watch(server: Client, outcome: Outcome, *, deadline: float) -> None:
    with Progress(server) as progress:
        while time.monotonic() < deadline:
            status = server.get("/v1/status", {"deep": True})
            counts = status["tasks"] or {}
            progress.show(status["agents"], counts)
            if outcome.killed is None and counts.get("completed", 0) >= _KILL_AFTER_DONE:
                outcome.killed = kill_worker(server, status["agents"])
                if outcome.killed is not None:
                    progress.note(f"killed {outcome.killed.agent} (pid {outcome.killed.pid}, SIGKILL) in mid-task")
            if counts and not any(count for state, count in counts.items() if state not in _OVER):
                return
            progress.wait(0.25)
    say("giving up: not everything was finished in time")


def _read_tasks(server: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.get("/v1/tasks", {"limit": 1000})["tasks"]
    return found
