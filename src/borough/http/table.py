"""The ASGI application that serves operations.

In this order, for every request: find the route, know the caller, check what it may do, count it, and only then read
and parse the body, call the handler (once for each ``Idempotency-Key``) and render. Whatever goes wrong on the way
ends in the one rendering of errors.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from borough.auth.principals import LOCAL, Principal, WorkerGrant
from borough.auth.scopes import Scope as AuthScope
from borough.auth.scopes import covers
from borough.core.acting import acting_as
from borough.core.errors import BoroughError, Conflict, Forbidden, Invalid, NotFound, Unavailable
from borough.http.answers import RawHeaders, Rendered, render, send_answer
from borough.http.context import RequestContext, context_of
from borough.http.errors import Dialect, Failure, failure_of, internal_failure, log_unexpected, problem
from borough.http.idempotency import Idempotency, operation_key, read_key
from borough.http.limits import LoginThrottle, RateLimits
from borough.http.operations import Access, ByAttempt, Call, Operation
from borough.http.parsing import (
    ClientGone,
    QueryParser,
    check_media_type,
    decode_json,
    parse_headers,
    read_body,
    stream_body,
    ticket_of,
)
from borough.http.routes import Match, Routes
from borough.http.sockets import socket_of

Authenticate = Callable[[Mapping[str, str], str], Awaitable[Principal]]
"""From headers (by lower-case name) and the caller's address to who it is; raises ``Forbidden`` with code
``authentication_required`` or ``invalid_credentials``."""

AuthenticateTicket = Callable[[str, str], Awaitable[Principal]]
"""From the ticket in the query and the caller's address to who it is; raises as ``Authenticate`` does."""

GrantIsLive = Callable[[WorkerGrant], Awaitable[bool]]
"""Whether what a worker's token speaks for still holds: its incarnation, or its attempt."""

ANONYMOUS = Principal(id="anonymous", scopes=frozenset())
"""The caller of an open route."""

DEFAULT_BODY_LIMIT_BYTES = 6 * 1_048_576 + 65_536
"""Holds the JSON of a text of 1 MiB also where every byte of it must be escaped."""

DEFAULT_TIMEOUT_S = 30.0

_READS = frozenset({"GET", "HEAD"})


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
    note_refusal: Callable[["Refusal"], None] | None = None
    """Told of each request that was let in and would have changed something, but was refused; it may only take note."""
    covers: Callable[[str], bool] | None = None
    """Tells by its path whether a request that no operation serves was meant for this surface; ``None``: none was."""
    policies: "Policies | None" = None
    """What holds here instead of the table's policies."""
    closed_under: str | None = None
    """Below this path nobody learns which routes there are without being let in; ``None``: everybody may know.
    Where the surface tells what it covers, that alone is closed.
    """


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


class _Endpoint:
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


class OperationTable:
    """Serves the operations of one or more surfaces over ASGI.

    Raises:
        ValueError: two operations claim the same method and path.
    """

    def __init__(self, surfaces: Sequence[Surface], policies: Policies) -> None:
        self._surfaces = tuple(surfaces)
        self._closed = tuple(
            (surface, (surface.policies or policies).logins) for surface in surfaces if surface.closed_under is not None
        )
        self._routes: Routes[_Endpoint] = Routes()
        for surface in surfaces:
            for operation in surface.operations:
                endpoint = _Endpoint(operation, surface, surface.policies or policies)
                self._routes.add(operation.method, operation.path, endpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"cannot serve {scope['type']}")
        await _Exchange(context_of(scope), scope, receive, self._closed).run(self._routes, self.dialect_at, send)

    def dialect_at(self, path: str) -> Dialect:
        """Return the shape of errors at a path that no operation serves; where no surface covers it, the first's."""
        covering = (surface for surface in self._surfaces if surface.covers is not None and surface.covers(path))
        surface = next(covering, self._surfaces[0] if self._surfaces else None)
        return problem if surface is None else surface.dialect


