"""The edge: what happens to every request before and after the operation table, in one pure ASGI layer.

Request id and trace in and out, guards, refusal while the server stops, security headers, one log line, and the last
line of defence against an exception. Values of queries, headers and bodies are never logged.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from borough.auth.machines import MACHINE_HEADER, caller_of, is_machines
from borough.core.errors import BoroughError, Unavailable
from borough.http.answers import RawHeaders, send_answer
from borough.http.context import RequestContext, context_of, peer_host, start_context
from borough.http.errors import Dialect, failure_of, internal_failure, log_unexpected, problem
from borough.http.guards import HostRule, check_origin, check_target
from borough.http.limits import Network, client_address
from borough.http.sockets import socket_of
from borough.http.tracing import TraceParent, continue_trace, request_id_from

DRAIN_RETRY_S = 5
FIRST_REFUSAL = 400
MAX_TARGET_BYTES = 16_384
UPGRADE = "WebSocket"
"""Stands for a method where a request asks for a WebSocket."""

_log = structlog.get_logger("borough.http.access")

_ALWAYS: RawHeaders = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
_HTML_POLICY = (
    b"default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'; "
    b"connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HTML: RawHeaders = [
    (b"content-security-policy", _HTML_POLICY),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
_WANTED = {
    b"x-request-id",
    b"traceparent",
    b"host",
    b"origin",
    b"sec-fetch-site",
    b"x-forwarded-for",
    MACHINE_HEADER.encode(),
}


def no_path(_path: str) -> bool:
    """Tell that no path is open."""
    return False


def always_problem(_path: str) -> Dialect:
    """Return the one shape of errors of a server that has no other."""
    return problem


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSettings:
    """What the edge needs to know."""

    hosts: HostRule
    stopping: asyncio.Event
    trusted_proxies: Collection[Network] = ()
    access_log: bool = True
    dialect_at: Callable[[str], Dialect] = always_problem
    """The shape in which a request for a path is refused."""
    open_to_pages: Callable[[str], bool] = no_path
    """Paths at which pages of other origins may write: those that take a bearer's token and nothing else."""
    max_target_bytes: int = MAX_TARGET_BYTES


@dataclass(slots=True)
class _Outcome:
    """What was sent so far."""

    status: int = 0
    body_bytes: int = 0
    finished: bool = False
    started_at: float = field(default_factory=time.perf_counter)


class Edge:
    """Wraps the application that serves ``http`` scopes."""

    def __init__(self, app: ASGIApp, settings: EdgeSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; refuse what is not HTTP."""
        if scope["type"] != "http":
            raise RuntimeError(f"cannot serve {scope['type']}")
        headers = _wanted(scope)
        trace = continue_trace(headers.get(b"traceparent"))
        if is_machines(headers.get(b"host")):
            client = caller_of(headers.get(MACHINE_HEADER.encode()))
        else:
            client = client_address(peer_host(scope), headers.get(b"x-forwarded-for"), self._settings.trusted_proxies)
        context = start_context(
            scope,
            request_id=request_id_from(headers.get(b"x-request-id")),
            client=client,
            trace_id=trace.trace_id,
        )
        outcome = _Outcome()
        answering = _answering(send, outcome, context, trace)
        bound = structlog.contextvars.bind_contextvars(request_id=context.request_id, trace_id=trace.trace_id)
        try:
            self._guard(scope, headers)
            await self._app(scope, receive, answering)
        except Exception as error:  # noqa: BLE001 - whatever is left becomes an answer
            if not isinstance(error, BoroughError):
                log_unexpected(error, request_id=context.request_id)
            await self._refuse(error, scope, answering, outcome)
        finally:
            if self._settings.access_log:
                _write_line(scope, context, outcome)
            structlog.contextvars.reset_contextvars(**bound)

    def _guard(self, scope: Scope, headers: dict[bytes, str]) -> None:
        host = headers.get(b"host")
        self._settings.hosts.check(host)
        if not self._settings.open_to_pages(scope["path"]):
            # What goes over a WebSocket changes things, and the same-origin rule does not hold for it.
            method = scope["method"] if socket_of(scope) is None else UPGRADE
            site = headers.get(b"sec-fetch-site")
            check_origin(method, host=host, origin=headers.get(b"origin"), fetch_site=site)
        check_target(_raw_path(scope), scope.get("query_string", b""), limit_bytes=self._settings.max_target_bytes)
        if self._settings.stopping.is_set():
            raise Unavailable(
                "the server is stopping",
                code="stopping",
                resolution="repeat the request when it is up again",
                details={"retry_after_s": DRAIN_RETRY_S, "headers": {"connection": "close"}},
            )

    async def _refuse(self, error: Exception, scope: Scope, send: Send, outcome: _Outcome) -> None:
        context = context_of(scope)
        if isinstance(error, BoroughError):
            failure = failure_of(error, request_id=context.request_id)
        else:
            failure = internal_failure(context.request_id)
        context.code = failure.code
        if not outcome.status:  # else the answer was under way: it stays unfinished, and the server cuts it off
            dialect = self._settings.dialect_at(scope["path"])
            await send_answer(dialect(failure), send, head=scope["method"] == "HEAD")


def _answering(send: Send, outcome: _Outcome, context: RequestContext, trace: TraceParent) -> Send:
    async def answering(message: Message) -> None:
        if message["type"] == "http.response.start":
            outcome.status = message["status"]
            message["headers"] = _finished_headers(list(message.get("headers", ())), context, trace)
        else:
            outcome.body_bytes += len(message.get("body", b""))
            outcome.finished = not message.get("more_body", False)
        await send(message)

    return answering


def _finished_headers(headers: RawHeaders, context: RequestContext, trace: TraceParent) -> RawHeaders:
    names = dict(headers)
    added = [header for header in _ALWAYS if header[0] not in names]
    if names.get(b"content-type", b"").startswith(b"text/html"):
        added.extend(header for header in _HTML if header[0] not in names)
    added.append((b"x-request-id", context.request_id.encode()))
    added.append((b"traceparent", str(trace).encode()))
    return headers + added


def _write_line(scope: Scope, context: RequestContext, outcome: _Outcome) -> None:
    """Log a request: refusals and failures always, the rest where somebody wants to see everything (``-v``)."""
    level = logging.INFO if outcome.status >= FIRST_REFUSAL or not outcome.finished else logging.DEBUG
    if not _log.is_enabled_for(level):
        return
    facts: dict[str, object] = {
        "method": scope["method"],
        "path": _raw_path(scope).decode("ascii", "backslashreplace")[:512],
        "route": context.route,
        "status": outcome.status,
        "duration_ms": round((time.perf_counter() - outcome.started_at) * 1000, 3),
        "body_bytes": outcome.body_bytes,
        "principal": context.principal,
        "client": context.client,
    }
    if context.code:
        facts["code"] = context.code
    if not outcome.finished:
        facts["cut"] = True
    _log.log(level, "request", **facts)


def _wanted(scope: Scope) -> dict[bytes, str]:
    """Return the few headers that the edge reads. Of several the first counts here; the table refuses doubles."""
    found: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name in _WANTED and name not in found:
            found[name] = value.decode("latin-1")
    return found


def _raw_path(scope: Scope) -> bytes:
    raw = scope.get("raw_path")
    return raw if isinstance(raw, bytes) else str(scope["path"]).encode("utf-8", "surrogatepass")
