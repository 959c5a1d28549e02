"""Use cases of recovery: what is overdue ends, what was left behind is found and moved."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from borough.core.errors import Conflict, Invalid
from borough.town.ports.agents import Agents, OrphanTask
from borough.town.ports.leases import Leases, Swept
from borough.town.ports.logs import TaskLogs
from borough.town.ports.tasks import Assignment, Tasks
from borough.town.services.agents import AgentService
from borough.town.tasks import RetryPolicy

SWEEP_LIMIT = 500
FORGET_LIMIT = 500


class OrphanAction(StrEnum):
    """What to do with tasks whose agent is gone."""

    LIST = "list"
    TO_BACKLOG = "to_backlog"
    CANCEL = "cancel"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What a recovery found."""

    checked: int
    names: tuple[str, ...]


class RecoveryService:
    """Keeps the promise that nothing is stuck for ever."""

    def __init__(
        self,
        tasks: Tasks,
        leases: Leases,
        agents: Agents,
        logs: TaskLogs,
        agent_service: AgentService,
        *,
        retry: RetryPolicy,
        agent_grace: timedelta,
    ) -> None:
        self._tasks = tasks
        self._leases = leases
        self._agents = agents
        self._logs = logs
        self._agent_service = agent_service
        self._retry = retry
        self._agent_grace = agent_grace

    async def sweep(self) -> Swept:
        """End every overdue lease, find lost agents and clear away their processes, wake due retries."""
        swept = await self._leases.sweep(retry=self._retry, limit=SWEEP_LIMIT, agent_grace=self._agent_grace)
        if swept.lost_agents:
            await self._agent_service.lost(swept.lost_agents)
        return swept

    async def recover(self) -> Recovered:
        """Sweep now; return how many agents there are and which were found lost."""
        swept = await self.sweep()
        return Recovered(checked=len(await self._agents.all()), names=tuple(agent.name for agent in swept.lost_agents))

    async def reclaim(self, *, of: str | None, to_backlog: bool, to: str | None) -> tuple[Assignment, ...]:
        """Move what waits for ended agents; without a destination only look.

        Raises:
            Invalid: two destinations.
        """
        if to_backlog and to is not None:
            raise Invalid(
                "work cannot go to the backlog and to an agent at once",
                code="two_destinations",
                resolution="give either to_backlog or to",
                details={"pointer": "/to"},
            )
        return await self._agents.reclaim(of=of, to_backlog=to_backlog, to=to)

    async def reclaim_overdue(self, *, after: timedelta) -> tuple[Assignment, ...]:
        """Return to the backlog what has waited for agents that ended at least ``after`` ago."""
        return await self._agents.reclaim(of=None, to_backlog=True, to=None, after=after)

    async def orphans(self, action: OrphanAction, *, by: str) -> tuple[OrphanTask, ...]:
        """Find unfinished tasks whose agent is gone and do ``action`` with each; return what was found."""
        orphans = await self._agents.orphans()
        for orphan in orphans:
            await self._settle(orphan, action, by=by)
        return orphans

    async def _settle(self, orphan: OrphanTask, action: OrphanAction, *, by: str) -> None:
        if action is OrphanAction.LIST:
            return
        reason = "its agent is gone"
        try:
            await self._tasks.cancel(orphan.task.id, reason=reason, by=by)
        except Conflict:
            return  # it ended between the look and the act: then it is an orphan no more
        if action is OrphanAction.TO_BACKLOG:
            await self._tasks.replay(orphan.task.id, by=by)
        elif action is OrphanAction.DELETE:
            await self._tasks.forget(orphan.task.id)
            await self._logs.forget(orphan.task.id)
