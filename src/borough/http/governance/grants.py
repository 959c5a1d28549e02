"""Grants: ``/agents/{id}/grants``."""

from msgspec import Struct

from borough.governance.grants import Grant
from borough.http.governance.common import AGENT_ERRORS, LEDGER_ERRORS, agent_id, asker, moment, parse_moment
from borough.http.operations import Access, Answer, Call, Operation


class GrantBody(Struct, kw_only=True, forbid_unknown_fields=True):
    capability: str
    ttl_secs: int | None = None
    expires_at: str | None = None
    """RFC 3339; neither this nor ``ttl_secs``: until it is revoked or the agent ends."""


class GrantView(Struct, kw_only=True):
    grant_id: str
    agent_id: str
    capability: str
    granted_by: str
    granted_at: str
    expires_at: str | None


def shown(grant: Grant) -> GrantView:
    """Return a grant as it is shown."""
    return GrantView(
        grant_id=grant.id,
        agent_id=grant.agent_id,
        capability=str(grant.capability),
        granted_by=grant.granted_by,
        granted_at=moment(grant.granted_at) or "",
        expires_at=moment(grant.expires_at),
    )


async def listing(call: Call) -> object:
    return [shown(grant) for grant in await call.state.tooling.grants.of(asker(call), agent_id(call))]


async def issue(call: Call) -> object:
    body: GrantBody = call.body
    grant = await call.state.tooling.grants.issue(
        asker(call),
        agent_id(call),
        body.capability,
        ttl_s=body.ttl_secs,
        expires_at=parse_moment(body.expires_at, "expires_at"),
    )
    return shown(grant)


async def revoke(call: Call) -> None:
    await call.state.tooling.grants.revoke(asker(call), agent_id(call), call.path["grant_id"])


OPERATIONS = (
    Operation(
        method="GET",
        path="/agents/{id}/grants",
        handler=listing,
        access=Access.CALLER,
        summary="What an agent was given beyond its manifest",
        tag="grants",
        answers=(Answer(status=200, body=list[GrantView], description="oldest first"),),
        errors=AGENT_ERRORS,
    ),
    Operation(
        method="POST",
        path="/agents/{id}/grants",
        handler=issue,
        access=Access.CALLER,
        summary="Give an agent a capability, for a time or until it is revoked",
        description="An agent gives what it holds itself, to agents that descend from it; an operator gives anything "
        "that the agent's trust level may hold.",
        tag="grants",
        body=GrantBody,
        answers=(Answer(status=201, body=GrantView, description="the grant, in force"),),
        errors={
            **AGENT_ERRORS,
            **LEDGER_ERRORS,
            "invalid_capability": 422,
            "invalid_expiry": 422,
            "invalid_query": 422,
            "over_ceiling": 403,
            "capability_escalation_denied": 403,
            "agent_ended": 409,
        },
    ),
    Operation(
        method="DELETE",
        path="/agents/{id}/grants/{grant_id}",
        handler=revoke,
        access=Access.CALLER,
        summary="Take a capability back",
        tag="grants",
        answers=(Answer(status=204, body=None, description="it holds no more"),),
        errors={**AGENT_ERRORS, **LEDGER_ERRORS, "grant_not_found": 404},
    ),
)
