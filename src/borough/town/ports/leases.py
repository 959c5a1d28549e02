"""Work in hand."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from borough.core.ids import AgentId, TaskId
from borough.town.agents import Agent, AgentState, Directive, WorkerProcess
from borough.town.messages import Message
from borough.town.tasks import Lease, RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What a worker learns when it reports."""

    directive: Directive
    lease_expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one pass of the lease keeper did."""

    retried: tuple[TaskId, ...]
    dead: tuple[TaskId, ...]
    promoted: int
    """Delayed tasks whose time had come."""
    lost_agents: tuple[Agent, ...]
    """Agents whose lease ended; now in state ``error``."""


class Leases(Protocol):
    """Work in hand. Every method is a worker's and names its ``incarnation``.

    All raise ``Conflict`` (code ``stale_incarnation``) when the agent has been started again or stopped since.
    An agent holds at most one lease.
    """

    async def start(self, agent_id: AgentId, *, incarnation: int, process: WorkerProcess, lease: timedelta) -> Agent:
        """The worker is up: ``starting`` becomes ``idle`` (a paused agent stays paused), its lease begins.

        Repeating it, also from a restarted worker of the same incarnation, releases what the agent still held.
        """

    async def take(
        self, agent_id: AgentId, *, incarnation: int, lease: timedelta
    ) -> tuple[Lease | None, tuple[Message, ...]]:
        """Lease the next task for the agent and return it with all unread mail, which is thereby read.

        Order: urgent of its inbox, urgent of the backlog it may take, its inbox, the backlog; each first in, first
        out, across roles too. Generalists (``names.GENERALIST_ROLES``) may take every role, others their own and
        tasks without one. An agent that already holds a lease gets the same one again, extended: so a lost answer
        is repaired by asking again. Paused, draining and ended agents get ``None``. Mail alone is no reason to wake
        an agent: without a task, no mail is returned. Also renews the agent's own lease, moves it to ``working``
        or leaves it ``idle``, and promotes delayed tasks that are due.
        """

    async def beat(
        self,
        agent_id: AgentId,
        *,
        incarnation: int,
        task_id: TaskId | None,
        epoch: int | None,
        lease: timedelta,
    ) -> Heartbeat:
        """Renew the agent's lease and, if it is still the holder, the task's; say what to do next."""

    async def leave(self, agent_id: AgentId, *, incarnation: int, state: AgentState, reason: str) -> Agent:
        """The worker goes: ``stopped`` or ``error``. A lease it still held is released. Leaving twice is fine.

        Raises:
            Conflict: unread work waits in its inbox and the agent was not told to drain or stop
                (``work_waiting``); the worker is then to go on.
        """

    async def lose(self, agent_id: AgentId, *, incarnation: int, reason: str, retry: RetryPolicy) -> Agent:
        """The worker ended without a goodbye: the agent's state is ``error``, this incarnation is over, and the
        attempt it held has failed. Losing an ended agent changes nothing.
        """

    async def drain_if_idle(self, agent_id: AgentId, *, incarnation: int) -> bool:
        """Move an idle agent with an empty inbox to ``draining``; return whether it did."""

    async def sweep(self, *, retry: RetryPolicy, limit: int, agent_grace: timedelta) -> Swept:
        """End what is overdue: task leases (failed attempt, reason ``lease expired``), agent leases (state
        ``error``, its task retried), agents that never reported within ``agent_grace`` of their start; promote due
        retries. At most ``limit`` of each.
        """

    async def attempt_is_live(self, task_id: TaskId, *, epoch: int) -> bool:
        """Tell whether the attempt that an agent CLI's token speaks for still holds its lease."""
