"""The register of agents, and what their ends leave behind."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from borough.town.agents import Agent, NewAgent
from borough.town.ports.tasks import Assignment
from borough.town.tasks import HistoryEntry, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphanTask:
    """An unfinished task whose assignee is gone (``agent_missing``) or ended (``agent_terminal``)."""

    task: Task
    reason: str


class Agents(Protocol):
    """The register of agents."""

    async def add(self, new: NewAgent, *, max_agents: int, at_most: bool = True) -> Agent:
        """Register ``new`` in state ``starting``, incarnation 1 (or the next one when adopted); idempotent by id. One
        that is registered whatever the limit says does not count for it either.

        Raises:
            Conflict: the name is taken (``agent_exists``), or ``at_most`` and ``max_agents`` agents are not ended
                (``town_full``).
            NotFound: the parent does not exist (``parent_not_found``).
        """

    async def get(self, agent: str) -> Agent:
        """Return one agent. The supervisor has no record: ``NotFound``."""

    async def history(self, agent: str) -> tuple[HistoryEntry, ...]:
        """Return what happened to the agent, oldest first (at most the last 50 entries)."""

    async def all(self) -> tuple[Agent, ...]:
        """Return every agent, oldest first."""

    async def kill(self, agent: str, *, reason: str) -> Agent:
        """End the agent now: state ``stopped``, incarnation raised (its worker is fenced from here on), a lease it
        held released to its queue. Killing an ended agent changes nothing. Returns the agent as it was before,
        with its process.
        """

    async def begin(self, agent: str, *, reason: str) -> Agent:
        """Prepare a new incarnation: kill it if it lives, then ``starting``, counters of rounds at zero,
        ``last_active_at`` and ``last_heartbeat`` now. Returns the agent as it is after.
        """

    async def pause(self, agent: str) -> Agent:
        """``paused``; raises ``Conflict`` (``agent_not_running``) for an ended or draining agent."""

    async def resume(self, agent: str) -> Agent:
        """``paused`` becomes ``idle`` or, with a task in hand, ``working``; ``last_active_at`` is now.

        Raises:
            Conflict: it is not paused (``agent_not_paused``).
        """

    async def close(self, agent: str) -> Agent:
        """``draining``; raises ``Conflict`` (``agent_not_running``) for an ended agent."""

    async def prune(self, *, every: bool, dry_run: bool) -> tuple[Agent, ...]:
        """Forget ended agents (``every``: also live ones, which are killed first); what waited in their inboxes
        goes to the backlog, mail is dropped. Returns the agents as they were. ``dry_run`` only looks.
        """

    async def reclaim(
        self, *, of: str | None, to_backlog: bool, to: str | None, after: timedelta | None = None
    ) -> tuple[Assignment, ...]:
        """Move the unread work of ended agents (or of the one ended agent ``of``) to the backlog or to agent
        ``to``; with neither, only look. ``after``: only of agents that ended at least so long ago. Returns what
        moved (or would), with the agent whose it was.
        """

    async def orphans(self) -> tuple[OrphanTask, ...]:
        """Return unfinished tasks whose assignee is gone or ended; the supervisor is never one."""
