"""``tt plan``, ``sync``, ``conductor``: work that was thought out beforehand, and who leads it."""

import os
from pathlib import Path
from typing import Any, Final

import click

from borough.cli import plan_file
from borough.cli.commands import command
from borough.cli.output import output, say
from borough.cli.session import connect, pages, town_folder
from borough.client.http import Client

_CONTEXT_FILE: Final = "conductor_context.md"


@command("plan", example="tt plan --init\ntt plan")
@click.option("-i", "--init", "begin", is_flag=True, help="Write a tasks.toml to begin with.")
def plan(*, begin: bool) -> None:
    """Show or begin the plan in tasks.toml."""
    path = town_folder() / plan_file.PLAN_FILE
    if begin:
        plan_file.begin(path)
        output().show({"file": str(path)}, lambda: output().line(f"wrote {path}"))
        return
    found = plan_file.read(path)
    out = output()
    out.show(
        {"file": str(path), "tasks": [plan_file.document(task) for task in found]},
        lambda: out.table(
            ("id", "status", "agent", "tags", "description"),
            [(task.id, task.status, task.agent or "backlog", ",".join(task.tags), task.description) for task in found],
            empty=f"{path} plans nothing yet",
        ),
    )


@command("sync", example="tt sync push\ntt sync pull")
@click.argument("direction", type=click.Choice(("push", "pull")), default="push")
def sync(*, direction: str) -> None:
    """Bring the plan into the town (push), or the town's news into the plan (pull).

    A planned task is given out once, however often this runs: the town knows it by the tag plan:ID.
    """
    path = town_folder() / plan_file.PLAN_FILE
    planned = plan_file.read(path)
    with connect() as server:
        known = {task.id: _known(server, task) for task in planned}
        rows = _push(server, planned, known) if direction == "push" else _pull(path, planned, known)
    out = output()
    out.show(
        {"direction": direction, "tasks": rows},
        lambda: out.table(
            ("id", "what", "task"), [(row["id"], row["what"], row["task_id"]) for row in rows], empty="nothing planned"
        ),
    )


def _known(server: Client, task: plan_file.Planned) -> dict[str, Any] | None:
    found: list[dict[str, Any]] = list(pages(server, "/v1/tasks", "tasks", {"tag": task.tag}, limit=1))
    return found[0] if found else None


def _push(
    server: Client, planned: list[plan_file.Planned], known: dict[str, dict[str, Any] | None]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    ids = {plan_id: str(task["task_id"]) for plan_id, task in known.items() if task}
    for task in planned:
        if task.id in ids:
            rows.append({"id": task.id, "what": "there already", "task_id": ids[task.id]})
        elif task.status != plan_file.PENDING:
            rows.append({"id": task.id, "what": f"left out: {task.status}", "task_id": None})
        else:
            ids[task.id] = _give(server, task, ids.get(task.parent or ""))
            rows.append({"id": task.id, "what": "given out", "task_id": ids[task.id]})
    return rows


def _give(server: Client, task: plan_file.Planned, parent_id: str | None) -> str:
    body: dict[str, object] = {"tags": [*task.tags, task.tag], "parent_id": parent_id}
    if task.agent:
        done = server.post("/v1/tasks/assign", {"agent": task.agent, "task": task.description, **body})
    else:
        done = server.post("/v1/backlog", {"description": task.description, **body})
    return str(done["task_id"])


def _pull(
    path: Path, planned: list[plan_file.Planned], known: dict[str, dict[str, Any] | None]
) -> list[dict[str, Any]]:
    states = {plan_id: str(task["state"]) for plan_id, task in known.items() if task}
    plan_file.write_states(path, states)
    rows = []
    for task in planned:
        found = known[task.id]
        what = f"{task.status} → {found['state']}" if found else f"{task.status}, not given out"
        rows.append({"id": task.id, "what": what, "task_id": found["task_id"] if found else None})
    return rows


@command("conductor", example="tt conductor")
def conductor() -> None:
    """Start the AI CLI that leads the town.

    It gets a file that says who is here, what waits and which commands there are; it replaces this process.
    """
    from borough.cli.leading import conductor_command, context_text
    from borough.config.global_file import load_settings

    town = town_folder()
    settings = load_settings(town, os.environ)
    with connect() as server:
        status = server.get("/v1/status", {"deep": True})
        url = server.url
    path = settings.state_folder / _CONTEXT_FILE
    text = context_text(status, url)
    _write_private(path, text)
    chosen = settings.cli(settings.conductor_cli).cli
    argv, reads_file = conductor_command(chosen.argv, file=path, text=text)
    say(f"starting {argv[0]} with {path}")
    if reads_file:
        os.dup2(os.open(path, os.O_RDONLY), 0)
    os.chdir(town)
    os.execvpe(argv[0], argv, {**os.environ, "TINYTOWN_SERVER": url})  # noqa: S606 - an argument list, no shell


def _write_private(path: Path, text: str) -> None:
    from borough.config.files import write_whole

    write_whole(path, text, mode=0o600)
