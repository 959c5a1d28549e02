"""The ASGI application for ``/mcp``: one agent's allowed tools over Streamable HTTP, without sessions.

Each request stands for itself: it is authenticated anew, so a token that was revoked ends at the next one, and a
restart of the daemon is not noticed. Import this module only where it is served: the SDK takes seconds to import.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

from mcp import MCPError
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.types import (
    INVALID_REQUEST,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
)
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from borough.core.errors import BoroughError, Forbidden, Unavailable
from borough.governance.ports.tools import ToolReply
from borough.governance.tools import Tool
from borough.mcp.rendering import error_result, reply_result, told, tool_on_the_wire, wire_names

LONGEST_REQUEST_BYTES = 1_048_576
_ASKER = "borough.asker"
_UNAUTHENTICATED, _FORBIDDEN, _NOT_ALLOWED, _UNAVAILABLE = 401, 403, 405, 503

Asker = TypeVar("Asker")


class McpGateway(Generic[Asker]):
    """Serves tools to whoever proves to be an agent. Enter ``running`` for as long as it is served."""

    def __init__(
        self,
        *,
        authenticate: Callable[[Request], Awaitable[Asker]],
        list_tools: Callable[[Asker], Awaitable[tuple[Tool, ...]]],
        call_tool: Callable[[Asker, str, Mapping[str, object]], Awaitable[ToolReply]],
        version: str = "",
    ) -> None:
        """``authenticate`` raises ``Forbidden`` for a request whose headers show nobody that is known.

        ``call_tool`` raises any ``BoroughError`` for a call that is refused or fails: the model reads why.
        """
        self._authenticate, self._list_tools, self._call_tool = authenticate, list_tools, call_tool
        server: Server[Any] = Server("borough", version=version, on_list_tools=self._listed, on_call_tool=self._called)
        server.middleware.clear()  # what happens is in the ledger, not in spans of the SDK's making
        self._manager = StreamableHTTPSessionManager(
            server, json_response=True, stateless=True, max_request_body_size=LONGEST_REQUEST_BYTES
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve requests within this context; once only."""
        async with self._manager.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answer = await self._admit(scope)
        if answer is not None:
            await answer(scope, receive, send)
        else:
            await self._manager.handle_request(scope, receive, send)

    async def _admit(self, scope: Scope) -> Response | None:
        """Note who asks; or return why the request is not taken."""
        request = Request(scope)
        try:
            scope[_ASKER] = await self._authenticate(request)
        except Forbidden as error:
            return _refusal(_UNAUTHENTICATED, error, {"WWW-Authenticate": 'Bearer realm="borough"'})
        except Unavailable as error:
            return _refusal(_UNAVAILABLE, error, {"Retry-After": "1"})
        except BoroughError as error:
            return _refusal(_FORBIDDEN, error, {})
        if request.method != "POST":
            # Nothing is ever sent unasked and no session is kept: there is nothing to GET and nothing to DELETE.
            return Response(status_code=_NOT_ALLOWED, headers={"Allow": "POST"})
        return None

    async def _listed(self, context: Any, _params: PaginatedRequestParams | None) -> ListToolsResult:
        try:
            tools = await self._list_tools(context.request.scope[_ASKER])
        except BoroughError as error:
            raise MCPError(INVALID_REQUEST, told(error)) from None
        names = wire_names(tools)
        return ListToolsResult(tools=[tool_on_the_wire(tool, name) for name, tool in names.items()])

    async def _called(self, context: Any, params: CallToolRequestParams) -> CallToolResult:
        asker = context.request.scope[_ASKER]
        try:
            # What is not on the list is asked for by the name that was given: whoever decides says why not.
            listed = wire_names(await self._list_tools(asker)).get(params.name)
            name = params.name if listed is None else listed.name
            return reply_result(await self._call_tool(asker, name, params.arguments or {}))
        except BoroughError as error:
            return error_result(error)


def _refusal(status: int, error: BoroughError, headers: Mapping[str, str]) -> JSONResponse:
    body = {"error": error.message, "code": error.code, "resolution": error.resolution}
    return JSONResponse(body, status_code=status, headers=dict(headers))
