"""The port ``McpServers``: who has which server attached, and which of its tools may be called."""

import asyncio
import importlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from borough.adapters import process
from borough.adapters.mcp.listing import pin_of, read_listing, settle
from borough.adapters.mcp.pins import MemoryPins, Pins
from borough.adapters.process import Child, Marker
from borough.core.errors import Forbidden, NotFound
from borough.core.ids import AgentId, new_id
from borough.governance.manifests import McpServer
from borough.governance.tools import Tool

if TYPE_CHECKING:
    from mcp.types import CallToolResult
    from mcp.types import Tool as McpTool

    from borough.adapters.mcp.session import Session

MARKER = "BOROUGH_MCP"
"""Environment variable of a server and all its descendants: ``<installation>:<session>``."""
Start = Callable[[Sequence[str], Mapping[str, str]], Child]
"""Starts a server with pipes for its standard input and output."""
_REAP_GRACE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class McpReport:
    """Something that happened to an attached server, for the record."""

    agent_id: AgentId
    server: str
    event: str
    """``mcp_tool_changed``: withheld until agreed to; ``mcp_tool_refused``: of no use here; ``mcp_server_lost``."""
    tools: Mapping[str, str] = field(default_factory=dict)
    """Which tools, by the server's own names, and why."""


OnReport = Callable[[McpReport], Awaitable[None]]


@dataclass(slots=True)
class _Attached:
    server: McpServer
    session: "Session"
    usable: Mapping[str, Tool] = field(default_factory=dict)
    withheld: Mapping[str, Tool] = field(default_factory=dict)


