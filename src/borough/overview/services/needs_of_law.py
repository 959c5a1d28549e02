"""What of governance needs a person: calls that want agreement, questions of agents, budgets that are used up."""

from typing import Final

import orjson

from borough.core.clock import rfc3339, utc_now
from borough.core.errors import NotFound
from borough.core.ids import AgentId
from borough.core.paging import Page, PageRequest
from borough.governance.agents import GovernedAgent
from borough.governance.approvals import Approval, expire
from borough.governance.budgets import Limits, as_much_again, exhausted, from_micros
from borough.governance.escalations import Escalation, EscalationKind
from borough.governance.ports.escalations import Escalations
from borough.governance.ports.register import Agents
from borough.governance.ports.tools import Approvals, Proposals
from borough.governance.tools import Proposal, ProposalState
from borough.overview.attention import Kind, Need, Settling, Urgency
from borough.overview.occurrences import Context, Subject
from borough.overview.services.slices import part

_SHOWN: Final = 500
_OVER: Final = EscalationKind.BUDGET_EXCEEDED
_OPTIONS: Final = {"calls": "calls", "tokens": "tokens", "cost": "cost", "wall_time_secs": "wall-time"}
"""What of a budget is called how on the command line."""


class WaitingCalls:
    """Calls that people have to agree to, and tools that agents propose."""

    context: Final = Context.GOVERNANCE
    kind: Final = Kind.APPROVAL

    def __init__(self, approvals: Approvals, proposals: Proposals, agents: Agents) -> None:
        self._approvals = approvals
        self._proposals = proposals
        self._agents = agents

    async def page(self, page: PageRequest) -> Page[Need]:
        """Return some, oldest first."""
        now = utc_now()
        waiting = [one for one in await self._approvals.waiting() if expire(one, at=now) is one]
        proposed = await self._proposals.all(state=ProposalState.PROPOSED)
        calls = [_call(one, await name_of(self._agents, one.agent_id)) for one in waiting]
        return part([*calls, *[_tool(one, await name_of(self._agents, one.agent_id)) for one in proposed]], page)


class Questions:
    """What agents ask of people."""

    context: Final = Context.GOVERNANCE
    kind: Final = Kind.QUESTION

    def __init__(self, escalations: Escalations, agents: Agents) -> None:
        self._escalations = escalations
        self._agents = agents

    async def page(self, page: PageRequest) -> Page[Need]:
        """Return some, oldest first; what agents still have to answer is theirs."""
        found = [one for one in await self._escalations.open() if one.to_agent_id is None]
        asked = [one for one in found if one.kind is not _OVER]
        return part([_asked(one, await name_of(self._agents, one.from_agent_id)) for one in asked], page)


class SpentBudgets:
    """Agents that stand still because their budget is used up."""

    context: Final = Context.GOVERNANCE
    kind: Final = Kind.BUDGET

    def __init__(self, escalations: Escalations, agents: Agents) -> None:
        self._escalations = escalations
        self._agents = agents

    async def page(self, page: PageRequest) -> Page[Need]:
        """Return some, oldest first."""
        told = {one.from_agent_id: one for one in await self._escalations.open() if one.kind is _OVER}
        living = {agent.id: agent for agent in await self._agents.all(ended=False)}
        # Who was given more since, or has ended, stands still no longer; what was told of it then is history.
        still = [(one, living[id_]) for id_, one in told.items() if id_ in living and _stands_still(living[id_])]
        return part([_spent(one, agent) for one, agent in still], page)


async def name_of(agents: Agents, agent_id: AgentId) -> str:
    """Return an agent's name, or its id where it is no longer kept."""
    try:
        return (await agents.get(agent_id)).name
    except NotFound:
        return agent_id


def _call(approval: Approval, name: str) -> Need:
    left = approval.needed - len(approval.approved_by)
    more = f"; {left} different people have to agree" if left > 1 else ""
    shown = orjson.dumps(approval.shown).decode()[:_SHOWN]
    return Need(
        kind=Kind.APPROVAL,
        title=f"{name} wants to call {approval.tool}",
        why=f"{approval.rule} wants agreement to {shown}{more}",
        since=approval.submitted_at,
        urgency=Urgency.NOW,
        subject=Subject(kind="approval", id=approval.id, name=approval.tool),
        safe_default=f"it is refused at {rfc3339(approval.expires_at)}, and the call is not made",
        deadline=approval.expires_at,
        settled_by=tuple(
            Settling(
                label=label,
                method="POST",
                path=f"/approvals/{approval.id}/{word}",
                command=f"ash {word} {approval.id}",
            )
            for label, word in (("Approve", "approve"), ("Deny", "deny"))
        ),
    )


