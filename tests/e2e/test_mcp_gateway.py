"""``/mcp`` of a running ``borough up``, spoken to with the SDK's own client: the same law, the same ledger."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.types import CallToolResult, TextContent

from tests.conftest import eventually
from tests.e2e.conftest import RunningTown, start_town, stop_town

pytestmark = pytest.mark.anyio
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
ACCEPTED = {"Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def town() -> Iterator[RunningTown]:
    with tempfile.TemporaryDirectory(prefix="up") as folder:
        root = Path(folder).resolve() / "t"
        root.mkdir()
        running = start_town(root, governed=True)
        yield running
        assert stop_town(running) == 0


@dataclass(frozen=True, kw_only=True)
class Agent:
    id: str
    key: str
    key_name: str


def agent(town: RunningTown, name: str, *capabilities: str, role: str = "agent", **spec: Any) -> Agent:
    document = {
        "apiVersion": "scarab/v1",
        "kind": "AgentManifest",
        "metadata": {"name": name, "version": "1.0.0"},
        "spec": {"trust_level": "trusted", "capabilities": list(capabilities), **spec},
    }
    made = town.ok("POST", "/agents", {"manifest_yaml": json.dumps(document)})["id"]
    key = town.ok("POST", "/tokens", {"name": f"{name}-key", "agent_id": made, "role": role})["token"]
    return Agent(id=made, key=key, key_name=f"{name}-key")


@asynccontextmanager
async def client(town: RunningTown, key: str, mode: str = "auto") -> AsyncIterator[Client]:
    async with (
        create_mcp_http_client({"Authorization": f"Bearer {key}"}) as http,
        Client(streamable_http_client(f"{town.url}/mcp", http_client=http), mode=mode, cache=None) as opened,
    ):
        yield opened


def text(result: CallToolResult) -> str:
    block = result.content[0]
    assert isinstance(block, TextContent)
    return block.text


def entries(town: RunningTown, agent_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = town.ok("GET", f"/agents/{agent_id}/audit?limit=200")
    return [entry for entry in found if entry["via"] == "mcp"]


@pytest.mark.parametrize(("mode", "role"), [("legacy", "agent"), ("auto", "operator"), ("2026-07-28", "agent")])
async def test_an_agent_s_tools_are_listed_called_and_recorded(town: RunningTown, mode: str, role: str) -> None:
    ada = agent(town, f"ada-{mode}-{role}", "tool.invoke:echo", "memory.read:*", role=role)
    async with client(town, ada.key, mode) as opened:
        names = [tool.name for tool in (await opened.list_tools()).tools]
        assert "echo" in names
        assert "fs_write" not in names
        echoed = await opened.call_tool("echo", {"a": [1, "ü"]})
        assert not echoed.is_error
        assert json.loads(text(echoed)) == {"a": [1, "ü"]}
    told = [(entry["action"], entry["outcome"], entry["token_name"]) for entry in entries(town, ada.id)]
    assert ("ToolInvoke", "pending", ada.key_name) in told
    assert ("ToolInvoke", "success", ada.key_name) in told


async def test_a_refusal_says_why_and_is_recorded(town: RunningTown) -> None:
    bob = agent(town, "bob", "tool.invoke:echo")
    async with client(town, bob.key) as opened:
        refused = await opened.call_tool("fs.write", {"path": "/workspace/a", "content": "b"})
    assert refused.is_error
    assert "(denied)" in text(refused)
    assert "tool.invoke:fs.write" in text(refused)
    (entry,) = entries(town, bob.id)
    assert (entry["action"], entry["outcome"]) == ("AccessDenied", "denied")


async def test_a_call_waits_for_agreement_and_is_made_with_it(town: RunningTown) -> None:
    rule = {"id": "people", "effect": "ask", "capability": "tool.invoke:echo"}
    careful = agent(town, "careful", "tool.invoke:echo", policy=[rule])

    async def pending() -> list[dict[str, Any]]:
        answer = town.ok("GET", "/approvals")
        listed: list[dict[str, Any]] = answer if isinstance(answer, list) else answer["approvals"]
        return [one for one in listed if one["agent_id"] == careful.id]

    async def asked() -> bool:
        return bool(await pending())

    async with client(town, careful.key) as opened:
        for verdict, is_error in (("approve", False), ("deny", True)):
            call = asyncio.ensure_future(opened.call_tool("echo", {"verdict": verdict}))
            await eventually(asked)
            waiting = (await pending())[0]
            town.ok("POST", f"/approvals/{waiting['request_id']}/{verdict}", {})
            result = await call
            assert bool(result.is_error) is is_error, text(result)
    actions = [entry["action"] for entry in entries(town, careful.id)]
    assert "ApprovalRequested" in actions


async def test_a_revoked_key_ends_at_the_next_request(town: RunningTown) -> None:
    eve = agent(town, "eve", "tool.invoke:echo")
    async with client(town, eve.key, "legacy") as opened:
        assert not (await opened.call_tool("echo", {})).is_error
        town.ok("DELETE", f"/tokens/{eve.key_name}")
        with pytest.raises(MCPError):
            await opened.call_tool("echo", {})
    refused = town.request("POST", "/mcp", INITIALIZE, token=eve.key, headers=ACCEPTED)
    assert refused.status == 401
    assert refused.headers["www-authenticate"].startswith("Bearer")


async def test_a_credential_that_speaks_for_no_agent_is_told_what_to_do(town: RunningTown) -> None:
    refused = town.request("POST", "/mcp", INITIALIZE, headers=ACCEPTED)
    assert (refused.status, refused.json()["code"]) == (403, "no_agent")
    assert "ash api-key create" in refused.json()["resolution"]
    assert town.request("POST", "/mcp", INITIALIZE, token=None, headers=ACCEPTED).status == 401


async def test_tools_of_an_agent_that_has_ended_cannot_be_had(town: RunningTown) -> None:
    gone = agent(town, "gone", "tool.invoke:echo")
    town.ok("DELETE", f"/agents/{gone.id}")
    async with client(town, gone.key, "legacy") as opened:
        refused = await opened.call_tool("echo", {})
        assert refused.is_error
        assert "the key's agent does not run" in text(refused)
        with pytest.raises(MCPError, match="the key's agent does not run"):
            await opened.list_tools()
