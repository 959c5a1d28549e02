"""Answers that last and are plain bytes: files on their way, logs that are followed, what a command prints."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class ByteStream(Response):
    """Sends ``chunks`` as they come.

    It ends when ``chunks`` end, or when ``ends`` returns (pass ``Call.disconnected``). However it ends, ``chunks`` is
    closed before it returns. When ``chunks`` fail, the answer stays unfinished and the connection is cut, so that
    nobody takes a part for the whole.
    """

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        *,
        ends: Callable[[], Awaitable[None]],
        media_type: str = "application/octet-stream",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(media_type=media_type, headers=dict(headers or {}))
        del self.headers["content-length"]
        self.headers["x-accel-buffering"] = "no"
        self._chunks = chunks
        self._ends = ends

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the stream to its end."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        pump, ends = asyncio.ensure_future(self._pump(send)), asyncio.ensure_future(self._ends())
        try:
            await asyncio.wait({pump, ends}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            complete = pump.done()
            for task in (pump, ends):
                task.cancel()
            outcome, _ = await asyncio.gather(pump, ends, return_exceptions=True)
            if isinstance(self._chunks, AsyncGenerator):
                await self._chunks.aclose()
        if isinstance(outcome, Exception):
            raise outcome
        if complete:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pump(self, send: Send) -> None:
        async for chunk in self._chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def begun(chunks: AsyncIterator[bytes], *, within_s: float) -> AsyncIterator[bytes]:
    """Return ``chunks`` once the first has come, or after ``within_s``: what fails at once is raised here.

    So a request that cannot be served is refused with a status, and one that only takes long is not kept waiting.
    """
    first = asyncio.ensure_future(anext(chunks, None))
    try:
        await asyncio.wait({first}, timeout=within_s)
    except asyncio.CancelledError:
        first.cancel()
        raise
    if first.done():
        first.result()
    return _resumed(first, chunks)


async def _resumed(first: "asyncio.Future[bytes | None]", chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        chunk = await first
        if chunk is not None:
            yield chunk
            async for chunk in chunks:
                yield chunk
    finally:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()
