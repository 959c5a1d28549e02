"""The Engine API over its Unix socket, in the newest version that both sides know."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from borough.adapters.engines.docker import bodies
from borough.core.errors import BoroughError, Conflict, NotFound, Unavailable

NEWEST = "1.45"
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=120.0)
_ENDLESS = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=None)
_CHUNK_BYTES = 1 << 16
_GONE, _TAKEN, _SERVER_ERRORS = 404, 409, 500


class EngineApi:
    """One runtime. Use it from one event loop; ``close`` it before the loop ends."""

    def __init__(self, socket_path: str) -> None:
        self.socket_path = socket_path
        self._session: aiohttp.ClientSession | None = None
        self._version: str | None = None
        self._asking = asyncio.Lock()

    async def version(self) -> Mapping[str, Any]:
        """Return what the runtime says of itself, and agree on a version.

        Raises:
            Unavailable: it does not answer, or is too old (``engine_failed``).
        """
        async with self._open("GET", "/version", {}, None, _TIMEOUT) as response:
            told: Mapping[str, Any] = await response.json()
        self._version = bodies.newest(NEWEST, told)
        if self._version is None:
            raise failed(f"it speaks {told.get('ApiVersion')} of the Engine API, which is too old")
        return told

    async def prefix(self) -> str:
        """Return what every path begins with."""
        async with self._asking:
            if self._version is None:
                await self.version()
        return f"/v{self._version}"

    async def ask(self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: object = None) -> Any:
        """Send a request and return the answer's content.

        Raises:
            NotFound, Conflict, Unavailable: as the runtime says, with its own words.
        """
        async with self.stream(method, path, query=query, body=body) as response:
            content = await response.read()
        return json.loads(content) if content[:1] in (b"{", b"[") else content

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: object = None,
        endless: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:  # fmt: skip
        """Send a request whose answer is read as it comes; raises as ``ask`` does."""
        prefix = await self.prefix()
        async with self._open(
            method, prefix + path, query or {}, body, _ENDLESS if endless else _TIMEOUT
        ) as response:  # fmt: skip
            yield response

    async def chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Yield an answer's content."""
        async for part in response.content.iter_chunked(_CHUNK_BYTES):
            yield part

    async def close(self) -> None:
        """Let go of connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def _open(
        self, method: str, path: str, query: Mapping[str, str], body: object, limits: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            # No limit: streams may be open for days, and requests must not wait for them.
            connector = aiohttp.UnixConnector(self.socket_path, limit=0)
            self._session = aiohttp.ClientSession(
                connector=connector, auto_decompress=False, headers={"Accept-Encoding": "identity"}
            )
        content = {"json": body} if isinstance(body, dict) else {"data": body}
        try:
            async with self._session.request(
                method,
                f"http://engine{path}",
                params=query,
                timeout=limits,
                **content,
            ) as response:
                if response.status >= 400:  # noqa: PLR2004 - what HTTP calls errors
                    raise _refused(response.status, await response.text())
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as failure:
            raise failed(str(failure) or type(failure).__name__) from failure


def failed(said: str) -> Unavailable:
    """Return the error for a runtime that does not do what it is asked."""
    return Unavailable(
        f"the container runtime could not do it: {said}",
        code="engine_failed",
        resolution="see that it runs, and that this program may use its socket",
    )


def _refused(status: int, text: str) -> BoroughError:
    try:
        said = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        said = text.strip() or f"status {status}"
    if status == _GONE:
        return NotFound(said, code="engine_not_found")
    if status == _TAKEN:
        return Conflict(said, code="engine_refused", resolution="read the machine's state")
    return failed(said)
