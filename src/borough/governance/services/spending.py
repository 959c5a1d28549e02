"""Spending: what calls under way may use is set aside, what they used is charged, and limits are told of in time."""

from dataclasses import dataclass

from borough.core.ids import AgentId
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.budgets import NOTHING_SPENT, BudgetState, Spent, charge, exhausted, state_of
from borough.governance.ledger import Outcome
from borough.governance.ports.register import Agents
from borough.governance.services.asking import Asker
from borough.governance.services.recording import Recorder


@dataclass(slots=True, kw_only=True)
class Reservation:
    """What one call under way may use."""

    agent_id: AgentId
    cost_micros: int
    released: bool = False


class Spending:
    """Keeps agents within their budgets, also with many calls at once."""

    def __init__(self, agents: Agents, recorder: Recorder) -> None:
        self._agents = agents
        self._recorder = recorder
        self._reserved: dict[AgentId, Spent] = {}

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
        """Add a call to what an agent has used; the one that reaches 80 or 100 percent of a limit is told of."""
        more = Spent(calls=1, tokens=tokens, cost_micros=cost_micros)
        after = await self._agents.charge(agent.id, more)
        before = Spent(
            calls=after.calls - 1,
            tokens=after.tokens - tokens,
            cost_micros=after.cost_micros - cost_micros,
            wall_time_s=after.wall_time_s,
        )
        state = state_of(agent.budget, after)
        if state is BudgetState.WITHIN or state is state_of(agent.budget, before):
            return
        over = exhausted(agent.budget, after)
        await self._recorder.event(
            asker,
            Action.BUDGET_WARNING if over is None else Action.BUDGET_EXCEEDED,
            outcome=Outcome.SUCCESS if over is None else Outcome.DENIED,
            detail="80 % of a limit used" if over is None else str(over),
            target=agent,
            data={
                "calls": after.calls,
                "tokens": after.tokens,
                "cost_micros": after.cost_micros,
                "limits": {
                    "calls": agent.budget.calls,
                    "tokens": agent.budget.tokens,
                    "cost_micros": agent.budget.cost_micros,
                    "wall_time_s": agent.budget.wall_time_s,
                },
            },
        )
