"""``borough up`` that is killed at one step of a run: the run's label ``doom`` says at which, and it comes once."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from borough.adapters.sql.governance.agents import SqlAgents
from borough.adapters.sql.pools import SqlPools
from borough.adapters.sql.runs.store import SqlRuns
from borough.cli.borough import main as borough
from borough.runs.runs import Run


def die(run: Run) -> None:
    """End this process as the kernel would, at most once for each run."""
    marker = Path.cwd() / f"doomed-{run.id}"
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def arm() -> None:
    """Let death come right before or right after a step is written down."""
    plainly = SqlRuns.change

    async def change(self: SqlRuns, run: Run, *, event: str, message: str) -> Run:
        doom = run.labels.get("doom")
        if doom == f"{event}:before":
            die(run)
        changed = await plainly(self, run, event=event, message=message)
        if doom == f"{event}:after":
            die(run)
        return changed

    SqlRuns.change = change  # type: ignore[method-assign]  # this is what the program is for
    die_between()


def die_between() -> None:
    """Let death come after a step that the run's row does not tell of yet; a folder's file says which, once."""
    take, add = SqlPools.take_warm, SqlAgents.add

    async def taken(self: SqlPools, *what: Any, **more: Any) -> Any:
        machine = await take(self, *what, **more)
        die_if("warm.taken" if machine is not None else "")
        return machine

    async def added(self: SqlAgents, *what: Any) -> None:
        await add(self, *what)
        die_if("agent.added")

    SqlPools.take_warm, SqlAgents.add = taken, added  # type: ignore[method-assign]  # as above


def die_if(step: str) -> None:
    """End this process where the file ``doom`` of its folder says so."""
    wish = Path.cwd() / "doom"
    if step and wish.exists() and wish.read_text() == step:
        wish.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Serve as ``borough up`` does, until the end comes."""
    arm()
    borough()


if __name__ == "__main__":
    sys.exit(main())
