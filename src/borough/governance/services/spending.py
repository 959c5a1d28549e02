"""Spending: what calls under way may use is set aside, what they used is charged, and limits are told of in time."""

import asyncio
from dataclasses import dataclass

from borough.core.ids import AgentId, derived_id
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.budgets import (
    NOTHING_SPENT,
    RESOURCES,
    WARN_PERCENT,
    BudgetState,
    Exhausted,
    Spent,
    charge,
    exhausted,
    state_of,
)
from borough.governance.canonical import Json
from borough.governance.escalations import EscalationKind
from borough.governance.ledger import Outcome
from borough.governance.ports.register import Agents
from borough.governance.services.asking import Asker
from borough.governance.services.escalations import EscalationService
from borough.governance.services.recording import Recorder


@dataclass(slots=True, kw_only=True)
class Reservation:
    """What one call under way may use."""

    agent_id: AgentId
    cost_micros: int
    released: bool = False


@dataclass(slots=True)
class _Waiting:
    more: Spent
    written: "asyncio.Future[None]"


class Spending:
    """Keeps agents within their budgets, also with many calls at once."""

    def __init__(self, agents: Agents, recorder: Recorder, escalations: EscalationService) -> None:
        self._agents = agents
        self._recorder = recorder
        self._escalations = escalations
        self._reserved: dict[AgentId, Spent] = {}
        self._writing: dict[AgentId, asyncio.Future[None]] = {}
        self._waiting: dict[AgentId, _Waiting] = {}
        """What waits for the write under way to end, to be written next."""

    def with_reserved(self, agent_id: AgentId, spent: Spent) -> Spent:
        """Return ``spent`` with what calls under way may still add to it."""
        reserved = self._reserved.get(agent_id)
        if reserved is None:
            return spent
        return charge(spent, calls=reserved.calls, cost_micros=reserved.cost_micros)

    def reserve(self, agent_id: AgentId, *, cost_micros: int) -> Reservation:
        """Set aside what a call may use until it is charged."""
        before = self._reserved.get(agent_id, NOTHING_SPENT)
        self._reserved[agent_id] = charge(before, calls=1, cost_micros=cost_micros)
        return Reservation(agent_id=agent_id, cost_micros=cost_micros)

    def release(self, reservation: Reservation) -> None:
        """Give back what was set aside; a second time changes nothing."""
        if reservation.released:
            return
        reservation.released = True
        before = self._reserved[reservation.agent_id]
        if before.calls == 1:
            del self._reserved[reservation.agent_id]
            return
        self._reserved[reservation.agent_id] = Spent(
            calls=before.calls - 1, cost_micros=before.cost_micros - reservation.cost_micros
        )

    async def charge(self, asker: Asker, agent: GovernedAgent, *, cost_micros: int, tokens: int) -> None:
        """Add a call to what an agent has used, and return once that is on disk. Calls that end while an earlier charge
        of the agent is being written are charged together. Whoever reaches 80 or 100 percent of a limit is told of.
        """
        more = Spent(calls=1, tokens=tokens, cost_micros=cost_micros)
        waiting = self._waiting.get(agent.id)
        if waiting is not None:
            waiting.more = _sum(waiting.more, more)
            await asyncio.shield(waiting.written)
            return
        previous = self._writing.get(agent.id)
        if previous is None:
            after = await self._write(agent.id, more)
        else:
            waiting = self._waiting[agent.id] = _Waiting(more, asyncio.get_running_loop().create_future())
            after, more = await self._write_after(previous, agent.id, waiting)
        await self._tell(asker, agent, _difference(after, more), after)

    async def _write(self, agent_id: AgentId, more: Spent) -> Spent:
        # Written here and now, not in a task of its own: so it is flushed together with the call's outcome.
        written = self._writing[agent_id] = asyncio.get_running_loop().create_future()
        try:
            return await self._agents.charge(agent_id, more)
        finally:
            del self._writing[agent_id]
            written.set_result(None)

    async def _write_after(
        self, previous: "asyncio.Future[None]", agent_id: AgentId, waiting: _Waiting
    ) -> tuple[Spent, Spent]:
        """Write what came together while ``previous`` was written, and let those know who added to it."""
        try:
            try:
                await asyncio.wait([previous])
            finally:
                del self._waiting[agent_id]
            after = await self._write(agent_id, waiting.more)
        except BaseException as error:
            _fail(waiting.written, error)
            raise
        waiting.written.set_result(None)
        return after, waiting.more

    async def _tell(self, asker: Asker, agent: GovernedAgent, before: Spent, after: Spent) -> None:
        state, was = state_of(agent.budget, after), state_of(agent.budget, before)
        if state is BudgetState.WITHIN or state is was:
            return
        over = exhausted(agent.budget, after)
        if was is BudgetState.WITHIN:
            await self._record(asker, agent, after, over=None)
        if over is not None:
            await self._record(asker, agent, after, over=over)
            await self._escalations.raise_(
                asker,
                agent,
                EscalationKind.BUDGET_EXCEEDED,
                str(over),
                escalation_id=derived_id("budget", agent.id, agent.run_id, over.resource, str(over.limit)),
            )

    async def _record(self, asker: Asker, agent: GovernedAgent, spent: Spent, *, over: Exhausted | None) -> None:
        data: dict[str, Json] = {resource: getattr(spent, resource) for resource in RESOURCES}
        data["limits"] = {resource: getattr(agent.budget, resource) for resource in RESOURCES}
        await self._recorder.event(
            asker,
            Action.BUDGET_WARNING if over is None else Action.BUDGET_EXCEEDED,
            outcome=Outcome.SUCCESS if over is None else Outcome.DENIED,
            detail=f"{WARN_PERCENT} % of a limit used" if over is None else str(over),
            target=agent,
            data=data,
        )


def _sum(one: Spent, other: Spent) -> Spent:
    return charge(one, calls=other.calls, tokens=other.tokens, cost_micros=other.cost_micros)


def _difference(after: Spent, more: Spent) -> Spent:
    return Spent(
        calls=after.calls - more.calls,
        tokens=after.tokens - more.tokens,
        cost_micros=after.cost_micros - more.cost_micros,
        wall_time_s=after.wall_time_s,
    )


def _fail(written: "asyncio.Future[None]", error: BaseException) -> None:
    if not isinstance(error, Exception):
        written.cancel()
        return
    written.set_exception(error)
    # Looked at here, since perhaps nobody else waits for it.
    written.exception()