class _Exchange:
    """One request on its way to its answer."""

    __slots__ = ("_closed", "_context", "_endpoint", "_extra", "_receive", "_scope")

    def __init__(
        self,
        context: RequestContext,
        scope: Scope,
        receive: Receive,
        closed: Sequence[tuple[Surface, LoginThrottle | None]],
    ) -> None:
        self._closed = closed
        self._context = context
        self._scope = scope
        self._receive = receive
        self._extra: RawHeaders = []
        self._endpoint: _Endpoint | None = None

    async def run(self, routes: Routes[_Endpoint], dialect_at: Callable[[str], Dialect], send: Send) -> None:
        head = self._scope["method"] == "HEAD"
        try:
            answer = await self._answer(routes)
        except ClientGone:
            self._context.code = "client_gone"
            return
        except Exception as error:  # noqa: BLE001 - the one place where whatever is left becomes an answer
            answer = self._refusal(error, self._dialect(dialect_at))
        if isinstance(answer, Rendered):
            await send_answer(answer, send, head=head, extra=self._extra)
        else:
            await self._stream(answer, send, head=head)

    async def _answer(self, routes: Routes[_Endpoint]) -> Rendered | Response:
        match = routes.find(self._scope)
        if match is None:
            await self._may_know()
            raise NotFound(
                f"there is nothing at {self._scope['path']!r}",
                code="route_not_found",
                resolution="see /docs for all routes",
            )
        found = match.target(self._scope["method"])
        if found is None:
            await self._may_know()
            raise _method_not_allowed(self._scope["method"], match)
        self._endpoint, path = found
        self._context.route = self._endpoint.operation.path
        if self._endpoint.operation.streaming:
            return await self._serve(self._endpoint, path)
        timeout_s = self._endpoint.policies.timeout_s
        timeout = asyncio.timeout(timeout_s)
        try:
            async with timeout:
                return await self._serve(self._endpoint, path)
        except TimeoutError:
            if not timeout.expired():
                raise
            raise _timed_out(timeout_s) from None

    async def _serve(self, endpoint: _Endpoint, path: dict[str, str]) -> Rendered | Response:
        headers = parse_headers(self._scope["headers"])
        principal = await self._admit(endpoint, headers)
        with acting_as(principal.id):
            return await self._run(endpoint, path, headers, principal)

    async def _run(
        self, endpoint: _Endpoint, path: dict[str, str], headers: Mapping[str, str], principal: Principal
    ) -> Rendered | Response:
        operation, scope = endpoint.operation, self._scope
        if endpoint.surface.before_write is not None and not (endpoint.read or operation.ends):
            endpoint.surface.before_write()
        state = endpoint.surface.state
        if endpoint.surface.opened is not None and operation.access is not Access.PUBLIC:
            state = await endpoint.surface.opened()
        query_string: bytes = scope.get("query_string", b"")
        query = endpoint.query.parse(query_string) if endpoint.query is not None else None
        scoped = read_key(headers, principal=principal.id, method=scope["method"], path=scope["path"])
        raw, body = await self._body(endpoint, headers)
        call = Call(
            principal=principal,
            path=path,
            query=query,
            body=body,
            headers=headers,
            request_id=self._context.request_id,
            operation_key=self._context.request_id if endpoint.read else operation_key(scoped),
            state=state,
            disconnected=_Departure(self._receive, endpoint.policies.stopping, body_read=operation.body is not None),
            trace_id=self._context.trace_id,
            socket=socket_of(scope),
        )
        note_read = endpoint.surface.note_read
        if endpoint.read and note_read is not None and operation.access is not Access.PUBLIC:
            note_read(call, operation.path)
        idempotency = endpoint.policies.idempotency
        if scoped is None or idempotency is None or operation.secret_answer:
            return render(await operation.handler(call), operation.answers)
        return await idempotency.once(scoped, query=query_string, body=raw, act=lambda: self._act(endpoint, call))

    async def _act(self, endpoint: _Endpoint, call: Call) -> Rendered | Response:
        """Call the handler; its refusals are answers too, which are kept like others."""
        try:
            return render(await endpoint.operation.handler(call), endpoint.operation.answers)
        except BoroughError as error:
            return self._refusal(error, endpoint.surface.dialect)

    async def _admit(self, endpoint: _Endpoint, headers: Mapping[str, str]) -> Principal:
        access = endpoint.operation.access
        principal = ANONYMOUS if access is Access.PUBLIC else await self._authenticated(endpoint, headers)
        self._context.principal = principal.id
        grant = principal.worker
        if grant is not None and (grant.task_id is not None or access is not Access.WORKER):
            # Before scopes: an agent is to ask its supervisor, not to look for a stronger credential.
            await _admit_grant(endpoint, grant)
        if access is Access.WORKER:
            if principal.worker is None:
                raise Forbidden(
                    "only a worker may do this, with its own token",
                    code="worker_token_required",
                    resolution="call with the token that the worker got when it was registered",
                )
        elif isinstance(access, AuthScope) and not covers(principal.scopes, access):
            held = " ".join(sorted(principal.scopes)) or "none"
            raise Forbidden(
                f"this needs the scope {access}",
                code="insufficient_scope",
                reason=f"the scopes of {principal.id} are: {held}",
                resolution=f"use a credential with the scope {access}",
            )
        limits = endpoint.policies.limits
        if endpoint.operation.metered and limits is not None:
            alone = principal is not ANONYMOUS and principal.id != LOCAL.id
            caller = principal.id if alone else f"address:{self._context.client}"
            self._extra = limits.charge(caller, read=endpoint.read)
        return principal

    async def _may_know(self) -> None:
        """Let nobody find out which routes a closed surface has; raises as its authenticator does."""
        address = self._context.client
        for surface, logins in self._closed:
            path = self._scope["path"]
            if surface.closed_under is None or not path.startswith(surface.closed_under):
                continue
            if surface.covers is not None and not surface.covers(path):
                continue
            headers = parse_headers(self._scope["headers"])
            if logins is not None:
                logins.check(address, headers)
            try:
                await surface.authenticate(headers, address)
            except Forbidden as error:
                if logins is not None:
                    logins.failed(address, error)
                raise

    async def _authenticated(self, endpoint: _Endpoint, headers: Mapping[str, str]) -> Principal:
        logins, address = endpoint.policies.logins, self._context.client
        if logins is None:
            return await self._authenticate(endpoint, headers, address)
        logins.check(address, headers)
        try:
            principal = await self._authenticate(endpoint, headers, address)
        except Forbidden as error:
            logins.failed(address, error)
            raise
        logins.succeeded(headers)
        return principal

    async def _authenticate(self, endpoint: _Endpoint, headers: Mapping[str, str], address: str) -> Principal:
        by_ticket = endpoint.surface.by_ticket
        if endpoint.operation.by_ticket and by_ticket is not None and "authorization" not in headers:
            word = ticket_of(self._scope.get("query_string", b""))
            if word is not None:
                return await by_ticket(word, address)
        return await endpoint.surface.authenticate(headers, address)

    async def _body(self, endpoint: _Endpoint, headers: Mapping[str, str]) -> tuple[bytes, Any]:
        """Return the body as it came and as the handler wants it."""
        operation = endpoint.operation
        if operation.body is None:
            return b"", None
        if operation.body_streamed:
            return b"", stream_body(self._receive, headers, limit_bytes=endpoint.body_limit)
        announced = headers.get("content-length", "0" if "transfer-encoding" not in headers else "")
        if not (operation.body_optional and announced == "0"):
            check_media_type(headers.get("content-type"), raw=endpoint.decoder is None)
        raw = await read_body(self._receive, headers, limit_bytes=endpoint.body_limit)
        if not raw and operation.body_optional:
            return raw, endpoint.default_body
        return raw, raw if endpoint.decoder is None else decode_json(endpoint.decoder, raw)

    def _dialect(self, dialect_at: Callable[[str], Dialect]) -> Dialect:
        return dialect_at(self._scope["path"]) if self._endpoint is None else self._endpoint.surface.dialect

    def _refusal(self, error: Exception, dialect: Dialect) -> Rendered:
        """Return ``error`` as an answer; one that nobody expected is logged whole and told without its inside."""
        refinements: Mapping[str, int] = {}
        if self._endpoint is not None:
            refinements = self._endpoint.operation.errors
        failure: Failure
        if isinstance(error, BoroughError):
            self._note(error)
            failure = failure_of(error, request_id=self._context.request_id, refinements=refinements)
        else:
            log_unexpected(error, request_id=self._context.request_id)
            failure = internal_failure(self._context.request_id)
        self._context.code = failure.code
        return dialect(failure)

    def _note(self, error: BoroughError) -> None:
        """Tell the surface of a refused change; what is only not possible now is no refusal."""
        endpoint, principal = self._endpoint, self._context.principal
        if endpoint is None or endpoint.read or endpoint.surface.note_refusal is None or not principal:
            return
        if not isinstance(error, Unavailable):
            refusal = Refusal(
                principal=principal, method=endpoint.operation.method, path=self._scope["path"], error=error
            )
            endpoint.surface.note_refusal(refusal)

    async def _stream(self, response: Response, send: Send, *, head: bool) -> None:
        response.raw_headers.extend(self._extra)
        if head:
            start = {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
            await send(start)
            await send({"type": "http.response.body", "body": b""})
            return
        await response(self._scope, self._receive, send)


async def _admit_grant(endpoint: _Endpoint, grant: WorkerGrant) -> None:
    """Let a worker's token, and that of an attempt, do what is theirs while they live, and no more.

    Raises:
        Forbidden: this is not for agents (``not_for_attempts``).
        Conflict: the incarnation or the attempt is over (``stale_epoch``).
    """
    rule = endpoint.operation.by_attempt
    if rule is ByAttempt.FENCED:
        return
    if rule is ByAttempt.NO and endpoint.operation.access is not AuthScope.READ:
        raise Forbidden(
            "an agent may not do this with its own token",
            code="not_for_attempts",
            resolution="ask the supervisor: tt send supervisor --query '...'",
        )
    if not await endpoint.surface.grant_is_live(grant):
        what = f"task {grant.task_id}, epoch {grant.epoch}" if grant.task_id else f"incarnation {grant.incarnation}"
        raise Conflict(
            f"what this token speaks for is over ({what})",
            code="stale_epoch",
            resolution="stop: this is no longer yours",
        )


class _Departure:
    """Waits until there is no point in going on: the client left or the server stops."""

    __slots__ = ("_body_read", "_receive", "_stopping")

    def __init__(self, receive: Receive, stopping: asyncio.Event, *, body_read: bool) -> None:
        self._receive = receive
        self._stopping = stopping
        self._body_read = body_read

    async def __call__(self) -> None:
        waits = {asyncio.ensure_future(self._client_leaves()), asyncio.ensure_future(self._stopping.wait())}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _client_leaves(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            continue


def _method_not_allowed(method: str, match: Match[_Endpoint]) -> Invalid:
    allowed = match.allowed()
    return Invalid(
        f"{method} is not possible here",
        code="method_not_allowed",
        resolution=f"use {allowed}",
        details={"headers": {"allow": allowed}},
    )


def _timed_out(timeout_s: float) -> Unavailable:
    return Unavailable(
        f"the request took longer than {timeout_s:g} s",
        code="request_timeout",
        reason="whether it had an effect is not known",
        resolution="repeat it with the same Idempotency-Key: what was done is not done again",
        details={"headers": {"connection": "close"}},
    )
