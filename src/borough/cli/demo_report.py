"""What a demonstration shows: live progress on stderr, and in the end who did what and how often it was tried."""

import json
import queue
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from borough.cli.demo_town import REPORTS, Killed
from borough.cli.output import Output, say
from borough.cli.text import duration, harmless, moment, shortened
from borough.client.http import Client
from borough.client.sse import ServerSentEvent
from borough.core.errors import BoroughError

_SHOWN_STATES: Final = ("pending", "assigned", "running", "delayed", "completed", "failed")


class Progress:
    """Events as they come: a line each, or on a terminal a few lines that are drawn anew."""

    def __init__(self, server: Client) -> None:
        self._server = server
        self._heard: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._terminal = sys.stderr.isatty()
        self._drawn = 0
        self._last = ""

    def __enter__(self) -> Self:
        threading.Thread(target=self._listen, name="events", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wait(0.0)

    def show(self, agents: list[dict[str, Any]], counts: Mapping[str, int]) -> None:
        """Draw agents and counts, on a terminal only."""
        if not self._terminal:
            return
        columns = shutil.get_terminal_size().columns - 1
        lines = [
            "  ".join(f"{counts.get(state, 0)} {state}" for state in _SHOWN_STATES),
            *(f"  {one['name']:<10} {one['state'].lower():<9} {one['current_scope'] or ''}" for one in agents),
            self._last,
        ]
        up = f"\x1b[{self._drawn}F" if self._drawn else ""
        sys.stderr.write(up + "".join(f"\x1b[2K{shortened(harmless(line), columns)}\n" for line in lines))
        sys.stderr.flush()
        self._drawn = len(lines)

    def note(self, text: str) -> None:
        """Say something of our own."""
        self._drawn = 0
        say(f"*** {text}")

    def wait(self, seconds: float) -> None:
        """Tell what is heard for ``seconds``."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                heard = self._heard.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return
            self._last = heard
            if not self._terminal:
                say(heard)

    def _listen(self) -> None:
        try:
            for event in self._server.follow("/v1/events", patience_s=5.0):
                self._heard.put(_line(event))
        except BoroughError as problem:
            self._heard.put(f"no more events: {problem.message}")


def _line(event: ServerSentEvent) -> str:
    try:
        told = json.loads(event.data)
        return f"{told['timestamp'][11:19]}  {told['event_type']:<22}  {told['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{event.type}: {event.data}"


def report(
    tasks: list[dict[str, Any]], names: Mapping[str, str], killed: Killed | None, *, folder: Path, took_s: float
) -> dict[str, Any]:
    """Return all that is to be said in the end."""
    return {
        "completed": sum(task["state"] == "completed" for task in tasks),
        "tasks": [_row(task, names) for task in tasks],
        "recovery": _recovery(killed, names),
        "reports": sorted(str(path) for path in (folder / REPORTS).rglob("*.md")),
        "folder": str(folder),
        "took_s": round(took_s, 1),
    }


def tell(out: Output, document: Mapping[str, Any]) -> None:
    """Print the report for people."""
    out.table(
        ("task", "state", "attempts", "who", "took", "what"),
        [
            (row["task_id"][:8], row["state"], row["attempts"], row["who"], row["took"], row["description"])
            for row in document["tasks"]
        ],
        empty="there are no tasks",
    )
    out.line("")
    for path in document["reports"]:
        out.line(path)
    out.line("")
    out.line(document["recovery"])
    out.line(
        f"{document['completed']} of {len(document['tasks'])} tasks completed in {document['took_s']} s; "
        f"{len(document['reports'])} reports in {Path(document['folder']) / REPORTS}"
    )


def _row(task: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    started, ended = moment(task["started_at"]), moment(task["completed_at"])
    return {
        "task_id": task["task_id"],
        "state": task["state"],
        "attempts": task["attempts"],
        "who": names.get(task["agent_id"] or "", task["agent_id"] or ""),
        "took": duration(ended - started) if started and ended else "",
        "description": task["description"].strip().splitlines()[0],
    }


def _recovery(killed: Killed | None, names: Mapping[str, str]) -> str:
    if killed is None:
        return "no worker could be killed: none was found with a task in hand"
    task = killed.task
    who = names.get(task["agent_id"] or "", "another agent")
    ended = moment(task["completed_at"])
    begin = f"{killed.agent} (pid {killed.pid}) was killed with SIGKILL while it worked on task {killed.task_id[:8]}"
    if task["state"] != "completed" or ended is None:
        return f"{begin}; the task is {task['state']} after {task['attempts']} attempts"
    seconds = ended.timestamp() - killed.at
    if task["attempts"] == 1:
        return f"{begin}, just after its task was reported as done; nothing had to be repeated"
    return (
        f"{begin}; that attempt failed; attempt {task['attempts']}, by {who}, completed the task {seconds:.1f} s "
        "after the kill"
    )
