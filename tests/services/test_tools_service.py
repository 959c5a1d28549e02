"""Calls of tools on their whole way."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from borough.core.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from borough.core.ids import AgentId, new_id
from borough.governance.escalations import EscalationKind
from borough.governance.lifecycle import Phase
from borough.governance.policy import TOOL_RULE
from tests.services.tool_shop import Shop, agents_own, bound_operator, manifest, opened, operator

pytestmark = pytest.mark.anyio


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with opened(tmp_path / "state") as shop:
        yield shop


async def test_a_call_is_announced_made_and_concluded(shop: Shop) -> None:
    agent = await shop.echoing()
    asker = agents_own(agent)
    made = await shop.tooling.tools.invoke(asker, agent.id, "echo", {"message": "hello"})
    assert (made.status, made.output, made.cost_micros) == ("success", {"message": "hello"}, 100_000)
    assert made.request_id == asker.request_id
    intent, outcome = await shop.entries()
    assert (intent["kind"], intent["outcome"], intent["action"]) == ("intent", "pending", "ToolInvoke")
    assert intent["detail"] == 'echo({"message":"hello"})'
    assert (outcome["kind"], outcome["outcome"], outcome["intent_id"]) == ("outcome", "success", intent["id"])
    assert (outcome["agent_id"], outcome["agent_name"]) == (agent.id, "worker")
    assert outcome["decision_rule"] == "spec.capabilities[0]"
    assert intent["input_sha256"] == outcome["input_sha256"]
    assert orjson.loads(intent["data"]["arguments"]) == {"message": "hello"}
    spent = (await shop.stores.agents.get(agent.id)).spent
    assert (spent.calls, spent.cost_micros) == (1, 100_000)
    assert [(each.tool, each.count, each.cost_micros) for each in shop.tooling.tools.stats()] == [("echo", 1, 100_000)]


async def test_who_has_no_capability_is_refused_in_one_entry(shop: Shop) -> None:
    agent = await shop.echoing()
    with pytest.raises(Forbidden, match=r"access denied: tool\.invoke:agent\.info") as refused:
        await shop.tooling.tools.invoke(agents_own(agent), agent.id, "agent.info", {})
    assert refused.value.code == "denied"
    (entry,) = await shop.entries()
    assert (entry["action"], entry["outcome"], entry["kind"]) == ("AccessDenied", "denied", "event")
    assert entry["decision_rule"] == "default-deny"


async def test_what_is_no_tool_and_what_does_not_fit_is_refused_and_recorded(shop: Shop) -> None:
    agent = await shop.agent(manifest("tool.invoke:*", "fs.read"))
    with pytest.raises(NotFound) as unknown:
        await shop.tooling.tools.invoke(agents_own(agent), agent.id, "no.such", {})
    assert unknown.value.code == "tool_not_found"
    with pytest.raises(Invalid, match=r"invalid request: \$") as misfit:
        await shop.tooling.tools.invoke(agents_own(agent), agent.id, "fs.read", {"path": 5})
    assert misfit.value.code == "invalid_request"
    assert [(each["action"], each["outcome"]) for each in await shop.entries()] == [("ToolInvoke", "denied")] * 2


async def test_agents_that_are_not_there_or_have_ended_call_nothing(shop: Shop) -> None:
    with pytest.raises(NotFound, match="agent not found"):
        await shop.tooling.tools.invoke(operator(), AgentId(new_id()), "echo", {})
    agent = await shop.echoing(phase=Phase.TERMINATE)
    with pytest.raises(Conflict) as ended:
        await shop.tooling.tools.invoke(operator(), agent.id, "echo", {})
    assert ended.value.code == "agent_ended"


async def test_who_acts_for_another_needs_the_permission_of_both(shop: Shop) -> None:
    able, unable = await shop.echoing(), await shop.agent(manifest("obs.append", name="mute"))
    made = await shop.tooling.tools.invoke(operator(), able.id, "echo", {})
    assert made.status == "success"
    for caller, target in ((able, unable), (unable, able)):
        with pytest.raises(Forbidden, match="access denied"):
            await shop.tooling.tools.invoke(bound_operator(caller.id), target.id, "echo", {})
    made = await shop.tooling.tools.invoke(bound_operator(able.id), (await shop.echoing()).id, "echo", {"a": 1})
    assert made.output == {"a": 1}
    with pytest.raises(Forbidden, match="access denied"):
        await shop.tooling.tools.invoke(bound_operator(AgentId(new_id())), able.id, "echo", {})
    with pytest.raises(Forbidden) as stranger:
        await shop.tooling.tools.invoke(agents_own(able), unable.id, "echo", {})
    assert stranger.value.code == "not_related"


async def test_tools_that_may_never_be_called_are_not_shown(shop: Shop) -> None:
    agent = await shop.agent(
        manifest(
            "tool.invoke:*",
            more="  policy:\n  - {effect: deny, capability: 'tool.invoke:lm.*'}\n"
            "  - {effect: deny, capability: 'tool.invoke:echo', when: {arguments: {/a: 'b'}}}\n",
        )
    )
    shown = {tool.name for tool in await shop.tooling.tools.list(agents_own(agent), agent.id)}
    assert {"echo", "agent.info", "fs.read", "sensitive-op"} <= shown
    assert not shown & {"lm.chat", "sandbox.exec"}
    every = {tool.name for tool in await shop.tooling.tools.all(operator())}
    assert {"lm.chat", "sandbox.exec"} <= every


async def test_agent_info_tells_the_phase_in_small_letters(shop: Shop) -> None:
    agent = await shop.agent(manifest("tool.invoke:agent.info"))
    made = await shop.tooling.tools.invoke(agents_own(agent), agent.id, "agent.info", {})
    assert made.output == {"id": agent.id, "name": "worker", "trust_level": "trusted", "lifecycle_state": "plan"}


async def test_two_hundred_calls_at_once_all_end_and_are_all_recorded(shop: Shop) -> None:
    agent = await shop.echoing()
    calls = [shop.tooling.tools.invoke(agents_own(agent), agent.id, "echo", {"n": n}) for n in range(200)]
    made = await asyncio.gather(*calls)
    assert [each.output for each in made] == [{"n": n} for n in range(200)]
    entries = await shop.entries()
    intents = {each["id"] for each in entries if each["kind"] == "intent"}
    assert len(intents) == 200
    assert {each["intent_id"] for each in entries if each["kind"] == "outcome"} == intents
    assert (await shop.stores.agents.get(agent.id)).spent.calls == 200
    assert await shop.ledger.open_intents() == ()


async def test_a_budget_holds_with_many_calls_at_once_and_is_told_of(shop: Shop) -> None:
    agent = await shop.agent(manifest("tool.invoke:echo", more="  budget: {calls: 10, cost: 5}\n"))
    calls = [shop.tooling.tools.invoke(agents_own(agent), agent.id, "echo", {"n": n}) for n in range(40)]
    made = await asyncio.gather(*calls, return_exceptions=True)
    refused = [each for each in made if isinstance(each, Forbidden)]
    assert (len(refused), {each.code for each in refused}) == (30, {"budget_exceeded"})
    assert refused[0].details["retry_after_s"]
    assert len(await shop.entries("BudgetWarning")) == 1
    (over,) = await shop.entries("BudgetExceeded")
    assert over["detail"] == "10 of 10 calls used"
    (escalation,) = await shop.tooling.escalations.open(operator())
    assert (escalation.kind, escalation.from_agent_id) == (EscalationKind.BUDGET_EXCEEDED, agent.id)


async def test_a_rate_holds_with_many_calls_at_once(shop: Shop) -> None:
    rule = "  policy:\n  - {id: slow, effect: allow, capability: 'tool.invoke:echo', when: {rate_per_minute: 3}}\n"
    agent = await shop.agent(manifest(more=rule))
    calls = [shop.tooling.tools.invoke(agents_own(agent), agent.id, "echo", {}) for _ in range(9)]
    made = await asyncio.gather(*calls, return_exceptions=True)
    assert [each.code for each in made if isinstance(each, Forbidden)] == ["rate_exceeded"] * 6


async def test_who_stops_waiting_does_not_stop_the_call(shop: Shop) -> None:
    agent = await shop.echoing()
    call = asyncio.ensure_future(shop.tooling.tools.invoke(agents_own(agent), agent.id, "echo", {}))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await shop.tooling.tools.drain(within_s=10)
    assert [each["outcome"] for each in await shop.entries()] == ["pending", "success"]


async def test_long_arguments_are_recorded_by_their_digest(shop: Shop) -> None:
    agent = await shop.echoing()
    await shop.tooling.tools.invoke(agents_own(agent), agent.id, "echo", {"text": "x" * 100_000})
    intent, _ = await shop.entries()
    assert "arguments" not in intent["data"]
    assert len(intent["detail"]) < 1200
    assert len(intent["input_sha256"]) == 64


async def test_when_the_ledger_cannot_be_written_nothing_is_done(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as shop:
        agent = await shop.echoing()
        await shop.ledger._database.close()
        with pytest.raises(Unavailable) as refused:
            await shop.tooling.tools.invoke(agents_own(agent), agent.id, "echo", {})
        assert refused.value.code == "ledger_unavailable"
        assert (await shop.stores.agents.get(agent.id)).spent.cost_micros == 0
        assert shop.tooling.tools.stats() == ()


async def test_sensitive_things_take_an_agreement_by_the_tool_itself(shop: Shop) -> None:
    agent = await shop.agent(manifest("tool.invoke:sensitive-op"))
    pending = await shop.tooling.tools.invoke(agents_own(agent), agent.id, "sensitive-op", {"a": 1}, wait=False)
    assert pending.status == "pending"
    assert pending.approval_id == pending.request_id
    (waiting,) = await shop.tooling.approvals.waiting(operator())
    assert (waiting.tool, waiting.rule, waiting.shown) == ("sensitive-op", TOOL_RULE, {"a": 1})
