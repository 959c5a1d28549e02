"""The gateway's routes about tools: bodies, codes, headers."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from borough.auth.principals import Principal
from borough.core.errors import Forbidden
from borough.core.ids import new_id
from borough.governance.agents import GovernedAgent
from borough.governance.tokens import OPERATOR, ROLE_SCOPES, Caller, Role
from borough.http.governance import approvals, escalations, grants, mcp, policy, proposals, tools
from borough.http.governance.dialect import gateway_error
from borough.http.openapi.description import document
from borough.http.surfaces import Policies, Surface
from borough.http.table import OperationTable
from tests.conftest import eventually
from tests.services.tool_shop import Shop, manifest, opened
from tests.surfaces.asgi import Got, ask

pytestmark = pytest.mark.anyio
MODULES = (tools, proposals, approvals, grants, escalations, policy, mcp)
OPERATIONS = tuple(operation for module in MODULES for operation in module.OPERATIONS)
ASKING = "  policy:\n  - {id: careful, effect: ask, capability: 'tool.invoke:echo'}\n"


@dataclass(frozen=True)
class State:
    tooling: Any


@dataclass(frozen=True)
class Gateway:
    """The routes over a shop; who asks is told by a header."""

    shop: Shop
    table: OperationTable

    async def ask(
        self, method: str, target: str, *, by: GovernedAgent | None = None, headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Got:  # fmt: skip
        who = {"x-who": "operator" if by is None else by.id}
        return await ask(self.table, method, target, headers={**who, **(headers or {})}, **more)


async def authenticate(headers: Mapping[str, str], _address: str) -> Principal:
    who = headers.get("x-who")
    if who is None:
        raise Forbidden("no credential", code="authentication_required")
    scopes = ROLE_SCOPES[Role.AGENT]
    caller = OPERATOR if who == "operator" else Caller(token_name="t", agent_id=who, role=Role.AGENT, scopes=scopes)  # type: ignore[arg-type] # an id
    return Principal(id=who, scopes=frozenset(), caller=caller)


async def no_worker(_: object) -> bool:
    return False


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with opened(tmp_path / "state") as shop:
        surface = Surface(
            operations=OPERATIONS,
            state=State(tooling=shop.tooling),
            authenticate=authenticate,
            grant_is_live=no_worker,
            dialect=gateway_error,
        )
        yield Gateway(shop, OperationTable([surface], Policies()))


def refused(got: Got, status: int, code: str) -> dict[str, Any]:
    assert (got.status, got.json()["code"]) == (status, code), got.body
    assert got.json()["error"]
    assert got.json()["request_id"]
    body: dict[str, Any] = got.json()
    return body


async def test_a_call_with_and_without_a_body(gateway: Gateway) -> None:
    agent = await gateway.shop.echoing()
    path = f"/agents/{agent.id}/tools/echo"
    got = await gateway.ask("POST", path, by=agent, json={"message": "hello"})
    body = got.json()
    assert got.status == 200
    assert body.pop("duration_ms") >= 0
    assert len(body.pop("request_id")) == 36
    assert body == {"status": "success", "output": {"message": "hello"}, "cost": 0.1}
    assert (await gateway.ask("POST", path, by=agent)).json()["output"] == {}
    for target, headers in ((f"{path}?raw=1&unknown=x", {}), (path, {"accept": "application/vnd.scarab.output+json"})):
        bare = await gateway.ask("POST", target, by=agent, json={"a": 1.5}, headers=headers)
        assert (bare.status, bare.json()) == (200, {"a": 1.5})


@pytest.mark.parametrize("body", [b"{", b"[1]", b'"text"', b"\xff", b"nul"])
async def test_what_is_no_json_object_is_no_input(gateway: Gateway, body: bytes) -> None:
    agent = await gateway.shop.echoing()
    got = await gateway.ask(
        "POST", f"/agents/{agent.id}/tools/echo", by=agent, body=body, headers={"content-type": "application/json"}
    )
    refused(got, 400, "invalid_request")


async def test_refusals_have_the_status_of_their_code(gateway: Gateway) -> None:
    shop = gateway.shop
    agent = await shop.agent(manifest("tool.invoke:echo", "tool.invoke:fs.read", more="  budget: {calls: 1}\n"))
    at = f"/agents/{agent.id}/tools"
    assert (await ask(gateway.table, "POST", f"{at}/echo")).status == 401
    refused(await gateway.ask("POST", f"/agents/{new_id()}/tools/echo"), 404, "agent_not_found")
    refused(await gateway.ask("POST", "/agents/no-uuid/tools/echo"), 404, "agent_not_found")
    refused(await gateway.ask("POST", f"{at}/none"), 404, "tool_not_found")
    refused(await gateway.ask("POST", f"{at}/agent.info", by=agent), 403, "denied")
    refused(await gateway.ask("POST", f"{at}/fs.read", by=agent, json={"path": 1}), 400, "invalid_request")
    refused(await gateway.ask("POST", f"{at}/fs.read", by=agent, json={"path": "/x"}), 403, "denied")
    assert (await gateway.ask("POST", f"{at}/echo", by=agent)).status == 200
    over = await gateway.ask("POST", f"{at}/echo", by=agent)
    refused(over, 429, "budget_exceeded")
    assert int(over.headers["retry-after"]) > 0


async def test_tools_are_listed_with_what_is_known_of_them(gateway: Gateway) -> None:
    agent = await gateway.shop.agent(manifest("tool.invoke:echo", "tool.invoke:sensitive-op"))
    got = (await gateway.ask("GET", f"/agents/{agent.id}/tools", by=agent)).json()
    assert [each["name"] for each in got] == ["echo", "sensitive-op"]
    assert got[0] == {
        "name": "echo",
        "description": "Returns its input.",
        "requires_approval": False,
        "approval_timeout_secs": None,
        "estimated_cost": 0.1,
        "input_schema": {"type": "object"},
        "output_schema": {"type": "object"},
        "category": "Internal",
        "source": "builtin",
    }
    assert (got[1]["requires_approval"], got[1]["approval_timeout_secs"]) == (True, 300)
    assert len((await gateway.ask("GET", "/tools")).json()) == 13
    assert (await gateway.ask("GET", f"/tools/fs.read?agent_id={agent.id}")).json()["name"] == "fs.read"
    refused(await gateway.ask("GET", "/tools/none"), 404, "tool_not_found")
    refused(await gateway.ask("GET", "/tools?wrong=1"), 400, "invalid_request")


async def test_a_call_that_waits_for_people_blocks_or_is_found_later(gateway: Gateway) -> None:
    agent = await gateway.shop.agent(manifest(more=ASKING))
    path = f"/agents/{agent.id}/tools/echo"
    blocked = asyncio.ensure_future(gateway.ask("POST", path, by=agent, json={"n": 1}))

    async def waits() -> bool:
        return bool((await gateway.ask("GET", "/approvals")).json())

    await eventually(waits)
    (pending,) = (await gateway.ask("GET", "/approvals")).json()
    assert (pending["tool_name"], pending["input"], pending["status"]) == ("echo", {"n": 1}, "Pending")
    refused(await gateway.ask("POST", f"/approvals/{pending['request_id']}/approve", by=agent), 403, "scope_missing")
    decided = await gateway.ask("POST", f"/approvals/{pending['request_id']}/approve", json={"operator": "grace"})
    assert (decided.json()["status"], decided.json()["decided_by"]) == ("Used", "grace")
    assert (await blocked).json()["output"] == {"n": 1}

    later = await gateway.ask("POST", path, by=agent, json={"n": 2}, headers={"prefer": "respond-async"})
    assert later.status == 202
    assert later.json() == {"status": "pending", "request_id": later.json()["request_id"]}
    at = f"/approvals/{later.json()['request_id']}"
    assert "result" not in (await gateway.ask("GET", at, by=agent)).json()
    await gateway.ask("POST", f"{at}/approve")
    assert (await gateway.ask("GET", at, by=agent)).json()["result"]["output"] == {"n": 2}
    refused(await gateway.ask("POST", f"{at}/deny"), 409, "already_decided")

    third = await gateway.ask("POST", path, by=agent, headers={"prefer": "respond-async"})
    at = f"/approvals/{third.json()['request_id']}"
    await gateway.ask("POST", f"{at}/deny", json={"operator": "grace"})
    assert (await gateway.ask("GET", at)).json()["refusal"] == {"error": "denied by operator", "code": "human_denied"}
    refused(await gateway.ask("GET", f"/approvals/{new_id()}"), 404, "approval_not_found")
    refused(await gateway.ask("POST", f"{at}/deny", json={"operater": "x"}), 400, "invalid_request")


async def test_grants_and_requests_of_capabilities(gateway: Gateway) -> None:
    agent = await gateway.shop.agent(manifest())
    at = f"/agents/{agent.id}"
    asked = await gateway.ask(
        "POST", f"{at}/capability-requests", by=agent, json={"capability": "tool.invoke:echo", "reason": "to speak"}
    )
    assert (asked.status, asked.json()["to_agent_id"], asked.json()["state"]) == (201, None, "open")
    (waiting,) = (await gateway.ask("GET", "/escalations")).json()
    done = await gateway.ask("POST", f"/escalations/{waiting['escalation_id']}/resolve", json={"decision": "approve"})
    assert done.json()["state"] == "approved"
    (grant,) = (await gateway.ask("GET", f"{at}/grants", by=agent)).json()
    assert grant["capability"] == "tool.invoke:echo"
    assert (await gateway.ask("POST", f"{at}/tools/echo", by=agent)).status == 200
    assert (await gateway.ask("DELETE", f"{at}/grants/{grant['grant_id']}")).status == 204
    refused(await gateway.ask("DELETE", f"{at}/grants/{grant['grant_id']}"), 404, "grant_not_found")
    given = await gateway.ask("POST", f"{at}/grants", json={"capability": "obs.append", "ttl_secs": 60})
    assert given.status == 201
    assert given.json()["expires_at"] is not None
    refused(await gateway.ask("POST", f"{at}/grants", by=agent, json={"capability": "obs.query"}), 403, "not_related")
    refused(await gateway.ask("POST", f"{at}/grants", json={"capability": "obs.nothing"}), 422, "invalid_capability")
    refused(await gateway.ask("POST", f"{at}/grants", json={"capability": "api.admin"}), 403, "over_ceiling")


async def test_proposals_policies_servers_and_endorsement(gateway: Gateway) -> None:
    agent = await gateway.shop.agent(manifest("tool.propose", "tool.invoke:*"))
    impl: dict[str, Any] = {"kind": "sandbox", "runtime": "sh", "code": "cat"}
    body: dict[str, Any] = {"agent_id": agent.id, "tool": {"name": "my.cat", "description": "Cat."}, "impl": impl}
    made = await gateway.ask("POST", "/tool-proposals", by=agent, json=body)
    assert (made.status, made.json()["state"], made.json()["code"]) == (201, "proposed", "cat")
    wrong = {**body, "impl": {"kind": "agent", "agent_id": agent.id}}
    refused(await gateway.ask("POST", "/tool-proposals", by=agent, json=wrong), 422, "agent_tools_unavailable")
    at = f"/tool-proposals/{made.json()['proposal_id']}"
    refused(await gateway.ask("POST", f"{at}/approve", by=agent), 403, "scope_missing")
    assert (await gateway.ask("POST", f"{at}/approve", json={"everywhere": True})).json()["everywhere"] is True
    refused(await gateway.ask("POST", f"{at}/deny"), 409, "already_decided")
    assert (await gateway.ask("GET", "/tools/my.cat")).json()["source"] == "dynamic"
    assert len((await gateway.ask("GET", "/tool-proposals?state=approved")).json()) == 1
    assert (await gateway.ask("GET", at, by=agent)).status == 200

    test = {"manifest_yaml": manifest("tool.invoke:echo"), "tool": "agent.info"}
    verdict = (await gateway.ask("POST", "/policy/test", json=test)).json()
    assert (verdict["verdict"], verdict["rules"], verdict["code"]) == ("denied", ["default-deny"], "denied")
    refused(await gateway.ask("POST", "/policy/test", json={**test, "manifest_yaml": "x"}), 422, "invalid_manifest")
    shadow = {"agent_id": agent.id, "manifest_yaml": manifest("obs.append")}
    assert (await gateway.ask("POST", "/policy/shadow", json=shadow)).status == 201
    await gateway.ask("POST", f"/agents/{agent.id}/tools/echo", by=agent, json={"n": 1})
    assert (await gateway.ask("GET", f"/policy/shadow/{agent.id}")).json()["differing"] == 1
    assert len((await gateway.ask("GET", "/policy/shadow")).json()) == 1
    assert (await gateway.ask("DELETE", f"/policy/shadow/{agent.id}")).json()["calls"] == 1
    simulate = {"manifest_yaml": manifest("obs.append"), "agent": "worker", "since": "2020-01-01T00:00:00Z"}
    changed = (await gateway.ask("POST", "/policy/simulate", json=simulate)).json()["changed"]
    assert [(each["tool"], each["input"], each["was"], each["now"]["verdict"]) for each in changed] == [
        ("echo", {"n": 1}, "allowed", "denied")
    ]

    server = {"name": "docs", "transport": "stdio", "command": "docs", "env_template": [["KEY", "{{secret:docs}}"]]}
    added = await gateway.ask("POST", "/mcp-servers", json=server)
    assert (added.status, added.json()["env"]) == (201, ["KEY"])
    assert "secret" not in added.body.decode()
    refused(await gateway.ask("POST", "/mcp-servers", json={**server, "name": "a b"}), 422, "invalid_mcp_server")
    assert [each["name"] for each in (await gateway.ask("GET", "/mcp-servers")).json()] == ["docs"]
    assert (await gateway.ask("DELETE", "/mcp-servers/docs")).status == 204
    refused(await gateway.ask("PUT", f"/agents/{agent.id}/mcp/docs"), 404, "mcp_not_found")
    refused(await gateway.ask("DELETE", f"/agents/{agent.id}/mcp/docs"), 404, "mcp_not_attached")
    assert (await gateway.ask("GET", f"/agents/{agent.id}/mcp", by=agent)).json() == []

    refused(await gateway.ask("POST", f"/agents/{agent.id}/endorse", by=agent), 403, "scope_missing")
    endorsed = await gateway.ask("POST", f"/agents/{agent.id}/endorse", json={"reason": "seen"})
    assert endorsed.json() == {"id": agent.id, "tainted": False}


async def test_a_repeated_request_makes_the_same_thing(gateway: Gateway) -> None:
    agent = await gateway.shop.agent(manifest())
    key = {"idempotency-key": "one"}
    body = {"capability": "obs.append"}
    first = await gateway.ask("POST", f"/agents/{agent.id}/grants", json=body, headers=key)
    again = await gateway.ask("POST", f"/agents/{agent.id}/grants", json=body, headers=key)
    assert first.json()["grant_id"] == again.json()["grant_id"]
    assert len(await gateway.shop.stores.grants.of(agent.id)) == 1


def test_every_row_is_in_the_document() -> None:
    made = document(OPERATIONS, title="Gateway", version="1", description="", path_parameters={
        "id": "The agent's id", "name": "A name", "request_id": "The request's id", "grant_id": "The grant's id",
        "proposal_id": "The proposal's id", "escalation_id": "The escalation's id",
    })  # fmt: skip
    assert len(made["paths"]) == len({operation.path for operation in OPERATIONS})
    assert msgspec.json.encode(made)
