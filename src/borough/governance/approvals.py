"""Approvals: a human agrees to one call, with exactly these arguments, under exactly this manifest, once."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from borough.core.errors import Conflict, Forbidden
from borough.core.ids import AgentId
from borough.governance.canonical import fingerprint


class ApprovalState(StrEnum):
    """How a request for agreement stands."""

    PENDING = "Pending"
    APPROVED = "Approved"
    DENIED = "Denied"
    EXPIRED = "Expired"
    CANCELLED = "Cancelled"
    """The agent ended, or took the call back."""
    USED = "Used"
    """The call was made; it cannot be made again on this agreement."""


MOVES: dict[ApprovalState, frozenset[ApprovalState]] = {
    ApprovalState.PENDING: frozenset(
        {ApprovalState.APPROVED, ApprovalState.DENIED, ApprovalState.EXPIRED, ApprovalState.CANCELLED}
    ),
    ApprovalState.APPROVED: frozenset({ApprovalState.USED, ApprovalState.EXPIRED, ApprovalState.CANCELLED}),
    ApprovalState.DENIED: frozenset(),
    ApprovalState.EXPIRED: frozenset(),
    ApprovalState.CANCELLED: frozenset(),
    ApprovalState.USED: frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What is agreed to; anything else about it makes it another call."""

    agent_id: AgentId
    run_id: str
    tool: str
    arguments: object = field(repr=False)
    manifest_digest: str

    @property
    def digest(self) -> str:
        """Return what stands for the call."""
        return fingerprint([self.agent_id, self.run_id, self.tool, self.arguments, self.manifest_digest])


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A request for agreement."""

    id: str
    agent_id: AgentId
    tool: str
    call_digest: str
    shown: object
    """The arguments as people see them, without secrets."""
    rule: str
    """What wants the agreement."""
    submitted_at: datetime
    expires_at: datetime
    state: ApprovalState = ApprovalState.PENDING
    needed: int = 1
    """How many different people have to agree."""
    approved_by: tuple[str, ...] = ()
    decided_by: str | None = None
    decided_at: datetime | None = None


def approve(approval: Approval, *, by: str, at: datetime) -> Approval:
    """Return ``approval`` with one more person's agreement; the same person agreeing again changes nothing.

    Raises:
        Conflict: it is not pending any more (``already_decided``).
    """
    approval = expire(approval, at=at)
    if by in approval.approved_by and approval.state in (ApprovalState.PENDING, ApprovalState.APPROVED):
        return approval
    _check(approval, ApprovalState.APPROVED)
    agreed = (*approval.approved_by, by)
    if len(agreed) < approval.needed:
        return replace(approval, approved_by=agreed)
    return replace(approval, state=ApprovalState.APPROVED, approved_by=agreed, decided_by=by, decided_at=at)


def deny(approval: Approval, *, by: str, at: datetime) -> Approval:
    """Return ``approval`` refused; one person is enough for that. Refusing what is refused changes nothing.

    Raises:
        Conflict: it is not pending any more (``already_decided``).
    """
    approval = expire(approval, at=at)
    if approval.state is ApprovalState.DENIED:
        return approval
    _check(approval, ApprovalState.DENIED)
    return replace(approval, state=ApprovalState.DENIED, decided_by=by, decided_at=at)


def cancel(approval: Approval, *, at: datetime) -> Approval:
    """Return ``approval`` taken back, if it still could have led to a call."""
    if ApprovalState.CANCELLED not in MOVES[approval.state]:
        return approval
    return replace(approval, state=ApprovalState.CANCELLED, decided_at=at)


def expire(approval: Approval, *, at: datetime) -> Approval:
    """Return ``approval`` expired, if its time is over and it still could have led to a call."""
    if at < approval.expires_at or ApprovalState.EXPIRED not in MOVES[approval.state]:
        return approval
    return replace(approval, state=ApprovalState.EXPIRED, decided_at=approval.expires_at)


def use(approval: Approval, call: Call, *, at: datetime) -> Approval:
    """Return ``approval`` used up by ``call``.

    Raises:
        Forbidden: somebody refused (``human_denied``), nobody agreed in time (``approval_timeout``), or the call is
            another than the one agreed to (``approval_mismatch``).
        Conflict: it is still pending, was used already, or taken back (``approval_not_usable``).
    """
    approval = expire(approval, at=at)
    if approval.state is ApprovalState.DENIED:
        raise Forbidden("denied by operator", code="human_denied", reason=f"{approval.decided_by} refused it")
    if approval.state is ApprovalState.EXPIRED:
        raise Forbidden(
            "approval timed out", code="approval_timeout", resolution="make the call again, which asks anew"
        )
    if approval.state is not ApprovalState.APPROVED:
        raise Conflict(
            f"the approval is {approval.state.value.lower()}",
            code="approval_not_usable",
            resolution="wait while it is pending; otherwise make the call again, which asks anew",
        )
    if call.digest != approval.call_digest:
        raise Forbidden(
            "the call is not the one that was agreed to",
            code="approval_mismatch",
            reason="its agent, run, tool, arguments or manifest are others",
            resolution="make the call again, which asks anew",
        )
    return replace(approval, state=ApprovalState.USED)


def _check(approval: Approval, to: ApprovalState) -> None:
    if to not in MOVES[approval.state]:
        by = f" by {approval.decided_by}" if approval.decided_by else ""
        raise Conflict(
            f"the request is {approval.state.value.lower()} already{by}",
            code="already_decided",
            resolution="list what waits: ash pending",
        )
