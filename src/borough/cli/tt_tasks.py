"""``tt task``: looking at tasks, ending them, reading their logs."""

import json
import sys
import time
from typing import Any, Final

import click

from borough.cli.commands import LazyGroup, command, invocation, self_reference
from borough.cli.errors import Usage
from borough.cli.output import Output, output, say
from borough.cli.session import connect, pages, text_of
from borough.cli.text import duration, harmless_block, moment
from borough.cli.tt_agents import show_explanation
from borough.client.discovery import NoServer
from borough.client.http import DEFAULT_PATIENCE_S, Client
from borough.client.urls import segment
from borough.core.errors import NotFound, Unavailable

_HERE: Final = "borough.cli.tt_tasks"
_STATES: Final = ("pending", "assigned", "running", "delayed", "completed", "failed", "cancelled")

task = LazyGroup(
    "task",
    help="Look at tasks and end them.",
    example="tt task list --state running\ntt task log 0b0f5c1f-8a11-4f0b-9d6b-6f6d1ab07a4e --follow",
    table={
        "show": (f"{_HERE}:show", "Show a task with its history."),
        "list": (f"{_HERE}:list_tasks", "List tasks."),
        "current": (f"{_HERE}:current", "Show what an agent works on."),
        "complete": (f"{_HERE}:complete", "Say that a task is done."),
        "fail": (f"{_HERE}:fail", "Say that an attempt failed."),
        "cancel": (f"{_HERE}:cancel", "Cancel a task, its running attempt too."),
        "retry": (f"{_HERE}:retry", "Try a task that has ended again."),
        "explain": (f"{_HERE}:explain", "Say why a task waits or failed, and what comes next."),
        "log": (f"{_HERE}:log", "Print what the agent's CLI printed."),
    },
)


@command("show", example="tt task show 0b0f5c1f-8a11-4f0b-9d6b-6f6d1ab07a4e")
@click.argument("task_id")
def show(*, task_id: str) -> None:
    """Show a task with its history."""
    with connect() as server:
        found = server.get(f"/v1/tasks/{segment(task_id)}")
    output().show(found, lambda: print_task(output(), found))


def print_task(out: Output, found: dict[str, Any]) -> None:
    """Print a task for people."""
    started, ended = moment(found["started_at"]), moment(found["completed_at"])
    out.fields(
        [
            ("task", found["task_id"]),
            ("state", found["state"]),
            ("agent", found["agent_id"]),
            ("role", found["role"]),
            ("tags", ", ".join(found["tags"]) or None),
            ("urgent", "yes" if found["urgent"] else None),
            ("attempts", f"{found['attempts']} of {found['max_attempts']}"),
            ("created", out.when(found["created_at"])),
            ("not before", out.when(found["not_before"]) if found["not_before"] else None),
            ("took", duration(ended - started) if started and ended else None),
            ("last error", found["last_error"]),
        ]
    )
    out.block(f"\n{found['description']}")
    if found["result"]:
        out.block(f"\nResult:\n{found['result']}")
    for entry in found.get("history", []):
        change = f"{entry['old_state'] or '-'} → {entry['new_state']}" if entry["new_state"] else ""
        attempt = f"attempt {entry['attempt']}" if entry["attempt"] else ""
        out.line(
            "  ".join(
                part for part in (out.when(entry["at"]), entry["event"], change, attempt, entry["reason"]) if part
            )
        )


