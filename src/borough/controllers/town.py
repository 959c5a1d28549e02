"""The town's loops: leases end in time, what was left behind moves on, finished work is forgotten one day."""

from datetime import timedelta

import structlog

from borough.controllers.loops import Controller
from borough.core.clock import utc_now
from borough.town.ports.logs import TaskLogs
from borough.town.ports.tasks import Tasks
from borough.town.services.recovery import FORGET_LIMIT, RecoveryService

log = structlog.get_logger(__name__)

SWEEP_EVERY = timedelta(seconds=0.5)
RECLAIM_EVERY = timedelta(seconds=5)
FORGET_EVERY = timedelta(minutes=1)


def controllers(
    recovery: RecoveryService,
    tasks: Tasks,
    logs: TaskLogs,
    *,
    lease: timedelta,
    reclaim_after: timedelta | None,
    retention: timedelta | None,
) -> tuple[Controller, ...]:
    """Return the town's loops.

    The first sweep waits a third of a lease: after a restart of the server, workers that live need a moment to
    renew what they hold.
    """

    async def sweep() -> None:
        swept = await recovery.sweep()
        for agent in swept.lost_agents:
            log.warning("agent.lost", agent=agent.name, agent_id=agent.id)
        if swept.retried or swept.dead:
            log.info("leases.ended", retried=list(swept.retried), dead=list(swept.dead))

    async def reclaim() -> None:
        if reclaim_after is not None:
            moved = await recovery.reclaim_overdue(after=reclaim_after)
            if moved:
                log.info("work.reclaimed", tasks=[assignment.task.id for assignment in moved])

    async def forget() -> None:
        if retention is not None:
            for task_id in await tasks.forget_finished(before=utc_now() - retention, limit=FORGET_LIMIT):
                await logs.forget(task_id)

    return (
        Controller(name="sweep", every=SWEEP_EVERY, act=sweep, first_after=lease / 3),
        Controller(name="reclaim", every=RECLAIM_EVERY, act=reclaim, first_after=lease),
        Controller(name="forget", every=FORGET_EVERY, act=forget),
    )
