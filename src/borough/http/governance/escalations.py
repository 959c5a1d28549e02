"""Escalations: ``/escalations``, and requests of capabilities."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from borough.governance.escalations import Escalation
from borough.http.governance.common import AGENT_ERRORS, LEDGER_ERRORS, agent_id, asker, moment
from borough.http.operations import Access, Answer, Call, Operation


class CapabilityRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    capability: str
    reason: str = ""
    ttl_secs: int | None = None


class Resolution(Struct, kw_only=True, forbid_unknown_fields=True):
    decision: Literal["approve", "deny", "pass_up"]
    reason: Annotated[str, Meta(max_length=4096, description="recorded, and told to the agent that asked")] = ""


class EscalationView(Struct, kw_only=True):
    escalation_id: str
    from_agent_id: str
    to_agent_id: str | None
    """``None``: people decide."""
    kind: str
    detail: str
    created_at: str
    capability: str | None
    ttl_secs: int | None
    state: str
    passed_by: list[str]
    resolved_by: str | None
    resolved_at: str | None


def shown(escalation: Escalation) -> EscalationView:
    """Return an escalation as it is shown."""
    return EscalationView(
        escalation_id=escalation.id,
        from_agent_id=escalation.from_agent_id,
        to_agent_id=escalation.to_agent_id,
        kind=escalation.kind.value,
        detail=escalation.detail,
        created_at=moment(escalation.created_at) or "",
        capability=escalation.capability,
        ttl_secs=escalation.ttl_s,
        state=escalation.state.value,
        passed_by=list(escalation.passed_by),
        resolved_by=escalation.resolved_by,
        resolved_at=moment(escalation.resolved_at),
    )


async def request(call: Call) -> object:
    body: CapabilityRequest = call.body
    made = await call.state.tooling.escalations.request_capability(
        asker(call), agent_id(call), body.capability, reason=body.reason, ttl_s=body.ttl_secs
    )
    return shown(made)


async def listing(call: Call) -> object:
    return [shown(escalation) for escalation in await call.state.tooling.escalations.open(asker(call))]


async def resolve(call: Call) -> object:
    escalations = call.state.tooling.escalations
    body: Resolution = call.body
    made = await escalations.resolve(asker(call), call.path["escalation_id"], body.decision, reason=body.reason)
    return shown(made)


OPERATIONS = (
    Operation(
        method="POST",
        path="/agents/{id}/capability-requests",
        handler=request,
        access=Access.CALLER,
        summary="Ask those above for a capability",
        tag="escalations",
        body=CapabilityRequest,
        answers=(Answer(status=201, body=EscalationView, description="where it was sent"),),
        errors={**AGENT_ERRORS, **LEDGER_ERRORS, "invalid_capability": 422, "invalid_capability_request": 422},
    ),
    Operation(
        method="GET",
        path="/escalations",
        handler=listing,
        access=Access.CALLER,
        summary="What waits for a decision of those above",
        tag="escalations",
        answers=(Answer(status=200, body=list[EscalationView], description="oldest first"),),
        errors=AGENT_ERRORS,
    ),
    Operation(
        method="POST",
        path="/escalations/{escalation_id}/resolve",
        handler=resolve,
        access=Access.CALLER,
        summary="Approve, deny or pass up",
        description="Approving a request of a capability gives it; an agent gives no more than it holds itself.",
        tag="escalations",
        body=Resolution,
        answers=(Answer(status=200, body=EscalationView, description="the escalation as it is now"),),
        errors={
            **AGENT_ERRORS,
            **LEDGER_ERRORS,
            "escalation_not_found": 404,
            "already_decided": 409,
            "at_the_top": 409,
            "over_ceiling": 403,
            "capability_escalation_denied": 403,
            "agent_ended": 409,
        },
    ),
)
