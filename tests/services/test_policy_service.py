"""Asking "what if" of real records."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from borough.core.clock import utc_now
from borough.core.errors import Forbidden, Invalid, NotFound
from borough.governance.decisions import Allowed, Denied, NeedsApproval
from tests.services.tool_shop import Shop, agents_own, manifest, opened, operator

pytestmark = pytest.mark.anyio
NARROW = "  policy:\n  - {id: small, effect: allow, capability: 'tool.invoke:echo', when: {at_most: {/n: 2}}}\n"
ASKING = "  policy:\n  - {id: careful, effect: ask, capability: 'tool.invoke:echo'}\n"


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with opened(tmp_path / "state") as shop:
        yield shop


async def test_a_call_is_tried_out_without_being_made(shop: Shop) -> None:
    policy = shop.tooling.policy
    text = manifest("tool.invoke:echo", more=ASKING)
    assert isinstance(await policy.test(operator(), text, "echo", {}), NeedsApproval)
    assert isinstance(await policy.test(operator(), manifest("tool.invoke:echo"), "echo", {}), Allowed)
    denied = await policy.test(operator(), manifest("tool.invoke:*"), "sensitive-op", {}, tainted=True)
    assert isinstance(denied, Denied)
    assert denied.code == "tainted"
    with pytest.raises(Invalid):
        await policy.test(operator(), "no manifest", "echo", {})
    assert await shop.entries() == []


async def test_past_calls_are_decided_again_under_a_changed_manifest(shop: Shop) -> None:
    agent = await shop.echoing()
    me, invoke = agents_own(agent), shop.tooling.tools.invoke
    for n in (1, 2, 3, 4):
        await invoke(me, agent.id, "echo", {"n": n})
    await invoke(me, agent.id, "echo", {"n": 1, "long": "x" * 20_000})
    with pytest.raises(Forbidden):
        await invoke(me, agent.id, "agent.info", {})
    simulate = shop.tooling.policy.simulate
    same = await simulate(operator(), manifest("tool.invoke:echo"), agent=agent.id)
    assert (same.calls, same.simulation.same, same.simulation.changed) == (6, 5, ())
    assert len(same.simulation.undecidable) == 1
    found = await simulate(operator(), manifest("tool.invoke:agent.info", more=NARROW), agent="worker")
    changed = [(each.call.tool, each.call.verdict, each.decision.verdict) for each in found.simulation.changed]
    assert changed == [
        ("echo", "allowed", "denied"),
        ("echo", "allowed", "denied"),
        ("agent.info", "denied", "allowed"),
    ]
    later = await simulate(operator(), manifest(), agent=agent.id, since=utc_now() + timedelta(seconds=5))
    assert later.calls == 0
    with pytest.raises(Invalid) as nobody:
        await simulate(operator(), manifest(), agent="nobody")
    assert nobody.value.code == "unknown_agent"


async def test_a_call_that_was_agreed_to_counts_once(shop: Shop) -> None:
    agent = await shop.agent(manifest(more=ASKING))
    pending = await shop.tooling.tools.invoke(agents_own(agent), agent.id, "echo", {"n": 1}, wait=False)
    await shop.tooling.approvals.approve(operator(), str(pending.approval_id))
    found = await shop.tooling.policy.simulate(operator(), manifest("tool.invoke:echo"), agent=agent.id)
    assert found.calls == 1
    (change,) = found.simulation.changed
    assert (change.call.verdict, change.decision.verdict) == ("approval", "allowed")


async def test_a_manifest_on_trial_has_no_effect_and_is_compared(shop: Shop) -> None:
    agent = await shop.echoing()
    policy = shop.tooling.policy
    await policy.put_on_trial(operator(), agent.id, manifest(more=NARROW))
    for n in (1, 5):
        made = await shop.tooling.tools.invoke(agents_own(agent), agent.id, "echo", {"n": n})
        assert made.status == "success"
    trial = await policy.trial(operator(), agent.id)
    assert (trial.calls, trial.differing) == (2, 1)
    (difference,) = trial.differences
    assert (difference.tool, difference.enforced, difference.trial, difference.rule) == (
        "echo", "allowed", "denied", "small",
    )  # fmt: skip
    outcomes = [each["data"]["trial"] for each in await shop.entries("ToolInvoke") if each["kind"] == "outcome"]
    assert [each["verdict"] for each in outcomes] == ["allowed", "denied"]
    ended = await policy.end_trial(operator(), agent.id)
    assert ended.calls == 2
    with pytest.raises(NotFound):
        await policy.trial(operator(), agent.id)
    with pytest.raises(NotFound):
        await policy.end_trial(operator(), agent.id)
