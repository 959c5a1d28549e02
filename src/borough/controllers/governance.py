"""Governance's loops: runs end in time, due ones begin again, snapshots are taken, what is over is forgotten."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import structlog

from borough.controllers.loops import Controller
from borough.core.clock import utc_now
from borough.governance.services.supervision import Supervision
from borough.governance.services.workspaces import WorkspaceService

log = structlog.get_logger(__name__)

DUE_EVERY = timedelta(seconds=0.25)
LEFTOVERS_EVERY = timedelta(seconds=5)
SNAPSHOT_EVERY = timedelta(seconds=1)
SWEEP_EVERY = timedelta(seconds=5)
FORGET_EVERY = timedelta(minutes=1)
DEFAULT_RETENTION = timedelta(hours=24)
"""How long an agent that has ended can be looked at."""

Sweep = Callable[[], Awaitable[object]]


def controllers(
    supervision: Supervision,
    workspaces: WorkspaceService,
    *,
    sweeps: Sequence[tuple[str, Sweep]] = (),
    retention: timedelta = DEFAULT_RETENTION,
) -> tuple[Controller, ...]:
    """Return governance's loops. ``sweeps`` are called now and then, each by its name: what expires by itself."""

    async def forget() -> None:
        forgotten = await supervision.forget(ended_before=utc_now() - retention)
        if forgotten:
            log.info("agents.forgotten", count=forgotten)

    return (
        Controller(name="restarts", every=DUE_EVERY, act=supervision.start_due),
        Controller(name="timeouts", every=DUE_EVERY, act=supervision.end_overdue),
        Controller(
            name="leftovers", every=LEFTOVERS_EVERY, act=supervision.settle_leftovers, first_after=LEFTOVERS_EVERY
        ),
        Controller(name="snapshots", every=SNAPSHOT_EVERY, act=workspaces.snapshot_due),
        Controller(name="forget", every=FORGET_EVERY, act=forget),
        *(Controller(name=f"sweep {name}", every=SWEEP_EVERY, act=sweep) for name, sweep in sweeps),
    )
