"""Server-sent events: encode once, send to many, end at once when either side has had enough."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from borough.core.errors import Invalid

KEEP_ALIVE_S = 15.0
FAREWELL_S = 1.0
"""How long the end of a stream may take to be sent to a client that does not read."""

_EVENT_ID = re.compile(r"[\x20-\x7e]{1,128}\Z")
_LINES = re.compile(rb"\r\n|\r|\n")


def encode_event(data: bytes | str, *, event_id: str = "", event: str = "") -> bytes:
    """Return one event as the wire wants it (WHATWG HTML, §9.2); hand the same bytes to every subscriber."""
    fields = []
    if event_id:
        fields.append(b"id: " + _one_line(event_id))
    if event:
        fields.append(b"event: " + _one_line(event))
    raw = data.encode() if isinstance(data, str) else data
    fields.extend(b"data: " + line for line in _LINES.split(raw))
    return b"\n".join(fields) + b"\n\n"


def encode_comment(text: str = "") -> bytes:
    """Return a comment: clients ignore it, connections stay alive by it."""
    return b": " + _one_line(text) + b"\n\n"


def last_event_id(headers: Mapping[str, str]) -> str | None:
    """Return the id from which the client wants to go on, or ``None``.

    Raises:
        Invalid: it cannot be an id of ours (``invalid_last_event_id``).
    """
    given = headers.get("last-event-id", "").strip()
    if not given:
        return None
    if not _EVENT_ID.match(given):
        raise Invalid(
            "the Last-Event-ID is not one that this server gave out",
            code="invalid_last_event_id",
            resolution="send the id of the last event that was read, or no such header",
        )
    return given


class EventStream(Response):
    """An answer that lasts: sends ``chunks`` as they come and a comment every ``keep_alive_s``.

    It ends when ``chunks`` end, or when ``ends`` returns: pass ``Call.disconnected``, which does so when the client
    leaves and when the server stops. However it ends, its tasks are over and ``chunks`` is closed before it returns.
    """

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        *,
        ends: Callable[[], Awaitable[None]],
        keep_alive_s: float = KEEP_ALIVE_S,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(media_type="text/event-stream", headers=dict(headers or {}))
        del self.headers["content-length"]
        self.headers["x-accel-buffering"] = "no"
        self._chunks = chunks
        self._ends = ends
        self._keep_alive_s = keep_alive_s

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the stream to its end."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": encode_comment(), "more_body": True})
        pump = asyncio.ensure_future(self._pump(send))
        tasks = {pump, asyncio.ensure_future(self._keep_alive(send)), asyncio.ensure_future(self._ends())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            if isinstance(self._chunks, AsyncGenerator):
                await self._chunks.aclose()
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        await self._say_goodbye(send)

    async def _say_goodbye(self, send: Send) -> None:
        try:
            async with asyncio.timeout(FAREWELL_S):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            return  # it does not read: the server closes the connection of an answer that was left unfinished

    async def _pump(self, send: Send) -> None:
        async for chunk in self._chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def _keep_alive(self, send: Send) -> None:
        beat = {"type": "http.response.body", "body": encode_comment(), "more_body": True}
        while True:
            await asyncio.sleep(self._keep_alive_s)
            await send(beat)


def _one_line(text: str) -> bytes:
    return b" ".join(_LINES.split(text.replace("\0", "").encode()))
