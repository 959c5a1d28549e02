"""WebSockets: requests whose answer is a conversation. Until they are accepted they are requests like others.

Guards, authentication, limits, the log and the shapes of errors are those of the operation table, which sees a GET.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from borough.core.errors import Invalid

SWITCHING = 101
NORMAL, BROKEN = 1000, 1011
"""How a conversation ends: as it should, or because something went wrong here (RFC 6455, 7.4.1)."""
_KEY = "borough.socket"


class Socket:
    """A connection that asked to become a WebSocket."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._asked = False
        self._accepted = False
        self._gone = asyncio.Event()

    async def messages(self) -> AsyncIterator[bytes | str]:
        """Yield what comes, until the other end has closed."""
        while not self._gone.is_set():
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._gone.set()
            elif message["type"] == "websocket.receive":
                content: bytes | None = message.get("bytes")
                yield message["text"] if content is None else content

    async def send(self, content: bytes | str) -> None:
        """Send a message; to whoever has gone nothing is sent."""
        kind = "text" if isinstance(content, str) else "bytes"
        await self._tell({"type": "websocket.send", kind: content})

    async def close(self, code: int = NORMAL) -> None:
        """End the conversation."""
        if self._accepted:
            await self._tell({"type": "websocket.close", "code": code})
            self._gone.set()

    async def as_request(self) -> Message:
        """Return what a request without a body receives: its end, and at last that its client has left."""
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def as_answer(self, message: Message) -> None:
        """Send a part of an answer: 101 accepts, every other status refuses."""
        if message["type"] == "http.response.start" and message["status"] == SWITCHING:
            self._accepted = True
            await self._tell({"type": "websocket.accept", "headers": message["headers"]})
        elif not self._accepted:
            await self._tell({**message, "type": f"websocket.{message['type']}"})

    async def _tell(self, message: Message) -> None:
        if self._gone.is_set():
            return
        try:
            await self._send(message)
        except OSError:  # it left while this was sent; its messages end with that
            self._gone.set()


class SocketAnswer(Response):
    """Accepts a WebSocket and holds a conversation over it.

    It ends when ``hold`` returns, when ``ends`` does (pass ``Call.disconnected``), or when the other end leaves.
    ``after`` runs however it ends.
    """

    def __init__(
        self,
        socket: Socket,
        hold: Callable[[Socket], Awaitable[None]],
        *,
        ends: Callable[[], Awaitable[None]],
        after: Callable[[], None],
    ) -> None:
        super().__init__(status_code=SWITCHING)
        self._socket = socket
        self._hold = hold
        self._ends = ends
        self._after = after

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Hold the conversation to its end."""
        try:
            await send({"type": "http.response.start", "status": SWITCHING, "headers": self.raw_headers})
            holding, ends = asyncio.ensure_future(self._hold(self._socket)), asyncio.ensure_future(self._ends())
            try:
                await asyncio.wait({holding, ends}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (holding, ends):
                    task.cancel()
                outcome, _ = await asyncio.gather(holding, ends, return_exceptions=True)
            if isinstance(outcome, Exception):
                await self._socket.close(BROKEN)
                raise outcome
            await self._socket.close()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._after()


class WithSockets:
    """Lets an application of requests answer those that ask for a WebSocket."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, whichever kind it is."""
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        socket = Socket(receive, send)
        scheme = "https" if scope.get("scheme") == "wss" else "http"
        asked = {**scope, "type": "http", "method": "GET", "scheme": scheme, _KEY: socket}
        await self._app(asked, socket.as_request, socket.as_answer)


def socket_of(scope: Scope) -> Socket | None:
    """Return the WebSocket that a request asks for, or ``None``."""
    found = scope.get(_KEY)
    return found if isinstance(found, Socket) else None


def required(socket: Socket | None) -> Socket:
    """Return the WebSocket of a request.

    Raises:
        Invalid: it asks for none (``upgrade_required``).
    """
    if socket is not None:
        return socket
    raise Invalid(
        "this is spoken over a WebSocket",
        code="upgrade_required",
        reason="the request does not ask for one, or not as RFC 6455 has it",
        resolution="connect with a client of WebSockets, or see /docs for what is there without",
        details={"headers": {"upgrade": "websocket", "connection": "upgrade"}},
    )


async def first_of(messages: AsyncIterator[bytes | str], *, within_s: float) -> bytes | str | None:
    """Return the first message, or ``None`` when none comes in time or at all."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            return await anext(messages, None)
    return None
