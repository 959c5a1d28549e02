"""MCP servers, real ones, attached to agents."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from mcp.server.lowlevel import Server
from mcp.types import CallToolResult, ListToolsResult, TextContent, Tool

from borough.adapters import process
from borough.adapters.mcp.pins import MemoryPins
from borough.adapters.mcp.servers import MARKER, McpReport, McpSessions
from borough.adapters.process import Marker
from borough.core.errors import Forbidden, NotFound, Unavailable
from borough.core.ids import AgentId, new_id
from borough.governance.manifests import McpServer, Transport
from borough.governance.ports.outside import McpServers
from borough.governance.tools import Category, Source
from tests.conftest import eventually

pytestmark = pytest.mark.anyio
ADA = AgentId("6f6d1ab0-7a4e-4f0b-9d6b-0b0f5c1f8a11")
BOB = AgentId("7f6d1ab0-7a4e-4f0b-9d6b-0b0f5c1f8a12")
PEER = Path(__file__).with_name("mcp_peer.py")


class Sessions:
    """Attached servers, what was reported of them, and the mark of their processes."""

    def __init__(self, folder: Path, pins: MemoryPins) -> None:
        self.installation = new_id()
        self.reports: list[McpReport] = []
        self.server = McpServer(
            name="peer",
            transport=Transport.STDIO,
            command=sys.executable,
            args=("-W", "ignore", str(PEER), str(folder / "other-tools")),
        )
        self.servers = McpSessions(installation=self.installation, on_report=self.report, pins=pins)
        self.port: McpServers = self.servers

    async def report(self, report: McpReport) -> None:
        self.reports.append(report)

    def events(self) -> list[tuple[str, dict[str, str]]]:
        return [(report.event, dict(report.tools)) for report in self.reports]

    def processes(self) -> list[process.ProcessRef]:
        return process.owned(Marker(MARKER, f"{self.installation}:"))

    async def call(self, tool: str, timeout_s: float = 20, **arguments: object) -> tuple[object, bool]:
        return await self.port.call(ADA, "peer", tool, arguments, timeout_s=timeout_s)


@asynccontextmanager
async def sessions(folder: Path, pins: MemoryPins | None = None) -> AsyncIterator[Sessions]:
    opened = Sessions(folder, pins or MemoryPins())
    try:
        yield opened
    finally:
        await opened.servers.close()
        assert opened.processes() == []


async def test_a_server_is_attached_called_and_detached_with_all_that_it_started(tmp_path: Path) -> None:
    async with sessions(tmp_path) as at:
        tools = await at.port.attach(ADA, at.server, {})
        by_name = {tool.name: tool for tool in tools}
        assert by_name["mcp.peer.say"].category is Category.INPUT
        assert by_name["mcp.peer.fail"].category is Category.OUTPUT
        assert {tool.source for tool in tools} == {Source.MCP}
        assert "mcp.peer.not a name" not in by_name
        assert [event for event, _ in at.events()] == ["mcp_tool_refused"]
        assert await at.port.attach(ADA, at.server, {}) == tools
        assert len(at.processes()) == 1
        assert await at.call("say", text="grüß") == ({"said": "grüß"}, False)
        assert await at.call("fail") == ("it did not work", True)
        child, _ = await at.call("child")
        assert isinstance(child, dict)
        assert process.identify(child["pid"]) is not None
        assert await at.port.attached(ADA) == {"peer": tools}
        assert await at.port.attached(BOB) == {}
        assert await at.port.detach(ADA, "peer") == tuple(by_name)
        assert at.processes() == []
        assert process.identify(child["pid"]) is None
        assert await at.port.detach(ADA, "peer") == ()
        with pytest.raises(NotFound) as refusal:
            await at.call("say")
    assert refusal.value.code == "mcp_not_attached"


async def test_a_server_gets_what_it_was_given_and_nothing_of_the_daemons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "secret")
    monkeypatch.setenv("AGENTD_API_ADDR", "127.0.0.1:1")
    async with sessions(tmp_path) as at:
        await at.port.attach(ADA, at.server, {"PEER_TOKEN": "t"})
        found, _ = await at.call("environment")
    assert isinstance(found, dict)
    assert found["PEER_TOKEN"] == "t"
    assert not {"OPENROUTER_API_KEY", "AGENTD_API_ADDR"} & set(found)


async def test_each_agent_has_a_session_of_its_own(tmp_path: Path) -> None:
    async with sessions(tmp_path) as at:
        await asyncio.gather(at.port.attach(ADA, at.server, {}), at.port.attach(BOB, at.server, {}))
        assert len(at.processes()) == 2
        await at.port.detach(BOB, "peer")
        assert await at.call("say", text="still here") == ({"said": "still here"}, False)


async def test_a_tool_that_changes_is_withheld_until_it_is_agreed_to_again(tmp_path: Path) -> None:
    pins = MemoryPins()
    async with sessions(tmp_path, pins) as at:
        before = await at.port.attach(ADA, at.server, {})
        at.reports.clear()
        await at.call("change")

        async def reported() -> bool:
            return bool(at.reports)

        await eventually(reported)
        changed = {"say": "it is not as it was agreed to", "new": "it is new"}
        assert at.events()[0] == ("mcp_tool_changed", changed)
        for tool in changed:
            with pytest.raises(Forbidden) as refusal:
                await at.call(tool)
            assert refusal.value.code == "mcp_tool_changed"
        left = {tool.name for tool in (await at.port.attached(ADA))["peer"]}
        assert left == {tool.name for tool in before} - {"mcp.peer.say"}
    # So it is after the daemon was started again, too.
    async with sessions(tmp_path, pins) as at:
        assert {tool.name for tool in await at.port.attach(ADA, at.server, {})} == left
        assert {tool.name for tool in (await at.port.withheld(ADA))["peer"]} == {"mcp.peer.say", "mcp.peer.new"}
        agreed = await at.port.approve(ADA, "peer", "say")
        assert agreed.description == "Says it, and sends it elsewhere."
        assert await at.call("say", text="again") == ({"said": "again"}, False)
        assert [tool.name for tool in (await at.port.withheld(ADA))["peer"]] == ["mcp.peer.new"]
        with pytest.raises(NotFound):
            await at.port.approve(ADA, "peer", "nothing")
    async with sessions(tmp_path, pins) as at:
        assert "mcp.peer.say" in {tool.name for tool in await at.port.attach(ADA, at.server, {})}


async def test_a_call_that_hangs_ends_and_the_session_goes_on(tmp_path: Path) -> None:
    async with sessions(tmp_path) as at:
        await at.port.attach(ADA, at.server, {})
        with pytest.raises(Unavailable) as failure:
            await at.call("hang", timeout_s=0.3)
        assert failure.value.code == "mcp_unavailable"
        assert await at.call("say", text="x") == ({"said": "x"}, False)
        hanging = asyncio.ensure_future(at.call("hang", timeout_s=30))
        await at.call("say", text="y")
        await at.port.detach(ADA, "peer")
        with pytest.raises(NotFound) as refusal:
            await hanging
    assert refusal.value.code == "mcp_not_attached"


async def test_a_server_that_dies_is_reported_and_can_be_attached_again(tmp_path: Path) -> None:
    async with sessions(tmp_path) as at:
        await at.port.attach(ADA, at.server, {})
        with pytest.raises(Unavailable) as failure:
            await at.call("die")
        assert failure.value.code == "mcp_unavailable"

        async def lost() -> bool:
            return at.events()[-1][0] == "mcp_server_lost"

        await eventually(lost)
        assert await at.port.attached(ADA) == {}
        await at.port.attach(ADA, at.server, {})
        assert await at.call("say", text="back") == ({"said": "back"}, False)


@pytest.mark.parametrize(
    ("command", "args"),
    [
        ("/nonexistent/server", ()),
        ("/bin/true", ()),
        ("/bin/echo", ("this is not JSON",)),
        ("/bin/sh", ("-c", "exec yes")),
    ],
)
async def test_what_is_no_server_is_refused_and_nothing_is_left(
    tmp_path: Path, command: str, args: tuple[str, ...]
) -> None:
    async with sessions(tmp_path) as at:
        server = McpServer(name="none", transport=Transport.STDIO, command=command, args=args)
        with pytest.raises(Unavailable) as failure:
            async with asyncio.timeout(60):
                await at.port.attach(ADA, server, {})
        assert failure.value.code == "mcp_unavailable"
        assert at.processes() == []
        assert await at.port.attached(ADA) == {}


async def test_what_an_earlier_daemon_left_behind_is_ended(tmp_path: Path) -> None:
    async with sessions(tmp_path) as at:
        env = {"PATH": "/usr/bin:/bin", MARKER: f"{at.installation}:gone"}
        left = process.start(["sleep", "600"], env=env)
        await at.servers.reap()
        assert left.wait(5) != 0


@asynccontextmanager
async def http_server() -> AsyncIterator[tuple[str, list[str | None]]]:
    """Serve one tool over Streamable HTTP; yields the address and the tokens that came."""
    tokens: list[str | None] = []

    async def list_tools(_context: Any, _params: Any) -> ListToolsResult:
        return ListToolsResult(tools=[Tool(name="add", description="Adds.", input_schema={"type": "object"})])

    async def call_tool(context: Any, params: Any) -> CallToolResult:
        tokens.append(context.request.headers.get("authorization"))
        return CallToolResult(content=[TextContent(text=str(sum(params.arguments["of"])))])

    mcp: Server[Any] = Server("adder", on_list_tools=list_tools, on_call_tool=call_tool)
    config = uvicorn.Config(mcp.streamable_http_app(), host="127.0.0.1", port=0, log_level="error", loop="asyncio")
    server = uvicorn.Server(config)
    task = asyncio.ensure_future(server.serve())

    async def started() -> bool:
        return server.started

    try:
        await eventually(started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/mcp", tokens
    finally:
        server.should_exit = True
        await task


async def test_a_server_is_attached_over_streamable_http(tmp_path: Path) -> None:
    async with http_server() as (url, tokens), sessions(tmp_path) as at:
        server = McpServer(name="adder", transport=Transport.HTTP, url=url)
        tools = await at.port.attach(ADA, server, {"AUTHORIZATION": "Bearer t"})
        assert [tool.name for tool in tools] == ["mcp.adder.add"]
        output, failed = await at.port.call(ADA, "adder", "add", {"of": [1, 2]}, timeout_s=20)
        assert (output, failed) == ({"content": [{"type": "text", "text": "3"}]}, False)
        assert await at.port.detach(ADA, "adder") == ("mcp.adder.add",)
    assert tokens == ["Bearer t"]


async def test_nobody_at_the_address_is_said_so(tmp_path: Path) -> None:
    async with sessions(tmp_path) as at:
        server = McpServer(name="none", transport=Transport.HTTP, url="http://127.0.0.1:1/mcp")
        with pytest.raises(Unavailable) as failure:
            await at.port.attach(ADA, server, {})
    assert failure.value.code == "mcp_unavailable"
