"""Tokens of the gateway: 64 hex characters, shown once, known afterwards by their SHA-256; bound to one agent.

What the reference page's tokens lack is optional here: a role, scopes, an expiry, rotation.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256

from borough.core.errors import Conflict, Invalid
from borough.core.ids import AgentId, canonical_id

TOKEN_BYTES = 32
_TOKEN = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
TICKET_LIFETIME = timedelta(seconds=60)
"""How long a ticket for one stream may lie unused."""


class Role(StrEnum):
    """Whom a token speaks for."""

    OPERATOR = "operator"
    """A person or a program of theirs, who manages agents; calls are attributed to the bound agent."""
    AGENT = "agent"
    """The agent itself: itself and what descends from it, no more."""


class TokenScope(StrEnum):
    """What a token may be used for; its role and its agent's capabilities narrow it further."""

    AGENTS_READ = "agents.read"
    AGENTS_WRITE = "agents.write"
    AGENTS_SELF = "agents.self"
    """Of ``agents.write`` what an agent says of itself: its phase, its plan, its result, a capability that it asks for.
    """
    TOOLS_INVOKE = "tools.invoke"
    AUDIT_READ = "audit.read"
    MEMORY_READ = "memory.read"
    MEMORY_WRITE = "memory.write"
    OBSERVATIONS_READ = "observations.read"
    OBSERVATIONS_WRITE = "observations.write"
    APPROVALS_DECIDE = "approvals.decide"
    SECRETS_MANAGE = "secrets.manage"
    STORE_MANAGE = "store.manage"
    TOKENS_MANAGE = "tokens.manage"


