"""One session with one server. It lives in a task of its own, since the SDK wants to be closed where it was opened."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog
from mcp import ClientSession, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.types import CallToolResult, Implementation, PaginatedRequestParams, Tool, ToolListChangedNotification

from borough.adapters.mcp.stdio import Launch, launch, stdio_streams
from borough.adapters.process import Marker
from borough.core.errors import BoroughError, NotFound, Unavailable
from borough.governance.manifests import McpServer, Transport

ATTACHED_WITHIN_S = 30.0
_LISTED_WITHIN_S = 30.0
_MOST_PAGES = 20

log = structlog.get_logger("borough.mcp")

Listed = Callable[[tuple[Tool, ...]], Awaitable[None]]


class Session:
    """Speaks to a server until ``close``, or until the server is gone."""

    def __init__(
        self,
        server: McpServer,
        env: Mapping[str, str],
        marker: Marker,
        *,
        on_listed: Listed,
        start: Launch | None = None,
    ) -> None:
        """``on_listed`` is told of the tools at first and whenever the server says that they have changed."""
        self._server, self._env, self._marker, self._start = server, env, marker, start or launch
        self._on_listed = on_listed
        self._client: ClientSession | None = None
        self._closing = asyncio.Event()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Tell whether calls can be made."""
        return self._client is not None and not self._closing.is_set()

    async def open(self, on_end: Callable[[], None]) -> None:
        """Start or reach the server, agree on the protocol, list its tools; ``on_end`` is told when it is over.

        Raises:
            Unavailable: it does not come to that (``mcp_unavailable``). Nothing is left behind then.
        """
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.get_running_loop().create_task(self._run(ready))
        self._task.add_done_callback(lambda _: on_end())
        try:
            async with asyncio.timeout(ATTACHED_WITHIN_S):
                await asyncio.shield(ready)
        except TimeoutError:
            await self.close()
            raise _unavailable(self._server.name, f"it did not answer within {ATTACHED_WITHIN_S:g} s") from None
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End the session; a server that we started is ended with it."""
        self._closing.set()
        if self._task is None:
            return
        if self._client is None:
            self._task.cancel()
        with suppress(asyncio.CancelledError):  # it was told to, above
            await asyncio.shield(self._task)

    async def call(self, tool: str, arguments: Mapping[str, object], *, timeout_s: float) -> CallToolResult:
        """Call a tool.

        Raises:
            NotFound: the session was closed (``mcp_not_attached``).
            Unavailable: no answer came (``mcp_unavailable``); whether the tool ran is not known.
        """
        if self._client is None or self._closing.is_set():
            raise _not_attached(self._server.name)
        try:
            # The SDK's own timeout starts with the sending; a server that reads nothing would hold us before that.
            async with asyncio.timeout(timeout_s):
                return await self._client.call_tool(tool, dict(arguments))
        except TimeoutError:
            raise _unavailable(self._server.name, f"it did not answer within {timeout_s:g} s") from None
        except MCPError as error:
            if self._closing.is_set():
                raise _not_attached(self._server.name) from None
            raise _unavailable(self._server.name, error.message[:300]) from None

    async def _run(self, ready: asyncio.Future[None]) -> None:
        try:
            async with self._streams() as (incoming, outgoing, lost):
                client = ClientSession(
                    incoming,
                    outgoing,
                    read_timeout_seconds=ATTACHED_WITHIN_S,
                    message_handler=self._heard,
                    client_info=Implementation(name="borough", version="1"),
                )
                async with client:
                    await client.initialize()
                    await self._list(client)
                    self._client = client
                    ready.set_result(None)
                    await self._stay(client, lost)
        except* Exception as group:  # noqa: BLE001 - whatever the SDK or the server does ends this session only
            failure = _told(self._server.name, group)
            if ready.done():
                log.warning("an MCP session ended", server=self._server.name, reason=failure.reason)
            else:
                ready.set_exception(failure)
        finally:
            self._client = None
            if not ready.done():
                ready.set_exception(_unavailable(self._server.name, "it was closed while it was being opened"))
            # Whoever opened it may have stopped waiting; then nobody asks.
            ready.exception()

    async def _stay(self, client: ClientSession, lost: asyncio.Event) -> None:
        """Wait for the end, and list the tools again whenever they have changed."""
        while True:
            waits = [asyncio.ensure_future(event.wait()) for event in (self._closing, lost, self._changed)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            if self._closing.is_set() or lost.is_set():
                return
            self._changed.clear()
            await self._list(client)

    async def _list(self, client: ClientSession) -> None:
        tools: list[Tool] = []
        cursor: str | None = None
        async with asyncio.timeout(_LISTED_WITHIN_S):
            for _ in range(_MOST_PAGES):
                page = await client.list_tools(params=PaginatedRequestParams(cursor=cursor))
                tools += page.tools
                cursor = page.next_cursor
                if cursor is None:
                    break
        await self._on_listed(tuple(tools))

    async def _heard(self, message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._changed.set()

    @asynccontextmanager
    async def _streams(self) -> AsyncIterator[tuple[Any, Any, asyncio.Event]]:
        if self._server.transport is Transport.STDIO:
            argv = [self._server.command or "", *self._server.args]
            async with stdio_streams(argv, self._env, self._marker, self._start) as (incoming, outgoing):
                yield incoming, outgoing, incoming.ended
            return
        # A server elsewhere has no environment; what it is to be given goes into headers of those names.
        headers = {name.replace("_", "-"): value for name, value in self._env.items()}
        async with (
            create_mcp_http_client(headers) as http,
            streamable_http_client(self._server.url or "", http_client=http) as (incoming, outgoing),
        ):
            yield incoming, outgoing, asyncio.Event()


def _told(server: str, group: BaseExceptionGroup[BaseException]) -> BoroughError:
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    if isinstance(first, BoroughError):
        return _unavailable(server, first.message)
    return _unavailable(server, str(first)[:300] or type(first).__name__)


def _unavailable(server: str, reason: str) -> Unavailable:
    return Unavailable(
        f"the MCP server {server!r} is not available",
        code="mcp_unavailable",
        reason=reason,
        resolution="check its command or address, attach it again",
    )


def _not_attached(server: str) -> NotFound:
    return NotFound(
        f"the MCP server {server!r} is not attached",
        code="mcp_not_attached",
        reason="NotAttached",
        resolution="attach it first",
    )
