"""Serving: uvicorn with uvloop and httptools, a clean end, TLS, and limits on what comes before a request is one.

On SIGTERM or SIGINT ``stopping`` is set: streams end at once, new requests are refused, running ones get ``drain_s``
to finish; then ``serve`` returns, so that the caller can close what it opened.
"""

import asyncio
import logging
import ssl
import traceback
from collections.abc import Awaitable, Callable
from socket import socket
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import structlog
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from borough.core.ids import new_id
from borough.http.errors import Dialect, Failure, problem, title_of

if TYPE_CHECKING:
    from borough.http.socket_protocol import SocketProtocol

DRAIN_S = 30
KEEP_ALIVE_S = 75
HEAD_TIMEOUT_S = 30.0
MAX_HEAD_BYTES = 65_536
MAX_MESSAGE_BYTES = 1_048_576
"""Of a message over a WebSocket; one that is longer ends the conversation (1009)."""

_TOO_LARGE = 431
_HEAD_BEGINS = b"HTTP/1.1 "
_log = structlog.get_logger("borough.http.server")


async def serve(
    app: ASGIApp,
    sockets: list[socket],
    *,
    stopping: asyncio.Event,
    tls: ssl.SSLContext | None = None,
    drain_s: int = DRAIN_S,
    on_ready: Callable[[], None] | None = None,
    before_stopping: Callable[[], Awaitable[None]] | None = None,
    dialect: Dialect = problem,
    websockets: bool = False,
) -> None:
    """Serve ``app`` on listening ``sockets`` until a signal comes or ``stopping`` is set, then drain and return.

    ``before_stopping`` runs after a signal while requests are still served as ever; a second signal skips it.
    ``dialect`` is the shape in which what never became a request is refused. ``websockets`` says whether ``app`` knows
    them; else whoever asks for one gets the answer to a plain request.
    """
    _forward_logs()
    config = uvicorn.Config(
        app,
        http=_speaking(dialect),
        ws=cast("Any", _socket_protocol) if websockets else "none",
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,  # what a terminal says is little
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # limits.client_address decides whom to believe
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=drain_s,
        ssl_context_factory=None if tls is None else lambda _config, _default: tls,
    )
    await _Server(config, stopping, on_ready, before_stopping).serve(sockets=sockets)


class _Server(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        stopping: asyncio.Event,
        on_ready: Callable[[], None] | None,
        before_stopping: Callable[[], Awaitable[None]] | None,
    ) -> None:
        super().__init__(config)
        self._stopping = stopping
        self._asked = asyncio.Event()
        self._before_stopping = before_stopping
        self._on_ready = on_ready
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        watch = asyncio.ensure_future(self._leave_when_stopping())
        try:
            await super().serve(sockets)
        finally:
            watch.cancel()

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        if self._on_ready is not None:
            self._on_ready()

    def handle_exit(self, _sig: int, _frame: FrameType | None) -> None:
        # The signal is not noted for being raised again afterwards: the caller still has things to close.
        if self._stopping.is_set():
            self.force_exit = True
        asked_before = self._asked.is_set()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set if asked_before else self._asked.set)

    async def _leave_when_stopping(self) -> None:
        preparing = asyncio.ensure_future(self._prepare())
        try:
            await self._stopping.wait()
        finally:
            preparing.cancel()
        self.should_exit = True

    async def _prepare(self) -> None:
        await self._asked.wait()
        try:
            if self._before_stopping is not None:
                await self._before_stopping()
        finally:
            self._stopping.set()


class _Joining:
    """A transport that sends the head of an answer together with its body: one call of the system, one packet."""

    __slots__ = ("_head", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send ``data``; a head waits for what follows it, until the event loop comes round at the latest."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(_HEAD_BEGINS):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        """Send what waits, and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)


class _Protocol(HttpToolsProtocol):
    """Adds to uvicorn's: the peer's certificate, limits of size and time on the head, problems for broken requests."""

    dialect: Dialect = staticmethod(problem)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = False
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn's own
        super().connection_made(cast("asyncio.Transport", _Joining(transport, self.loop)))
        self._await_head()
        encrypted = transport.get_extra_info("ssl_object")
        certificate = encrypted.getpeercert(binary_form=True) if encrypted is not None else None
        if certificate:
            self.app = _with_certificate(self.app, certificate)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._in_head
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        self._head_bytes = self._head_bytes + len(data) if before else 0
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head()
        elif self._head_timer is None:
            self._await_head()

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_came()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            self._refuse_head()  # it came whole, in one piece
            raise ValueError("the head is too large")  # ends the parser's work on this connection
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._in_head = False
        if self.transport.is_closing():
            return  # it was told why already
        self._refuse(400, "invalid_request", msg.rstrip("."))

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self._in_head:
            self._refuse(408, "request_timeout", "the head of the request did not come in time")
        else:
            self.transport.close()

    def _refuse_head(self) -> None:
        self._refuse(_TOO_LARGE, "headers_too_large", f"the head of the request is over {MAX_HEAD_BYTES} bytes")

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer what never became a request, and close."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request, whatever uvicorn declares
        if cycle is not None and not cycle.response_complete:
            self.transport.close()  # an answer to an earlier request is under way: nothing may be mixed into it
            return
        answer = self.dialect(Failure(status=status, code=code, detail=detail, request_id=new_id()))
        head = (
            f"HTTP/1.1 {answer.status} {title_of(answer.status)}\r\ncontent-type: {answer.content_type}\r\n"
            f"content-length: {len(answer.body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + answer.body)
        self.transport.close()


def _socket_protocol(*given: Any, **named: Any) -> "SocketProtocol":
    """Return what serves a WebSocket; it is loaded when the first one is opened."""
    from borough.http.socket_protocol import SocketProtocol  # noqa: PLC0415 - as above

    return SocketProtocol(*given, **named)


def _speaking(chosen: Dialect) -> type[_Protocol]:
    class Speaking(_Protocol):
        dialect: Dialect = staticmethod(chosen)

    return Speaking


def _with_certificate(app: ASGIApp, certificate: bytes) -> ASGIApp:
    async def certified(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("extensions", {})["tls"] = {"client_cert": certificate}
        await app(scope, receive, send)

    return certified


class _Forwarder(logging.Handler):
    """Hands uvicorn's records to structlog, tracebacks without the values of variables."""

    def emit(self, record: logging.LogRecord) -> None:
        facts: dict[str, object] = {}
        if record.exc_info and record.exc_info[1]:
            facts["exception"] = "".join(traceback.format_exception(record.exc_info[1]))
        _log.log(record.levelno, record.getMessage(), **facts)


def _forward_logs() -> None:
    logger = logging.getLogger("uvicorn.error")
    logger.handlers[:] = [_Forwarder()]
    logger.propagate = False
    logger.setLevel(logging.WARNING)
