"""``tt prune``, ``recover``, ``reclaim``: what agents leave behind. Each shows what it would do before it destroys."""

from typing import Any

import click

from borough.cli.commands import command
from borough.cli.errors import Failed, Usage
from borough.cli.output import confirmed, output, say
from borough.cli.session import connect
from borough.client.http import Client

_DONE = {"cancel": "cancelled", "delete": "deleted"}


@command("prune", example="tt prune\ntt prune --yes")
@click.option("--all", "everyone", is_flag=True, help="Every agent, the running ones too.")
@click.option("-y", "--yes", "--force", "yes", is_flag=True, help="Remove them instead of only showing them.")
def prune(*, everyone: bool, yes: bool) -> None:
    """Remove agents that have ended.

    Without --yes it shows which; --all asks for the town's name first. Work in their inboxes returns to the backlog.
    """
    with connect() as server:
        done = server.post("/v1/agents/prune", {"all": everyone, "dry_run": True})
        act = bool(done["agents"]) and (yes or (everyone and _typed_name(server, done["agents"])))
        if act:
            done = server.post("/v1/agents/prune", {"all": everyone, "dry_run": False})
    output().show(done, lambda: _print_pruned(done))


def _typed_name(server: Client, agents: list[str]) -> bool:
    name = server.get("/v1/town")["name"]
    return confirmed(f"This removes {len(agents)} agents: {', '.join(agents)}.", word=name)


def _print_pruned(done: dict[str, Any]) -> None:
    for name in done["agents"]:
        output().line(f"{'would remove' if done['dry_run'] else 'removed'} {name}")
    if not done["agents"]:
        say("there is nothing to remove")
    elif done["dry_run"]:
        say("nothing was removed; repeat with --yes to do it")


@command("recover", example="tt recover")
def recover() -> None:
    """Find agents whose process is gone.

    The server does this by itself; this makes it look now. Their work is tried again.
    """
    with connect() as server:
        done = server.post("/v1/recover")
    output().show(done, lambda: _print_recovered(done))


def _print_recovered(done: dict[str, Any]) -> None:
    for name in done["agents"]:
        output().line(f"recovered {name}")
    say(f"agents checked: {done['checked']}, recovered: {done['recovered']}")


@command("reclaim", example="tt reclaim\ntt reclaim --to-backlog\ntt reclaim --orphan-tasks --cancel --yes")
@click.option("--to-backlog", is_flag=True, help="Move the work to the backlog.")
@click.option("--to", "to", metavar="AGENT", help="Move the work into this agent's inbox.")
@click.option("--from", "from_", metavar="AGENT", help="Only the work of this agent.")
@click.option("--orphan-tasks", is_flag=True, help="Tasks whose agent is gone, instead of inboxes.")
@click.option("--cancel", is_flag=True, help="With --orphan-tasks: cancel them.")
@click.option("--delete", is_flag=True, help="With --orphan-tasks: delete them.")
@click.option("-y", "--yes", is_flag=True, help="Cancel or delete instead of only showing.")
def reclaim(
    *, to_backlog: bool, to: str | None, from_: str | None, orphan_tasks: bool, cancel: bool, delete: bool, yes: bool
) -> None:
    """Move the work of agents that have ended.

    Without a destination it only shows the work. Nothing is ever lost by looking.
    """
    if sum((to_backlog, to is not None, cancel, delete)) > 1:
        raise Usage(
            "more than one destination was given",
            reason="--to-backlog, --to, --cancel and --delete exclude each other",
            resolution="choose one of them",
        )
    if orphan_tasks:
        _orphans(_action(to_backlog=to_backlog, to=to, from_=from_, cancel=cancel, delete=delete), yes=yes)
        return
    if cancel or delete:
        raise Usage(
            "--cancel and --delete need --orphan-tasks",
            reason="what lies in an inbox can be moved, not thrown away",
            resolution="add --orphan-tasks, or use 'tt task cancel ID' for a single task",
        )
    with connect() as server:
        done = server.post("/v1/reclaim", {"to_backlog": to_backlog, "to": to, "from": from_})
    output().show(done, lambda: _print_reclaimed(done, listed=not (to_backlog or to)))


def _action(*, to_backlog: bool, to: str | None, from_: str | None, cancel: bool, delete: bool) -> str:
    if to is not None or from_ is not None:
        raise Usage(
            "--orphan-tasks takes neither --to nor --from",
            reason="orphans go to the backlog, where any fitting agent takes them",
            resolution="use --orphan-tasks --to-backlog, then 'tt backlog claim ID AGENT'",
        )
    if to_backlog:
        return "to_backlog"
    return "cancel" if cancel else "delete" if delete else "list"


def _orphans(action: str, *, yes: bool) -> None:
    destroys = action in {"cancel", "delete"}
    with connect() as server:
        done = server.post("/v1/reclaim/orphan-tasks", {"action": "list" if destroys else action})
        act = destroys and done["count"] and (yes or confirmed(f"{action.title()} {done['count']} tasks?"))
        if act:
            done = server.post("/v1/reclaim/orphan-tasks", {"action": action})
    output().show(done, lambda: _print_orphans(done))
    if destroys and done["count"] and not act:
        raise Failed(
            f"nothing was done: {done['count']} tasks would be {_DONE[action]}",
            code="not_confirmed",
            reason="this cannot be undone, and it was not confirmed",
            resolution="repeat with --yes",
        )


def _print_orphans(done: dict[str, Any]) -> None:
    output().table(
        ("task", "state", "was with", "reason"),
        [(one["task_id"], one["state"], one["assigned_to"], one["reason"]) for one in done["orphans"]],
        empty="there are no orphan tasks",
    )
    say(f"{done['count']} tasks, action: {done['action']}")


def _print_reclaimed(done: dict[str, Any], *, listed: bool) -> None:
    output().table(
        ("task", "was with", "description"),
        [(one["task_id"], one["agent_name"], one["description"]) for one in done["tasks"]],
        empty="agents that have ended hold no work",
    )
    if listed and done["reclaimed"]:
        say("nothing was moved; repeat with --to-backlog or --to AGENT to do it")
    elif not listed:
        say(f"{done['reclaimed']} tasks moved to {done['destination']}")
