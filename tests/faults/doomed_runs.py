"""``borough up`` that is killed at one step of a run: the run's label ``doom`` says at which, and it comes once."""

import os
import signal
import sys
from pathlib import Path

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


def main() -> None:
    """Serve as ``borough up`` does, until the end comes."""
    arm()
    borough()


if __name__ == "__main__":
    sys.exit(main())
