"""Keys of the gateway."""

from datetime import timedelta
from typing import Annotated, Any

from msgspec import Meta, Struct

from borough.core.clock import rfc3339
from borough.governance.services.tokens import LONGEST_OVERLAP, NewKey
from borough.governance.tokens import ApiToken, Role, TokenScope
from borough.http.governance.audit import Moment
from borough.http.governance.common import LEDGER_ERRORS, REFUSALS, asker, moment, parse_moment
from borough.http.operations import Access, Answer, Call, Operation, Reply

MOST_OVERLAP_S = int(LONGEST_OVERLAP.total_seconds())
TOKEN_ERRORS = {
    **REFUSALS,
    **LEDGER_ERRORS,
    "scope_escalation": 403,
    "token_not_found": 404,
    "token_exists": 409,
    "token_not_valid": 409,
    "invalid_name": 400,
    "invalid_agent_id": 400,
    "scope_not_allowed": 400,
    "invalid_expiry": 400,
}


class KeyCreate(Struct, kw_only=True, forbid_unknown_fields=True):
    """A key to be made."""

    name: str
    agent_id: str
    """For whom it speaks. The agent need not exist yet."""
    role: Role = Role.OPERATOR
    scopes: list[TokenScope] | None = None
    """What it may be used for; all that its role may by default."""
    expires_at: Moment | None = None


class KeyRotate(Struct, kw_only=True, forbid_unknown_fields=True):
    """How a key gets another token."""

    overlap_secs: Annotated[int, Meta(ge=0, le=MOST_OVERLAP_S, description="how long the old token holds still")] = 0


class KeyView(Struct, kw_only=True):
    """A key, without its token, which nobody knows any more."""

    name: str
    agent_id: str
    role: Role
    scopes: list[TokenScope]
    created_at: str
    expires_at: str | None
    last_used_at: str | None


class KeyMade(KeyView, kw_only=True):
    """A key with its token, which is shown this once."""

    token: str
    previous_until: str | None = None
    """Until when the token before holds still."""
    warning: str | None = None


async def create(call: Call) -> KeyMade:
    body: KeyCreate = call.body
    made = await call.state.tokens.create(
        asker(call),
        name=body.name,
        agent_id=body.agent_id,
        role=body.role,
        scopes=body.scopes,
        expires_at=parse_moment(body.expires_at, "expires_at"),
    )
    return _made(made)


async def keys(call: Call) -> list[KeyView]:
    return [KeyView(**_members(key)) for key in await call.state.tokens.all(asker(call))]


async def rotate(call: Call) -> KeyMade:
    overlap = timedelta(seconds=call.body.overlap_secs)
    return _made(await call.state.tokens.rotate(asker(call), call.path["name"], overlap=overlap))


async def revoke(call: Call) -> Reply:
    await call.state.tokens.revoke(asker(call), call.path["name"])
    return Reply(status=204)


def _made(made: NewKey) -> KeyMade:
    previous = moment(made.stored.previous_until)
    return KeyMade(**_members(made.stored), token=made.token, previous_until=previous, warning=made.warning)


def _members(key: ApiToken) -> dict[str, Any]:
    return {
        "name": key.name,
        "agent_id": key.agent_id,
        "role": key.role,
        "scopes": sorted(key.scopes),
        "created_at": rfc3339(key.created_at),
        "expires_at": moment(key.expires_at),
        "last_used_at": moment(key.last_used_at),
    }


OPERATIONS = (
    Operation(
        method="GET",
        path="/tokens",
        handler=keys,
        access=Access.CALLER,
        summary="All keys that were not revoked",
        tag="tokens",
        answers=(Answer(status=200, body=list[KeyView], description="oldest first"),),
        errors=TOKEN_ERRORS,
    ),
    Operation(
        method="POST",
        path="/tokens",
        handler=create,
        access=Access.CALLER,
        summary="Make a key",
        description="Its token is shown in this answer and never again: only its SHA-256 is kept.",
        tag="tokens",
        body=KeyCreate,
        secret_answer=True,
        answers=(Answer(status=201, body=KeyMade, description="save the token"),),
        errors={**TOKEN_ERRORS, "invalid_query": 400},
    ),
    Operation(
        method="POST",
        path="/tokens/{name}/rotate",
        handler=rotate,
        access=Access.CALLER,
        summary="Give a key another token",
        description="Open streams end with the old token.",
        tag="tokens",
        body=KeyRotate,
        body_optional=True,
        secret_answer=True,
        answers=(Answer(status=200, body=KeyMade, description="save the token"),),
        errors=TOKEN_ERRORS,
    ),
    Operation(
        method="DELETE",
        path="/tokens/{name}",
        handler=revoke,
        access=Access.CALLER,
        summary="Revoke a key, for good",
        description="It holds no more, on open streams neither.",
        tag="tokens",
        answers=(Answer(status=204, body=None, description="revoked"),),
        errors=TOKEN_ERRORS,
    ),
)