@command("list", example="tt task list --state running --agent ada\ntt task list --tag nightly --json")
@click.option("--state", type=click.Choice(_STATES, case_sensitive=False), help="Only tasks in this state.")
@click.option("--agent", metavar="AGENT", help="Only tasks of this agent.")
@click.option("--role", metavar="ROLE", help="Only tasks for this role.")
@click.option("--tag", metavar="TAG", help="Only tasks with this tag.")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many.")
def list_tasks(*, state: str | None, agent: str | None, role: str | None, tag: str | None, limit: int) -> None:
    """List tasks, oldest first."""
    query = {"state": state, "agent": agent, "role": role, "tag": tag}
    with connect() as server:
        found = list(pages(server, "/v1/tasks", "tasks", query, limit=limit))
        names = {} if invocation().json else agent_names(server)
    out = output()
    out.show({"tasks": found, "count": len(found)}, lambda: _print_tasks(out, found, names))
    if len(found) == limit and out.terminal and not out.json_asked:
        say(f"the first {limit}; see more with --limit")


def agent_names(server: Client) -> dict[str, str]:
    """Return the agents' names by id."""
    return {agent["id"]: agent["name"] for agent in server.get("/v1/agents")["agents"]}


def _agent(out: Output, agent_id: str | None, names: dict[str, str]) -> str:
    """Return an agent's name; one that was pruned has none any more."""
    known = names.get(agent_id or "", agent_id or "")
    return known[:8] if out.terminal and known == agent_id else known


def _print_tasks(out: Output, found: list[dict[str, Any]], names: dict[str, str]) -> None:
    out.table(
        ("task", "state", "attempts", "agent", "created", "description"),
        [
            (
                one["task_id"],
                one["state"],
                f"{one['attempts']}/{one['max_attempts']}",
                _agent(out, one["agent_id"], names),
                out.when(one["created_at"]),
                one["description"],
            )
            for one in found
        ],
        empty="there are no such tasks",
    )


@command("current", example="tt task current\ntt task current ada")
@click.argument("agent", required=False)
def current(*, agent: str | None) -> None:
    """Show what an agent works on.

    Inside an agent's CLI: what this agent works on.
    """
    who = agent or self_reference()
    if who is None:
        raise Usage(
            "whose task?",
            reason="no agent was named, and TINYTOWN_AGENT_ID and TINYTOWN_AGENT_NAME are not set",
            resolution="name the agent: tt task current AGENT",
        )
    with connect() as server:
        detail = server.get(f"/v1/agents/{segment(who)}")
        if not detail["current_task"]:
            raise NotFound(
                f"{detail['name']} has no task at present",
                code="no_current_task",
                reason=f"it is {detail['state'].lower()}",
                resolution=f"give it one: tt assign {detail['name']} TEXT",
            )
        found = server.get(f"/v1/tasks/{segment(detail['current_task'])}")
    output().show(found, lambda: print_task(output(), found))


@command("complete", example='tt task complete 0b0f5c1f-8a11-4f0b-9d6b-6f6d1ab07a4e --result "12 TODOs, see report.md"')
@click.argument("task_id")
@click.option("--result", metavar="TEXT", help="What came of it; - reads standard input.  [default: Completed]")
def complete(*, task_id: str, result: str | None) -> None:
    """Say that a task is done."""
    _end(task_id, "complete", {} if result is None else {"result": text_of(result)})


@command("fail", example='tt task fail 0b0f5c1f-8a11-4f0b-9d6b-6f6d1ab07a4e "no network" --final')
@click.argument("task_id")
@click.argument("reason")
@click.option("--final", is_flag=True, help="Do not try again, whatever attempts are left.")
def fail(*, task_id: str, reason: str, final: bool) -> None:
    """Say that an attempt failed.

    While attempts are left the task is tried again after a pause.
    """
    _end(task_id, "fail", {"reason": text_of(reason), "final": final})


@command("cancel", example="tt task cancel 0b0f5c1f-8a11-4f0b-9d6b-6f6d1ab07a4e")
@click.argument("task_id")
@click.option("--reason", metavar="TEXT", help="Why.  [default: Cancelled]")
def cancel(*, task_id: str, reason: str | None) -> None:
    """Cancel a task, its running attempt too."""
    _end(task_id, "cancel", {} if reason is None else {"reason": reason})


