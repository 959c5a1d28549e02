"""Escalations: what an agent may not settle itself goes to its parent, from there up, and at last to people."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from borough.core.errors import Conflict, Invalid
from borough.core.ids import AgentId
from borough.governance.capabilities import parse_capability

MOST_REASON_CHARACTERS = 2000


class EscalationKind(StrEnum):
    """What is asked for."""

    CAPABILITY_REQUEST = "CapabilityRequest"
    HUMAN_APPROVAL = "HumanApproval"
    STUCK = "Stuck"
    PLAN_DEVIATION = "PlanDeviation"
    ANOMALY = "Anomaly"
    BUDGET_EXCEEDED = "BudgetExceeded"


class EscalationState(StrEnum):
    """How it stands."""

    OPEN = "open"
    APPROVED = "approved"
    DENIED = "denied"
    CANCELLED = "cancelled"
    """The agent ended."""


MOVES: dict[EscalationState, frozenset[EscalationState]] = {
    EscalationState.OPEN: frozenset({EscalationState.APPROVED, EscalationState.DENIED, EscalationState.CANCELLED}),
    EscalationState.APPROVED: frozenset(),
    EscalationState.DENIED: frozenset(),
    EscalationState.CANCELLED: frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Escalation:
    """Something that waits for whoever stands above."""

    id: str
    from_agent_id: AgentId
    to_agent_id: AgentId | None
    """``None``: people decide."""
    kind: EscalationKind
    detail: str
    created_at: datetime
    capability: str | None = None
    """For a request of a capability: which."""
    ttl_s: int | None = None
    """For how long it is asked for; ``None`` until it is revoked."""
    state: EscalationState = EscalationState.OPEN
    passed_by: tuple[AgentId, ...] = ()
    """Who left it to those above."""
    resolved_by: str | None = None
    resolved_at: datetime | None = None


def check_request(capability: str, reason: str, ttl_s: int | None) -> str:
    """Return the capability that is asked for in its canonical spelling.

    Raises:
        Invalid: it is none (``invalid_capability``), or the reason or the time cannot be used
            (``invalid_capability_request``).
    """
    if len(reason) > MOST_REASON_CHARACTERS or (ttl_s is not None and ttl_s < 1):
        raise Invalid(
            "the request cannot be made",
            code="invalid_capability_request",
            reason=f"a reason has at most {MOST_REASON_CHARACTERS} characters, a time at least a second",
            resolution="shorten the reason, or ask for longer",
        )
    return str(parse_capability(capability))


def resolve(escalation: Escalation, to: EscalationState, *, by: str, at: datetime) -> Escalation:
    """Return ``escalation`` decided; deciding the same again changes nothing.

    Raises:
        Conflict: it was decided otherwise (``already_decided``).
    """
    if escalation.state is to:
        return escalation
    if to not in MOVES[escalation.state]:
        raise Conflict(
            f"the escalation is {escalation.state.value} already",
            code="already_decided",
            reason=f"{escalation.resolved_by} decided it",
            resolution="list what waits: ash hierarchy escalations",
        )
    return replace(escalation, state=to, resolved_by=by, resolved_at=at)


def pass_up(escalation: Escalation, to: AgentId | None) -> Escalation:
    """Return ``escalation`` left to ``to``, who stands above the one it was with (``None``: people).

    Raises:
        Conflict: it was decided (``already_decided``), or is with people already (``at_the_top``).
    """
    if escalation.state is not EscalationState.OPEN:
        raise Conflict(
            f"the escalation is {escalation.state.value} already",
            code="already_decided",
            resolution="list what waits: ash hierarchy escalations",
        )
    if escalation.to_agent_id is None:
        raise Conflict("nobody stands above", code="at_the_top", resolution="approve it or deny it")
    return replace(escalation, to_agent_id=to, passed_by=(*escalation.passed_by, escalation.to_agent_id))
