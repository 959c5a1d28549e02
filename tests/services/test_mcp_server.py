"""An agent's tools over MCP, spoken to with the SDK's own client over a real server."""

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest
import uvicorn
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.types import CallToolResult, TextContent

from borough.core.errors import Forbidden, NotFound, Unavailable
from borough.governance.builtin_tools import BUILTIN_TOOLS
from borough.governance.ports.tools import ToolReply
from borough.governance.tools import Tool
from borough.mcp.serving import LONGEST_REQUEST_BYTES, McpGateway
from tests.conftest import eventually

pytestmark = pytest.mark.anyio
ALLOWED = ("echo", "fs.read", "web.fetch")


class Law:
    """Who is known, what they may call, and what was called."""

    def __init__(self) -> None:
        self.tokens = {"ada-token": "ada", "bob-token": "bob"}
        self.calls: list[tuple[str, str, dict[str, object]]] = []
        self.ready = True

    async def authenticate(self, headers: Mapping[str, str]) -> str:
        if not self.ready:
            raise Unavailable("the ledger cannot be written", code="ledger_unavailable")
        token = headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.tokens:
            raise Forbidden("unauthorized", code="unauthorized", resolution="send a valid token")
        return self.tokens[token]

    async def list_tools(self, asker: str) -> tuple[Tool, ...]:
        return tuple(BUILTIN_TOOLS[name] for name in (ALLOWED if asker == "ada" else ALLOWED[:1]))

    async def call_tool(self, asker: str, name: str, arguments: Mapping[str, object]) -> ToolReply:
        self.calls.append((asker, name, dict(arguments)))
        if name not in {tool.name for tool in await self.list_tools(asker)}:
            raise Forbidden(
                f"access denied: tool.invoke:{name}", code="denied", reason="default-deny", resolution="ask for a grant"
            )
        if name == "fs.read":
            raise NotFound("file not found", code="file_not_found")
        if name == "web.fetch":
            return ToolReply(status="error", output="timeout")
        return ToolReply(status="success", output=dict(arguments))


@asynccontextmanager
async def gateway(law: Law) -> AsyncIterator[str]:
    app = McpGateway(authenticate=law.authenticate, list_tools=law.list_tools, call_tool=law.call_tool, version="1")
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", loop="asyncio", lifespan="off")
    server = uvicorn.Server(config)
    async with app.running():
        task = asyncio.ensure_future(server.serve())

        async def started() -> bool:
            return server.started

        try:
            await eventually(started)
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/mcp"
        finally:
            server.should_exit = True
            await task


@asynccontextmanager
async def client(url: str, token: str, mode: str) -> AsyncIterator[Client]:
    async with (
        create_mcp_http_client({"Authorization": f"Bearer {token}"}) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode, cache=None) as opened,
    ):
        yield opened


def text(result: CallToolResult) -> str:
    block = result.content[0]
    assert isinstance(block, TextContent)
    return block.text


@pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])
async def test_an_agent_sees_and_calls_its_own_tools_and_no_others(mode: str) -> None:
    law = Law()
    async with gateway(law) as url, client(url, "ada-token", mode) as ada, client(url, "bob-token", mode) as bob:
        tools = (await ada.list_tools()).tools
        assert [(tool.name, tool.title) for tool in tools] == [
            ("echo", "echo"), ("fs_read", "fs.read"), ("web_fetch", "web.fetch"),
        ]  # fmt: skip
        assert tools[1].input_schema["required"] == ["path"]
        assert tools[2].annotations is not None
        assert tools[2].annotations.read_only_hint is True
        assert [tool.name for tool in (await bob.list_tools()).tools] == ["echo"]

        echoed = await ada.call_tool("echo", {"a": [1, "ü"]})
        assert (echoed.is_error, echoed.structured_content, text(echoed)) == (False, {"a": [1, "ü"]}, '{"a":[1,"ü"]}')
        missing = await ada.call_tool("fs_read", {"path": "/a"})
        assert (missing.is_error, text(missing)) == (True, "file not found (file_not_found)")
        failed = await ada.call_tool("web.fetch", {"url": "http://a.example/"})
        assert (failed.is_error, text(failed)) == (True, "timeout")
        denied = await bob.call_tool("fs.read", {"path": "/a"})
        assert denied.is_error
        assert text(denied).splitlines() == [
            "access denied: tool.invoke:fs.read (denied)", "reason: default-deny", "what to do: ask for a grant",
        ]  # fmt: skip
    assert law.calls == [
        ("ada", "echo", {"a": [1, "ü"]}), ("ada", "fs.read", {"path": "/a"}),
        ("ada", "web.fetch", {"url": "http://a.example/"}), ("bob", "fs.read", {"path": "/a"}),
    ]  # fmt: skip


async def test_a_revoked_token_ends_at_the_next_request() -> None:
    law = Law()
    async with gateway(law) as url, client(url, "ada-token", "legacy") as ada:
        assert not (await ada.call_tool("echo", {})).is_error
        law.tokens.clear()
        with pytest.raises(MCPError, match="error response"):
            await ada.call_tool("echo", {})
    assert len(law.calls) == 1


async def test_whoever_is_not_known_or_does_not_post_is_told_so() -> None:
    law = Law()
    initialize = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}
    known = {"Authorization": "Bearer ada-token", "Accept": "application/json, text/event-stream"}
    async with gateway(law) as url, aiohttp.ClientSession() as http:
        async with http.post(url, json=initialize) as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert (await answer.json())["code"] == "unauthorized"
        for method in ("GET", "DELETE"):
            async with http.request(method, url, headers=known) as answer:
                assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        async with http.post(url, data=io.BytesIO(b"x" * (LONGEST_REQUEST_BYTES + 1)), headers=known) as answer:
            assert answer.status == 413
        law.ready = False
        async with http.post(url, json=initialize, headers=known) as answer:
            assert (answer.status, (await answer.json())["code"]) == (503, "ledger_unavailable")


async def test_two_tools_never_have_one_name() -> None:
    law = Law()
    echo = BUILTIN_TOOLS["echo"]

    async def list_tools(asker: str) -> tuple[Tool, ...]:
        return replace(echo, name="a.b"), replace(echo, name="a_b", requires_approval=True)

    async def call_tool(asker: str, name: str, arguments: Mapping[str, object]) -> ToolReply:
        return ToolReply(status="success", output=name)

    law.list_tools, law.call_tool = list_tools, call_tool  # type: ignore[method-assign] # others for this test
    async with gateway(law) as url, client(url, "ada-token", "legacy") as ada:
        names = [tool.name for tool in (await ada.list_tools()).tools]
        assert len(set(names)) == 2
        assert [text(await ada.call_tool(name, {})) for name in names] == ["a.b", "a_b"]