@command("retry", example="tt task retry 0b0f5c1f-8a11-4f0b-9d6b-6f6d1ab07a4e")
@click.argument("task_id")
def retry(*, task_id: str) -> None:
    """Try a task that has ended again, with fresh attempts."""
    _end(task_id, "retry", {})


def _end(task_id: str, verb: str, body: dict[str, object]) -> None:
    with connect() as server:
        done = server.post(f"/v1/tasks/{segment(task_id)}/{verb}", body)
    output().show(done, lambda: output().line(f"{done['task_id']} is {done['state']}"))


@command("explain", example="tt task explain 0b0f5c1f-8a11-4f0b-9d6b-6f6d1ab07a4e")
@click.argument("task_id")
def explain(*, task_id: str) -> None:
    """Say why a task waits or failed, and what comes next."""
    with connect() as server:
        told = server.get(f"/v1/tasks/{segment(task_id)}/explain")
    show_explanation(told)


@command("log", example="tt task log 0b0f5c1f-8a11-4f0b-9d6b-6f6d1ab07a4e --attempt 1\ntt task log ID --follow")
@click.argument("task_id")
@click.option("--attempt", type=click.IntRange(min=1), help="Of this attempt.  [default: the last]")
@click.option("-f", "--follow", is_flag=True, help="Go on until the attempt is over.")
def log(*, task_id: str, attempt: int | None, follow: bool) -> None:
    """Print what the agent's CLI printed."""
    path = f"/v1/tasks/{segment(task_id)}/log"
    with connect() as server:
        epoch = None if attempt is None else _epoch(server, task_id, attempt)
        if follow:
            _follow_log(server, path, epoch)
        else:
            _whole_log(server, path, epoch, attempt)


def _epoch(server: Client, task_id: str, attempt: int) -> int:
    """Return the epoch of the last lease that was this attempt: logs are kept by lease."""
    leases = server.get("/v1/events", {"task": task_id, "type": "task_leased", "limit": 1000})["events"]
    found = [int(lease["epoch"]) for lease in leases if lease.get("attempt") == attempt]
    if not found:
        raise NotFound(
            f"task {task_id} has had no attempt {attempt}",
            code="attempt_not_found",
            reason=f"its attempts: {', '.join(str(lease['attempt']) for lease in leases) or 'none'}",
            resolution=f"see 'tt task show {task_id}'",
        )
    return found[-1]


def _whole_log(server: Client, path: str, epoch: int | None, attempt: int | None) -> None:
    offset, size, parts = 0, 1, list[str]()
    while offset < size:
        answer = server.request("GET", path, query={"epoch": epoch, "offset": offset})
        size = int(answer.headers.get("x-log-size", len(answer.body)))
        if not answer.body:
            break
        offset += len(answer.body)
        if invocation().json:
            parts.append(answer.body.decode("utf-8", "replace"))
        else:
            _print_log(answer.body)
    if invocation().json:
        output().document({"attempt": attempt, "size": size, "text": "".join(parts)})


def _follow_log(server: Client, path: str, epoch: int | None) -> None:
    offset, lost_at = 0, 0.0
    while True:
        try:
            for event in server.stream(path, {"epoch": epoch, "offset": offset}):
                lost_at = 0.0
                if event.type == "end":
                    return
                if event.type == "log":
                    offset = _follow_part(json.loads(event.data))
        except (NoServer, Unavailable):
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > DEFAULT_PATIENCE_S:
                raise
        time.sleep(0.5)


def _follow_part(part: dict[str, Any]) -> int:
    """Print a part and return where the next one begins."""
    data = str(part["text"]).encode()
    if invocation().json:
        output().record({"offset": part["offset"], "text": part["text"]})
    else:
        _print_log(data)
    return int(part["offset"]) + len(data)


def _print_log(data: bytes) -> None:
    if output().terminal:
        sys.stdout.write(harmless_block(data.decode("utf-8", "replace")))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
    sys.stdout.flush()
