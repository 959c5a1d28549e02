"""Use cases on the town as a whole."""

from borough.core.errors import Conflict
from borough.town.ports.administration import Administration
from borough.town.ports.logs import TaskLogs
from borough.town.services.agents import AgentService


class AdministrationService:
    """Begins a town anew, once its name was typed."""

    def __init__(self, administration: Administration, logs: TaskLogs, agents: AgentService, *, town: str) -> None:
        self._administration = administration
        self._logs = logs
        self._agents = agents
        self._town = town

    async def reset(self, *, confirm: str, agents_only: bool) -> int:
        """Delete the town's agents, and everything else unless ``agents_only``; return how many records went.

        Processes end before their records go, so that none is left without an owner.

        Raises:
            Conflict: ``confirm`` is not the town's name (``not_confirmed``).
        """
        if confirm != self._town:
            raise Conflict(
                "the confirmation is not this town's name",
                code="not_confirmed",
                resolution=f"send the name {self._town!r} as 'confirm' if you mean to delete it all",
            )
        await self._agents.prune(every=True, dry_run=False)
        removed = await self._administration.reset(agents_only=agents_only)
        if not agents_only:
            await self._logs.forget_all()
        return removed