class McpSessions:
    """Sessions for each agent and server. Use it from one event loop; ``close`` it before the loop ends."""

    def __init__(
        self, *, installation: str, on_report: OnReport, pins: Pins | None = None, start: Start | None = None
    ) -> None:
        """``installation`` marks the servers' processes as this daemon's; ``start`` may confine what it starts."""
        self._installation, self._on_report = installation, on_report
        self._pins = pins or MemoryPins()
        self._start = start
        self._attached: dict[tuple[AgentId, str], _Attached] = {}
        self._locks: dict[tuple[AgentId, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._telling: set[asyncio.Future[None]] = set()

    async def reap(self) -> None:
        """End the servers that an earlier daemon of this installation has left behind."""
        marker = Marker(MARKER, f"{self._installation}:")
        await asyncio.to_thread(process.reap, marker, grace_s=_REAP_GRACE_S)

    async def close(self) -> None:
        """End every session."""
        for agent_id, server in [*self._attached]:
            await self.detach(agent_id, server)
        await asyncio.gather(*self._telling)

    async def attach(self, agent_id: AgentId, server: McpServer, env: Mapping[str, str]) -> tuple[Tool, ...]:
        """Open a session, as the port says; tools that have changed since they were agreed to are not among them."""
        key = (agent_id, server.name)
        async with self._locks[key]:
            known = self._attached.get(key)
            if known is None or not known.session.is_open:
                known = await self._open(key, server, env)
            return tuple(known.usable.values())

    async def detach(self, agent_id: AgentId, server: str) -> tuple[str, ...]:
        """Close a session, as the port says."""
        async with self._locks[agent_id, server]:
            known = self._attached.pop((agent_id, server), None)
            if known is None:
                return ()
            await known.session.close()
            return tuple(tool.name for tool in known.usable.values())

    async def attached(self, agent_id: AgentId) -> Mapping[str, tuple[Tool, ...]]:
        """Return the tools of each attached server."""
        return {
            server: tuple(known.usable.values())
            for (owner, server), known in self._attached.items()
            if owner == agent_id
        }

    async def withheld(self, agent_id: AgentId) -> Mapping[str, tuple[Tool, ...]]:
        """Return the tools of each attached server that wait for a human's agreement."""
        return {
            server: tuple(known.withheld.values())
            for (owner, server), known in self._attached.items()
            if owner == agent_id and known.withheld
        }

    async def approve(self, agent_id: AgentId, server: str, tool: str) -> Tool:
        """Agree to a withheld tool as it is now, by the server's own name for it; agreeing again changes nothing.

        Raises:
            NotFound: the server is not attached, or has no such tool (``mcp_not_attached``, ``tool_not_found``).
        """
        async with self._locks[agent_id, server]:
            known = self._known(agent_id, server)
            agreed = known.withheld.get(tool) or known.usable.get(tool)
            if agreed is None:
                raise _no_tool(server, tool)
            pins = dict(await self._pins.load(agent_id, server) or {})
            await self._pins.save(agent_id, server, {**pins, tool: pin_of(agreed)})
            known.usable = {**known.usable, tool: agreed}
            known.withheld = {name: other for name, other in known.withheld.items() if name != tool}
            return agreed

    async def call(
        self, agent_id: AgentId, server: str, tool: str, arguments: Mapping[str, object], *, timeout_s: float
    ) -> tuple[object, bool]:
        """Call a tool, as the port says.

        Raises:
            Forbidden: it has changed since it was agreed to (``mcp_tool_changed``).
        """
        known = self._known(agent_id, server)
        if tool in known.withheld:
            raise Forbidden(
                f"the tool {tool!r} of {server!r} has changed since it was agreed to",
                code="mcp_tool_changed",
                resolution="have an operator look at it and approve it again",
            )
        if tool not in known.usable:
            raise _no_tool(server, tool)
        return _output(await known.session.call(tool, arguments, timeout_s=timeout_s))

    async def _open(self, key: tuple[AgentId, str], server: McpServer, env: Mapping[str, str]) -> _Attached:
        # In a thread, since the SDK takes seconds to import and everybody else would wait for it.
        sessions = await asyncio.to_thread(importlib.import_module, "borough.adapters.mcp.session")

        async def listed(tools: "tuple[McpTool, ...]") -> None:
            await self._settle(key, known, tools)

        marker = Marker(MARKER, f"{self._installation}:{new_id()}")
        session: Session = sessions.Session(server, env, marker, on_listed=listed, start=self._start)
        known = _Attached(server, session)
        await session.open(lambda: self._ended(key, known))
        self._attached[key] = known
        return known

    async def _settle(self, key: tuple[AgentId, str], known: _Attached, tools: "tuple[McpTool, ...]") -> None:
        agent_id, server = key
        listing = read_listing(server, tools)
        pins = await self._pins.load(agent_id, server)
        if pins is None:
            pins = {name: pin_of(tool) for name, tool in listing.offered.items()}
            await self._pins.save(agent_id, server, pins)
        settled = settle(listing.offered, pins)
        fresh = {name: tool for name, tool in settled.withheld.items() if known.withheld.get(name) != tool}
        known.usable, known.withheld = settled.usable, settled.withheld
        if fresh:
            why = {name: "it is not as it was agreed to" if name in pins else "it is new" for name in fresh}
            await self._on_report(McpReport(agent_id=agent_id, server=server, event="mcp_tool_changed", tools=why))
        if listing.refused:
            report = McpReport(agent_id=agent_id, server=server, event="mcp_tool_refused", tools=listing.refused)
            await self._on_report(report)

    def _ended(self, key: tuple[AgentId, str], known: _Attached) -> None:
        """Forget a session that ended by itself, and tell of it."""
        if self._attached.get(key) is not known:
            return
        del self._attached[key]
        report = McpReport(agent_id=key[0], server=key[1], event="mcp_server_lost")
        telling = asyncio.ensure_future(self._on_report(report))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    def _known(self, agent_id: AgentId, server: str) -> _Attached:
        known = self._attached.get((agent_id, server))
        if known is None:
            raise NotFound(
                f"the MCP server {server!r} is not attached",
                code="mcp_not_attached",
                reason="NotAttached",
                resolution="attach it first",
            )
        return known


def _output(result: "CallToolResult") -> tuple[object, bool]:
    if result.is_error:
        return "\n".join(text for block in result.content if (text := getattr(block, "text", ""))), True
    if result.structured_content is not None:
        return result.structured_content, False
    blocks = [block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in result.content]
    return {"content": blocks}, False


def _no_tool(server: str, tool: str) -> NotFound:
    return NotFound(
        f"the MCP server {server!r} has no tool {tool[:80]!r}",
        code="tool_not_found",
        resolution="list the server's tools",
    )
