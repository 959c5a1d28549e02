"""``/mcp`` put together: who a request speaks for, and the same use cases as every other door.

The SDK takes a second to import: that is done when the first request comes, off the event loop.
"""

import asyncio
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from borough.core.errors import Conflict, Forbidden
from borough.governance.ledger import Via
from borough.governance.ports.tools import ToolReply
from borough.governance.services.asking import Asker
from borough.governance.tokens import Caller
from borough.governance.tools import Tool
from borough.http.context import context_of
from borough.http.governance.routes import MCP_PATH
from borough.http.governance.services import GovernanceServices
from borough.http.limits import LoginThrottle
from borough.http.parsing import parse_headers
from borough.http.surfaces import Authenticate

if TYPE_CHECKING:
    from borough.mcp.serving import McpGateway


class McpDoor:
    """The ASGI application for ``/mcp``; ``close`` it in the end."""

    def __init__(
        self, services: GovernanceServices, *, authenticate: Authenticate, logins: LoginThrottle | None
    ) -> None:
        self._services = services
        self._authenticate = authenticate
        self._logins = logins
        self._opening = asyncio.Lock()
        self._closing = asyncio.Event()
        self._gateway: McpGateway[Asker] | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        context_of(scope).route = MCP_PATH
        gateway = self._gateway or await self._opened()
        await gateway(scope, receive, send)

    async def close(self) -> None:
        """End what is served."""
        self._closing.set()
        if self._keeper is not None:
            await asyncio.gather(self._keeper, return_exceptions=True)

    async def _opened(self) -> "McpGateway[Asker]":
        async with self._opening:
            if self._gateway is None:
                serving = await asyncio.to_thread(import_module, "borough.mcp.serving")
                gateway: McpGateway[Asker] = serving.McpGateway(
                    authenticate=self._asker, list_tools=self._list, call_tool=self._call, version=version("borough")
                )
                started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                # One task enters and leaves: the SDK's group of tasks belongs to whoever opened it.
                self._keeper = asyncio.create_task(self._keep(gateway, started), name="mcp")
                await started
                self._gateway = gateway
            return self._gateway

    async def _keep(self, gateway: "McpGateway[Asker]", started: "asyncio.Future[None]") -> None:
        try:
            async with gateway.running():
                started.set_result(None)
                await self._closing.wait()
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise

    async def _asker(self, request: Request) -> Asker:
        """Return the agent that a request speaks for.

        Raises:
            Forbidden: it shows no valid key.
            Conflict: it speaks for no agent (``no_agent``).
            Unavailable: too many keys were guessed from there (``rate_limited``).
        """
        context, headers = context_of(request.scope), parse_headers(request.scope["headers"])
        caller = await self._caller(headers, context.client)
        context.principal = f"key:{caller.token_name}"
        return Asker(
            caller=caller,
            via=Via.MCP,
            request_id=context.request_id,
            operation_key=context.request_id,
            trace_id=context.trace_id,
        )

    async def _caller(self, headers: Mapping[str, str], address: str) -> Caller:
        if self._logins is not None:
            self._logins.check(address, headers)
        try:
            caller = (await self._authenticate(headers, address)).caller
        except Forbidden as error:
            if self._logins is not None:
                self._logins.failed(address, error)
            raise
        if self._logins is not None:
            self._logins.succeeded(headers)
        if not isinstance(caller, Caller) or caller.is_unbound:
            raise Conflict(
                "this credential speaks for no agent",
                code="no_agent",
                reason="the tools here are those of one agent, the one that the key is bound to",
                resolution="make a key for the agent: ash api-key create --name NAME --agent-id UUID --role agent",
            )
        return caller

    async def _list(self, asker: Asker) -> tuple[Tool, ...]:
        self._services.reads.note(asker, MCP_PATH)
        return await self._services.tooling.tools.list(asker, asker.caller.agent_id)

    async def _call(self, asker: Asker, name: str, arguments: Mapping[str, object]) -> ToolReply:
        made = await self._services.tooling.tools.invoke(asker, asker.caller.agent_id, name, arguments)
        return ToolReply(status="success" if made.status == "success" else "error", output=made.output)


class WithMcp:
    """Hands ``/mcp`` to its door and everything else to ``app``."""

    def __init__(self, app: ASGIApp, door: ASGIApp) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        app = self._door if scope.get("path") == MCP_PATH else self._app
        await app(scope, receive, send)
