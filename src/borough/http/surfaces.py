"""Surfaces: operations with the services they share, how their callers are known, and what holds for them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from borough.auth.principals import Principal, WorkerGrant
from borough.core.errors import BoroughError
from borough.http.errors import Dialect, problem
from borough.http.idempotency import Idempotency
from borough.http.limits import LoginThrottle, RateLimits
from borough.http.operations import Call, Operation
from borough.http.parsing import QueryParser

Authenticate = Callable[[Mapping[str, str], str], Awaitable[Principal]]
"""From headers (by lower-case name) and the caller's address to who it is; raises ``Forbidden`` with code
``authentication_required`` or ``invalid_credentials``."""

AuthenticateTicket = Callable[[str, str], Awaitable[Principal]]
"""From the ticket in the query and the caller's address to who it is; raises as ``Authenticate`` does."""

GrantIsLive = Callable[[WorkerGrant], Awaitable[bool]]
"""Whether what a worker's token speaks for still holds: its incarnation, or its attempt."""

DEFAULT_BODY_LIMIT_BYTES = 6 * 1_048_576 + 65_536
"""Holds the JSON of a text of 1 MiB also where every byte of it must be escaped."""

DEFAULT_TIMEOUT_S = 30.0

_READS = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request that would have changed something, and was answered with no."""

    principal: str
    method: str
    path: str
    error: BoroughError


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """What holds for every request to a server."""

    timeout_s: float = DEFAULT_TIMEOUT_S
    body_limit_bytes: int = DEFAULT_BODY_LIMIT_BYTES
    limits: RateLimits | None = None
    """``None``: unlimited."""
    logins: LoginThrottle | None = None
    idempotency: Idempotency | None = None
    """``None``: keys make ids repeat, but answers are not kept."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server begins to stop: streams and long waits end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """Operations that share services, a way to know callers, and a shape of errors."""

    operations: Sequence[Operation]
    state: Any
    opened: Callable[[], Awaitable[Any]] | None = None
    """Returns the state where it is not there from the start; it may wait, and raises where it never comes. What is
    public does without.
    """
    authenticate: Authenticate
    grant_is_live: GrantIsLive
    dialect: Dialect = problem
    by_ticket: AuthenticateTicket | None = None
    """For operations that a ticket opens; ``None``: none does."""
    note_read: Callable[[Call, str], None] | None = None
    """Told of each read that was let in, with its route; it may only take note."""
    before_write: Callable[[], None] | None = None
    """Asked before everything that is neither a read nor an end of what is under way; raises where nothing new may
    begin. It costs every write its time: it may only look at what is in memory.
    """
    note_refusal: Callable[[Refusal], None] | None = None
    """Told of each request that was let in and would have changed something, but was refused; it may only take note."""
    covers: Callable[[str], bool] | None = None
    """Tells by its path whether a request that no operation serves was meant for this surface; ``None``: none was."""
    policies: Policies | None = None
    """What holds here instead of the table's policies."""
    closed_under: str | None = None
    """Below this path nobody learns which routes there are without being let in; ``None``: everybody may know.
    Where the surface tells what it covers, that alone is closed.
    """


class Endpoint:
    """An operation with everything that can be made before the first request."""

    __slots__ = ("body_limit", "decoder", "default_body", "operation", "policies", "query", "read", "surface")

    def __init__(self, operation: Operation, surface: Surface, policies: Policies) -> None:
        self.operation = operation
        self.surface = surface
        self.policies = policies
        self.read = operation.method in _READS
        self.query = QueryParser(operation.query) if operation.query is not None else None
        self.body_limit = operation.body_limit_bytes or policies.body_limit_bytes
        self.decoder: msgspec.json.Decoder[Any] | None = None
        self.default_body: Any = None
        if operation.body is bytes:
            self.default_body = b""
        elif operation.body is not None:
            self.decoder = msgspec.json.Decoder(operation.body)
            if operation.body_optional:
                self.default_body = msgspec.convert({}, operation.body)