ROLE_SCOPES: dict[Role, frozenset[TokenScope]] = {
    Role.OPERATOR: frozenset(TokenScope),
    Role.AGENT: frozenset(
        {
            TokenScope.AGENTS_READ,
            TokenScope.AGENTS_WRITE,
            TokenScope.AGENTS_SELF,
            TokenScope.TOOLS_INVOKE,
            TokenScope.AUDIT_READ,
            TokenScope.MEMORY_READ,
            TokenScope.MEMORY_WRITE,
            TokenScope.OBSERVATIONS_READ,
            TokenScope.OBSERVATIONS_WRITE,
        }
    ),
}
"""The most that a token of each role may have. An agent never agrees to its own calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """A token as it is stored."""

    name: str
    agent_id: AgentId
    token_sha256: str = field(repr=False)
    created_at: datetime
    role: Role = Role.OPERATOR
    scopes: frozenset[TokenScope] = ROLE_SCOPES[Role.OPERATOR]
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    previous_sha256: str | None = field(default=None, repr=False)
    """After a rotation: the old token's hash, which holds until ``previous_until``."""
    previous_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who makes a request, once the token was verified."""

    token_name: str
    agent_id: AgentId
    role: Role
    scopes: frozenset[TokenScope]

    def may(self, scope: TokenScope) -> bool:
        """Tell whether the token may be used for ``scope``."""
        return scope in self.scopes

    @property
    def is_unbound(self) -> bool:
        """Tell whether the caller is a person at the operators' door: no agent's capabilities are theirs to lack."""
        return self.agent_id == NOBODY


NOBODY = AgentId("00000000-0000-0000-0000-000000000000")
"""What stands for the agent where a person acts who is bound to none (the nil UUID of RFC 9562)."""
OPERATOR = Caller(
    token_name="operator",  # noqa: S106 - a name
    agent_id=NOBODY,
    role=Role.OPERATOR,
    scopes=ROLE_SCOPES[Role.OPERATOR],
)
"""Who speaks over the operators' socket, or with the operator's own credential."""


def format_token(random: bytes) -> str:
    """Return the token that ``random`` makes; raises ``ValueError`` for another number of bytes than 32."""
    if len(random) != TOKEN_BYTES:
        raise ValueError(f"a token takes {TOKEN_BYTES} random bytes, got {len(random)}")
    return random.hex()


def is_token(text: str) -> bool:
    """Tell whether ``text`` looks like a token."""
    return _TOKEN.fullmatch(text) is not None


def token_sha256(token: str) -> str:
    """Return what is stored of a token: the SHA-256 of its 64 characters, in hex."""
    return sha256(token.encode()).hexdigest()


def new_token(
    *,
    name: str,
    agent_id: str,
    token: str,
    at: datetime,
    role: Role = Role.OPERATOR,
    scopes: Iterable[TokenScope] | None = None,
    expires_at: datetime | None = None,
) -> ApiToken:
    """Return the record of a new token.

    Raises:
        Invalid: the name (``invalid_name``), the agent's id (``invalid_agent_id``), a scope that the role cannot have
            (``scope_not_allowed``), or the expiry (``invalid_expiry``) is not one.
    """
    if not _NAME.fullmatch(name):
        raise Invalid(
            f"{name[:80]!r} is not a name for a key",
            code="invalid_name",
            resolution="use 1 to 64 letters, digits, '.', '_' and '-'",
        )
    try:
        bound = AgentId(canonical_id(agent_id))
    except ValueError:
        raise Invalid(
            f"{agent_id[:80]!r} is not an agent id", code="invalid_agent_id", resolution="give the agent's UUID"
        ) from None
    wanted = ROLE_SCOPES[role] if scopes is None else frozenset(scopes)
    if beyond := wanted - ROLE_SCOPES[role]:
        raise Invalid(
            f"a key of role {role.value} cannot have {', '.join(sorted(beyond))}",
            code="scope_not_allowed",
            resolution=f"choose from {', '.join(sorted(ROLE_SCOPES[role]))}",
        )
    if expires_at is not None and expires_at <= at:
        raise Invalid("the expiry lies in the past", code="invalid_expiry", resolution="choose a later moment")
    return ApiToken(
        name=name,
        agent_id=bound,
        token_sha256=token_sha256(token),
        created_at=at,
        role=role,
        scopes=wanted,
        expires_at=expires_at,
    )


def caller_of(stored: ApiToken, digest: str, *, at: datetime) -> Caller | None:
    """Return whom a presented token (its SHA-256) speaks for, or ``None`` when ``stored`` does not let it."""
    current = digest == stored.token_sha256
    previous = digest == stored.previous_sha256 and stored.previous_until is not None and at < stored.previous_until
    if not (current or previous) or not is_valid(stored, at=at):
        return None
    return Caller(token_name=stored.name, agent_id=stored.agent_id, role=stored.role, scopes=stored.scopes)


def is_valid(stored: ApiToken, *, at: datetime) -> bool:
    """Tell whether a token still holds; asked at each request and, again and again, for open streams."""
    return stored.revoked_at is None and (stored.expires_at is None or at < stored.expires_at)


def rotate(stored: ApiToken, *, token: str, at: datetime, overlap: timedelta = timedelta(0)) -> ApiToken:
    """Return ``stored`` with another token; the old one holds for ``overlap`` still.

    Raises:
        Conflict: it was revoked or has expired (``token_not_valid``): that cannot be undone.
    """
    if not is_valid(stored, at=at):
        raise Conflict(
            f"the key {stored.name!r} does not hold any more",
            code="token_not_valid",
            resolution="make a new one: ash api-key create",
        )
    return replace(
        stored,
        token_sha256=token_sha256(token),
        previous_sha256=stored.token_sha256 if overlap else None,
        previous_until=at + overlap if overlap else None,
    )


def revoke(stored: ApiToken, *, at: datetime) -> ApiToken:
    """Return ``stored`` revoked, for good; revoking it again changes nothing."""
    return stored if stored.revoked_at is not None else replace(stored, revoked_at=at)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTicket:
    """A word that opens one stream once, for browsers, which cannot send the header."""

    digest: str = field(repr=False)
    caller: Caller
    expires_at: datetime


def ticket(word: str, caller: Caller, *, at: datetime) -> StreamTicket:
    """Return the record of a ticket that is handed out."""
    return StreamTicket(digest=token_sha256(word), caller=caller, expires_at=at + TICKET_LIFETIME)
