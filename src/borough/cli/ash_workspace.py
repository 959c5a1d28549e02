"""``ash workspace``: agents' files and the states that they can be returned to."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from borough.cli.ash_session import AshGroup, ash_command, ask, member, show_table, when
from borough.cli.output import output
from borough.cli.text import size

_HERE: Final = "borough.cli.ash_workspace"
_ID: Final = "550e8400-e29b-41d4-a716-446655440000"

workspace = AshGroup(
    "workspace",
    help="Agents' files, and the states that they can be returned to.",
    example=f"ash workspace snapshot {_ID}\nash workspace diff {_ID}\nash workspace rollback {_ID} 0",
    table={
        "snapshot": (f"{_HERE}:snapshot", "Keep the present state."),
        "history": (f"{_HERE}:history", "List the states that are kept."),
        "diff": (f"{_HERE}:diff", "Show what differs from the last state."),
        "rollback": (f"{_HERE}:rollback", "Return to a state."),
        "commit": (f"{_HERE}:commit", "Make the present state the one that later changes are counted from."),
    },
)


@ash_command("snapshot", example=f"ash workspace snapshot {_ID} --description 'before the migration'")
@click.argument("agent_id")
@click.option("--description", metavar="TEXT", help="What the state is good for.")
def snapshot(*, agent_id: str, description: str | None) -> None:
    """Keep the present state."""
    made = ask("WorkspaceSnapshot", agent_id=agent_id, description=description)
    output().show(made, lambda: output().line(f"Snapshot {made['index']} taken for agent {agent_id}"))


@ash_command("history", example=f"ash workspace history {_ID}")
@click.argument("agent_id")
def history(*, agent_id: str) -> None:
    """List the states that are kept, oldest first."""
    show_table(
        ask("WorkspaceHistory", agent_id=agent_id)["snapshots"],
        [
            ("index", member("index")),
            ("created", when("created_at")),
            ("size", lambda one: size(int(one["size_bytes"]))),
            ("description", member("description")),
        ],
        empty="no snapshots",
    )


@ash_command("diff", example=f"ash workspace diff {_ID}")
@click.argument("agent_id")
def diff(*, agent_id: str) -> None:
    """Show what differs from the last state."""
    changes: Sequence[Mapping[str, Any]] = ask("WorkspaceDiff", agent_id=agent_id)["changes"]
    show_table(changes, [("change", member("change")), ("path", member("path"))], empty="nothing differs")


@ash_command("rollback", example=f"ash workspace rollback {_ID} 0")
@click.argument("agent_id")
@click.argument("index", type=click.IntRange(min=0))
def rollback(*, agent_id: str, index: int) -> None:
    """Return to a state; the agent is paused meanwhile."""
    done = ask("WorkspaceRollback", agent_id=agent_id, index=index)
    output().show(done, lambda: output().line(f"Agent {agent_id} is back at snapshot {index}"))


@ash_command("commit", example=f"ash workspace commit {_ID}")
@click.argument("agent_id")
@click.option("--description", metavar="TEXT", help="What the state is good for.")
def commit(*, agent_id: str, description: str | None) -> None:
    """Make the present state the one that later changes are counted from."""
    made = ask("WorkspaceCommit", agent_id=agent_id, description=description)
    output().show(made, lambda: output().line(f"Committed as snapshot {made['index']}"))
