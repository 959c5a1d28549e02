"""``tt assign``, ``tt backlog``, ``tt dead``: giving work, and work that nobody could do."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from borough.cli.commands import LazyGroup, command
from borough.cli.output import Output, output, say
from borough.cli.session import connect, pages, text_of
from borough.client.urls import segment

_HERE: Final = "borough.cli.tt_work"
Function = TypeVar("Function", bound=Callable[..., Any])


def work_options(function: Function) -> Function:
    """Add the options that describe new work."""
    for decorate in reversed(
        (
            click.option("--role", metavar="ROLE", help="Only agents of this role take it."),
            click.option("--tags", metavar="A,B", help="Words to find it by."),
            click.option("--urgent", is_flag=True, help="Before all that is not urgent."),
            click.option("--max-attempts", type=click.IntRange(1, 20), help="How often it is tried.  [default: 3]"),
            click.option(
                "--timeout", type=click.IntRange(1, 604_800), metavar="SECS", help="How long one attempt may take."
            ),
        )
    ):
        function = decorate(function)
    return function


def work_body(
    *, role: str | None, tags: str | None, urgent: bool, max_attempts: int | None, timeout: int | None
) -> dict[str, object]:
    """Return the members of a request that describe new work; what was not said is left to the server."""
    said: dict[str, object] = {"role": role, "max_attempts": max_attempts, "timeout_secs": timeout}
    body: dict[str, object] = {name: value for name, value in said.items() if value is not None}
    if urgent:
        body["urgent"] = True
    if tags:
        body["tags"] = [tag.strip() for tag in tags.split(",") if tag.strip()]
    return body


@command("assign", example='tt assign ada "List the TODOs of src"\ntt assign ada - --urgent < task.md')
@click.argument("agent")
@click.argument("task")
@work_options
def assign(*, agent: str, task: str, **options: Any) -> None:
    """Give a task to an agent.

    TASK is the text, or - to read it from standard input.
    """
    with connect() as server:
        done = server.post("/v1/tasks/assign", {"agent": agent, "task": text_of(task), **work_body(**options)})
    output().show(done, lambda: output().line(done["task_id"]))
    if output().terminal and not output().json_asked:
        say(f"assigned to {done['agent_name']}; see 'tt task show {done['task_id']}'")


backlog = LazyGroup(
    "backlog",
    help="Work for whichever agent is free.",
    example='tt backlog add "Check the licence headers" --role docs --tags legal\ntt backlog list',
    table={
        "add": (f"{_HERE}:backlog_add", "Add a task."),
        "list": (f"{_HERE}:backlog_list", "List what waits, in the order in which it is taken."),
        "claim": (f"{_HERE}:backlog_claim", "Move a task into an agent's inbox."),
        "assign-all": (f"{_HERE}:backlog_assign_all", "Move everything into an agent's inbox."),
        "remove": (f"{_HERE}:backlog_remove", "Delete a task that waits."),
    },
)


@command("add", example='tt backlog add "Check the licence headers" --role docs --tags legal,quick')
@click.argument("description")
@work_options
def backlog_add(*, description: str, **options: Any) -> None:
    """Add a task.

    DESCRIPTION is the text, or - to read it from standard input.
    """
    with connect() as server:
        done = server.post("/v1/backlog", {"description": text_of(description), **work_body(**options)})
    output().show(done, lambda: output().line(done["task_id"]))


@command("list", example="tt backlog list")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="At most so many.")
def backlog_list(*, limit: int) -> None:
    """List what waits, in the order in which it is taken."""
    with connect() as server:
        found = list(pages(server, "/v1/backlog", "backlog", {}, limit=limit))
    out = output()
    out.show({"backlog": found, "count": len(found)}, lambda: _print_backlog(out, found))


def _print_backlog(out: Output, found: list[dict[str, Any]]) -> None:
    out.table(
        ("task", "role", "urgent", "tags", "description"),
        [
            (
                entry["task_id"],
                entry["role"] or "any",
                "urgent" if entry["urgent"] else "",
                ",".join(entry["tags"]),
                entry["description"],
            )
            for entry in found
        ],
        empty="the backlog is empty",
    )


@command("claim", example="tt backlog claim 0b0f5c1f-8a11-4f0b-9d6b-6f6d1ab07a4e ada")
@click.argument("task_id")
@click.argument("agent")
def backlog_claim(*, task_id: str, agent: str) -> None:
    """Move a task into an agent's inbox."""
    with connect() as server:
        done = server.post(f"/v1/backlog/{segment(task_id)}/claim", {"agent": agent})
    output().show(done, lambda: output().line(f"{done['task_id']} is now with {done['agent_name']}"))


@command("assign-all", example="tt backlog assign-all ada")
@click.argument("agent")
def backlog_assign_all(*, agent: str) -> None:
    """Move everything into an agent's inbox."""
    with connect() as server:
        done = server.post("/v1/backlog/assign-all", {"agent": agent})
    output().show(done, lambda: _print_ids(done["tasks"], f"{done['assigned']} tasks assigned"))


@command("remove", example="tt backlog remove 0b0f5c1f-8a11-4f0b-9d6b-6f6d1ab07a4e")
@click.argument("task_id")
def backlog_remove(*, task_id: str) -> None:
    """Delete a task that waits."""
    with connect() as server:
        done = server.delete(f"/v1/backlog/{segment(task_id)}")
    output().show(done, lambda: output().line(f"removed {done['task_id']}"))


dead = LazyGroup(
    "dead",
    help="Tasks that ran out of attempts.",
    example="tt dead list\ntt dead replay",
    table={
        "list": (f"{_HERE}:dead_list", "List them, with the reason of each."),
        "replay": (f"{_HERE}:dead_replay", "Try them again, with fresh attempts."),
    },
)


@command("list", example="tt dead list")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="At most so many.")
def dead_list(*, limit: int) -> None:
    """List them, with the reason of each."""
    with connect() as server:
        found = list(pages(server, "/v1/dead-letters", "tasks", {}, limit=limit))
    out = output()
    out.show(
        {"tasks": found, "count": len(found)},
        lambda: out.table(
            ("task", "attempts", "failed", "why", "description"),
            [
                (
                    task["task_id"],
                    f"{task['attempts']}/{task['max_attempts']}",
                    out.when(task["completed_at"] or task["updated_at"]),
                    task["last_error"] or task["result"],
                    task["description"],
                )
                for task in found
            ],
            empty="there are none",
        ),
    )


@command("replay", example="tt dead replay --limit 10")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
def dead_replay(*, limit: int) -> None:
    """Try them again, with fresh attempts.

    For a single one, see 'tt task retry'.
    """
    with connect() as server:
        done = server.post("/v1/dead-letters/replay", {"limit": limit})
    output().show(done, lambda: _print_ids(done["tasks"], f"{done['replayed']} tasks will be tried again"))


def _print_ids(ids: list[str], summary: str) -> None:
    for one in ids:
        output().line(one)
    say(summary)
