"""Approvals: ``/approvals``."""

from typing import Any

from msgspec import Struct

from borough.core.errors import BoroughError
from borough.governance.approvals import Approval
from borough.governance.services.approvals import Kept
from borough.http.governance.common import AGENT_ERRORS, LEDGER_ERRORS, asker, moment
from borough.http.governance.tools import ToolOutput, output_of
from borough.http.operations import Access, Answer, Call, Handler, Operation

_ERRORS = {**AGENT_ERRORS, "approval_not_found": 404}


class Refusal(Struct, kw_only=True):
    """Why a call that was asked about was not made."""

    error: str
    code: str


class PendingApproval(Struct, kw_only=True, omit_defaults=True):
    """A request for agreement."""

    request_id: str
    agent_id: str
    tool_name: str
    input: Any
    submitted_at: str
    expires_at: str
    status: str
    rule: str
    needed: int
    approved_by: list[str]
    decided_by: str | None = None
    decided_at: str | None = None
    result: ToolOutput | None = None
    """What the call gave that was made on this agreement, while the daemon remembers it."""
    refusal: Refusal | None = None


class Decision(Struct, kw_only=True, forbid_unknown_fields=True):
    operator: str | None = None
    """Who decides, where the caller's key does not say it."""


def shown(approval: Approval, kept: Kept | None = None) -> PendingApproval:
    """Return a request as it is shown."""
    return PendingApproval(
        request_id=approval.id,
        agent_id=approval.agent_id,
        tool_name=approval.tool,
        input=approval.shown,
        submitted_at=moment(approval.submitted_at) or "",
        expires_at=moment(approval.expires_at) or "",
        status=approval.state.value,
        rule=approval.rule,
        needed=approval.needed,
        approved_by=list(approval.approved_by),
        decided_by=approval.decided_by,
        decided_at=moment(approval.decided_at),
        result=None if kept is None or kept.invocation is None else output_of(kept.invocation),
        refusal=None if kept is None else _refusal(kept.refusal),
    )


def _refusal(error: BoroughError | None) -> Refusal | None:
    return None if error is None else Refusal(error=error.message, code=error.code)


async def listing(call: Call) -> object:
    return [shown(approval) for approval in await call.state.tooling.approvals.waiting(asker(call))]


async def show(call: Call) -> object:
    return shown(*await call.state.tooling.approvals.get(asker(call), call.path["request_id"]))


async def approve(call: Call) -> object:
    approvals = call.state.tooling.approvals
    return shown(await approvals.approve(asker(call), call.path["request_id"], operator=call.body.operator))


async def deny(call: Call) -> object:
    approvals = call.state.tooling.approvals
    return shown(await approvals.deny(asker(call), call.path["request_id"], operator=call.body.operator))


_DECISIONS: tuple[tuple[str, Handler, str], ...] = (
    ("approve", approve, "Agree to a call; the last agreement that is needed has it made at once"),
    ("deny", deny, "Refuse a call"),
)

OPERATIONS = (
    Operation(
        method="GET",
        path="/approvals",
        handler=listing,
        access=Access.CALLER,
        summary="Calls that wait for people's agreement",
        tag="approvals",
        answers=(Answer(status=200, body=list[PendingApproval], description="oldest first"),),
        errors=AGENT_ERRORS,
    ),
    Operation(
        method="GET",
        path="/approvals/{request_id}",
        handler=show,
        access=Access.CALLER,
        summary="One request, and how its call went",
        tag="approvals",
        answers=(Answer(status=200, body=PendingApproval, description="the request"),),
        errors=_ERRORS,
    ),
    *(
        Operation(
            method="POST",
            path=f"/approvals/{{request_id}}/{word}",
            handler=handler,
            access=Access.CALLER,
            summary=summary,
            tag="approvals",
            body=Decision,
            body_optional=True,
            streaming=True,
            answers=(Answer(status=200, body=PendingApproval, description="the request as it is now"),),
            errors={**_ERRORS, **LEDGER_ERRORS, "already_decided": 409, "stale_approval": 409},
        )
        for word, handler, summary in _DECISIONS
    ),
)