def _tool(proposal: Proposal, name: str) -> Need:
    return Need(
        kind=Kind.APPROVAL,
        title=f"{name} proposes the tool {proposal.tool.name}",
        why=proposal.tool.description[:_SHOWN],
        since=proposal.created_at,
        urgency=Urgency.SOON,
        subject=Subject(kind="proposal", id=proposal.id, name=proposal.tool.name),
        safe_default="nobody can call it",
        settled_by=tuple(
            Settling(
                label=label,
                method="POST",
                path=f"/tool-proposals/{proposal.id}/{word}",
                command=f"ash tools {word} {proposal.id}",
            )
            for label, word in (("Approve", "approve"), ("Deny", "deny"))
        ),
    )


def _asked(escalation: Escalation, name: str) -> Need:
    wanted = f" for {escalation.capability}" if escalation.capability else ""
    return Need(
        kind=Kind.QUESTION,
        title=f"{name} asks{wanted}" if wanted else f"{name} is {_WHAT[escalation.kind]}",
        why=escalation.detail[:_SHOWN],
        since=escalation.created_at,
        urgency=Urgency.NOW,
        subject=Subject(kind="agent", id=escalation.from_agent_id, name=name),
        safe_default="it does not get it, and goes on without" if wanted else "it goes on by itself, or ends",
        key=escalation.id,
        settled_by=_verdicts(escalation),
    )


def _stands_still(agent: GovernedAgent) -> bool:
    return exhausted(agent.budget, agent.spent) is not None


def _spent(escalation: Escalation, agent: GovernedAgent) -> Need:
    path = f"/agents/{agent.id}/schedule"
    more = _told_limits(as_much_again(agent.budget, agent.spent))
    options = " ".join(f"--{_OPTIONS[name]} {value}" for name, value in more.items())
    return Need(
        kind=Kind.BUDGET,
        title=f"the budget of {agent.name} is used up",
        why=escalation.detail[:_SHOWN],
        since=escalation.created_at,
        urgency=Urgency.NOW,
        subject=Subject(kind="agent", id=agent.id, name=agent.name),
        safe_default="its calls are refused until it has a new budget",
        key=escalation.id,
        settled_by=(
            Settling(
                label="Give it as much again",
                method="PATCH",
                path=path,
                body={"budget": more},
                command=f"ash scheduler set-budget {agent.id} {options}",
            ),
            Settling(label="See its budget", method="GET", path=path, command=f"ash scheduler info {agent.id}"),
            Settling(label="End it", method="DELETE", path=f"/agents/{agent.id}", command=f"ash kill {agent.id}"),
        ),
    )


def _told_limits(limits: Limits) -> dict[str, int | float]:
    """Return a budget as requests tell it: what is not limited is left out."""
    cost = None if limits.cost_micros is None else from_micros(limits.cost_micros)
    told = {"calls": limits.calls, "tokens": limits.tokens, "cost": cost, "wall_time_secs": limits.wall_time_s}
    return {name: value for name, value in told.items() if value is not None}


def _verdicts(escalation: Escalation) -> tuple[Settling, ...]:
    return tuple(
        Settling(
            label=label,
            method="POST",
            path=f"/escalations/{escalation.id}/resolve",
            body={"decision": word},
            command=f"ash hierarchy resolve {escalation.id} {word}",
        )
        for label, word in (("Approve", "approve"), ("Deny", "deny"))
    )


_WHAT: Final = {
    EscalationKind.CAPABILITY_REQUEST: "asking for more",
    EscalationKind.HUMAN_APPROVAL: "waiting for a person",
    EscalationKind.STUCK: "stuck",
    EscalationKind.PLAN_DEVIATION: "leaving its plan",
    EscalationKind.ANOMALY: "behaving out of the ordinary",
}
