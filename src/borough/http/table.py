"""The ASGI application that serves operations.

In this order, for every request: find the route, know the caller, check what it may do, count it, and only then read
and parse the body, call the handler (once for each ``Idempotency-Key``) and render. Whatever goes wrong on the way
ends in the one rendering of errors.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from borough.auth.principals import Principal
from borough.core.acting import acting_as
from borough.core.errors import BoroughError, Invalid, NotFound, Unavailable
from borough.http.answers import RawHeaders, Rendered, render, send_answer
from borough.http.callers import Closed, admit, admit_to_unknown
from borough.http.context import RequestContext, context_of
from borough.http.elsewhere import elsewhere
from borough.http.errors import Dialect, Failure, failure_of, internal_failure, log_unexpected, problem
from borough.http.idempotency import operation_key, read_key
from borough.http.operations import Access, Call
from borough.http.parsing import (
    ClientGone,
    check_media_type,
    decode_json,
    parse_headers,
    read_body,
    stream_body,
)
from borough.http.routes import Match, Routes
from borough.http.sockets import socket_of
from borough.http.surfaces import Endpoint, Policies, Refusal, Surface


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
        self._routes: Routes[Endpoint] = Routes()
        for surface in surfaces:
            for operation in surface.operations:
                endpoint = Endpoint(operation, surface, surface.policies or policies)
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
        closed: Closed,
    ) -> None:
        self._closed = closed
        self._context = context
        self._scope = scope
        self._receive = receive
        self._extra: RawHeaders = []
        self._endpoint: Endpoint | None = None

    async def run(self, routes: Routes[Endpoint], dialect_at: Callable[[str], Dialect], send: Send) -> None:
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

    async def _answer(self, routes: Routes[Endpoint]) -> Rendered | Response:
        match = routes.find(self._scope)
        if match is None:
            await admit_to_unknown(self._closed, self._scope, self._context.client)
            other = elsewhere(self._scope["path"], routes)
            raise NotFound(
                f"there is nothing at {self._scope['path']!r}",
                code="route_not_found",
                reason=None if other is None else other.reason,
                resolution="see /docs for all routes" if other is None else other.resolution,
            )
        found = match.target(self._scope["method"])
        if found is None:
            await admit_to_unknown(self._closed, self._scope, self._context.client)
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

    async def _serve(self, endpoint: Endpoint, path: dict[str, str]) -> Rendered | Response:
        headers = parse_headers(self._scope["headers"])
        principal, self._extra = await admit(endpoint, self._scope, headers, self._context)
        with acting_as(principal.id):
            return await self._run(endpoint, path, headers, principal)

    async def _run(
        self, endpoint: Endpoint, path: dict[str, str], headers: Mapping[str, str], principal: Principal
    ) -> Rendered | Response:
        operation, scope = endpoint.operation, self._scope
        state = await _opened(endpoint)
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

    async def _act(self, endpoint: Endpoint, call: Call) -> Rendered | Response:
        """Call the handler; its refusals are answers too, which are kept like others."""
        try:
            return render(await endpoint.operation.handler(call), endpoint.operation.answers)
        except BoroughError as error:
            return self._refusal(error, endpoint.surface.dialect)

    async def _body(self, endpoint: Endpoint, headers: Mapping[str, str]) -> tuple[bytes, Any]:
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


async def _opened(endpoint: Endpoint) -> Any:
    """Return what the surface's handlers work on, once it is there and this may begin."""
    surface, operation = endpoint.surface, endpoint.operation
    if surface.before_write is not None and not (endpoint.read or operation.ends):
        surface.before_write()
    if surface.opened is not None and operation.access is not Access.PUBLIC:
        return await surface.opened()
    return surface.state


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


def _method_not_allowed(method: str, match: Match[Endpoint]) -> Invalid:
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
