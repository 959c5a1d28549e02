"""``Agents`` on Valkey."""

from datetime import timedelta

from borough.adapters.valkey.link import Link
from borough.adapters.valkey.town import records
from borough.adapters.valkey.town.asking import ask, look
from borough.town.agents import Agent, NewAgent
from borough.town.ports.agents import OrphanTask
from borough.town.ports.tasks import Assignment
from borough.town.tasks import HistoryEntry


class ValkeyAgents:
    """Implements ``borough.town.ports.agents.Agents``."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def add(self, new: NewAgent, *, max_agents: int, at_most: bool = True) -> Agent:
        """See the port."""
        answer = await ask(
            self._link,
            "town_add_agent",
            new.id,
            new.name,
            new.cli,
            new.role_id,
            new.nickname,
            new.parent_agent_id,
            new.adopt,
            max_agents if at_most else None,
        )
        return records.agent(answer)

    async def get(self, agent: str) -> Agent:
        """See the port."""
        return records.agent(await look(self._link, "town_agent", agent))

    async def history(self, agent: str) -> tuple[HistoryEntry, ...]:
        """See the port."""
        return records.history(await look(self._link, "town_agent_history", agent))

    async def all(self) -> tuple[Agent, ...]:
        """See the port."""
        return tuple(map(records.agent, await look(self._link, "town_agents")))

    async def kill(self, agent: str, *, reason: str) -> Agent:
        """See the port. When it is repeated, the agent "before" is the one that has ended."""
        return records.agent(await ask(self._link, "town_kill", agent, reason))

    async def begin(self, agent: str, *, reason: str) -> Agent:
        """See the port. When it is repeated, there is one more incarnation."""
        return records.agent(await ask(self._link, "town_begin", agent, reason))

    async def pause(self, agent: str) -> Agent:
        """See the port."""
        return records.agent(await ask(self._link, "town_pause", agent))

    async def resume(self, agent: str) -> Agent:
        """See the port."""
        return records.agent(await ask(self._link, "town_resume", agent))

    async def close(self, agent: str) -> Agent:
        """See the port."""
        return records.agent(await ask(self._link, "town_close", agent))

    async def prune(self, *, every: bool, dry_run: bool) -> tuple[Agent, ...]:
        """See the port."""
        return tuple(map(records.agent, await ask(self._link, "town_prune", every, dry_run)))

    async def reclaim(
        self, *, of: str | None, to_backlog: bool, to: str | None, after: timedelta | None = None
    ) -> tuple[Assignment, ...]:
        """See the port. Raises ``Conflict`` (``agent_not_ended``) when ``of`` still runs."""
        return tuple(map(records.assignment, await ask(self._link, "town_reclaim", of, to_backlog, to, after)))

    async def orphans(self) -> tuple[OrphanTask, ...]:
        """See the port."""
        found = await look(self._link, "town_orphans")
        return tuple(OrphanTask(task=records.task(record), reason=records.text(reason)) for record, reason in found)
