"""Calls that wait for people."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from borough.core.clock import utc_now
from borough.core.errors import Conflict, Forbidden
from borough.governance.agents import GovernedAgent
from borough.governance.approvals import Approval, ApprovalState
from borough.governance.services.calls import Invocation
from tests.conftest import eventually
from tests.services.tool_shop import Shop, agents_own, bound_operator, manifest, opened, operator

pytestmark = pytest.mark.anyio
ASKING = "  policy:\n  - {id: careful, effect: ask, capability: 'tool.invoke:echo'}\n"
BOTH = "  policy:\n  - {id: two, effect: ask, capability: 'tool.invoke:echo', approvers: 2}\n"


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with opened(tmp_path / "state") as shop:
        yield shop


async def waiting(shop: Shop) -> Approval:
    async def some() -> bool:
        return bool(await shop.tooling.approvals.waiting(operator()))

    await eventually(some)
    (approval,) = await shop.tooling.approvals.waiting(operator())
    return approval


def calling(shop: Shop, agent: GovernedAgent, **arguments: Any) -> "asyncio.Task[Invocation]":
    return asyncio.ensure_future(shop.tooling.tools.invoke(agents_own(agent), agent.id, "echo", arguments))


async def test_a_call_goes_on_once_somebody_agreed(shop: Shop) -> None:
    agent = await shop.agent(manifest(more=ASKING))
    call = calling(shop, agent, n=1)
    approval = await waiting(shop)
    assert (approval.tool, approval.rule, approval.shown) == ("echo", "careful", {"n": 1})
    decided = await shop.tooling.approvals.approve(operator(), approval.id, operator="grace")
    assert (decided.state, decided.decided_by) == (ApprovalState.USED, "grace")
    made = await call
    assert (made.status, made.output, made.request_id) == ("success", {"n": 1}, approval.id)
    told = [(each["action"], each["kind"], each["outcome"]) for each in await shop.entries()]
    assert told == [
        ("ApprovalRequested", "event", "pending"),
        ("HumanApproval", "intent", "pending"),
        ("HumanApproval", "outcome", "success"),
        ("ToolInvoke", "intent", "pending"),
        ("ToolInvoke", "outcome", "success"),
    ]
    assert {each["policy_id"] for each in await shop.entries() if each["kind"] != "intent"} == {approval.id}
    with pytest.raises(Conflict) as again:
        await shop.tooling.approvals.deny(operator(), approval.id)
    assert again.value.code == "already_decided"


async def test_a_call_that_somebody_refused_is_not_made(shop: Shop) -> None:
    agent = await shop.agent(manifest(more=ASKING))
    call = calling(shop, agent)
    approval = await waiting(shop)
    await shop.tooling.approvals.deny(operator(), approval.id, operator="grace")
    with pytest.raises(Forbidden, match="denied by operator") as refused:
        await call
    assert refused.value.code == "human_denied"
    assert await shop.entries("ToolInvoke") == []


async def test_who_does_not_wait_finds_the_result_later(shop: Shop) -> None:
    agent = await shop.agent(manifest(more=ASKING))
    me = agents_own(agent)
    pending = await shop.tooling.tools.invoke(me, agent.id, "echo", {"n": 2}, wait=False)
    assert pending.status == "pending"
    assert pending.approval_id is not None
    assert (await shop.tooling.approvals.get(me, pending.approval_id))[1] is None
    await shop.tooling.approvals.approve(operator(), pending.approval_id)
    approval, kept = await shop.tooling.approvals.get(me, pending.approval_id)
    assert approval.state is ApprovalState.USED
    assert kept is not None
    assert kept.invocation is not None
    assert kept.invocation.output == {"n": 2}


async def test_agents_never_agree_not_even_to_their_childrens_calls(shop: Shop) -> None:
    parent = await shop.echoing()
    agent = await shop.agent(manifest(more=ASKING), parent=parent)
    pending = await shop.tooling.tools.invoke(agents_own(agent), agent.id, "echo", {}, wait=False)
    for who in (agent, parent):
        with pytest.raises(Forbidden):
            await shop.tooling.approvals.approve(agents_own(who), str(pending.approval_id))
    assert len(await shop.tooling.approvals.waiting(agents_own(parent))) == 1
    assert await shop.tooling.approvals.waiting(agents_own(await shop.echoing())) == ()


async def test_where_two_have_to_agree_one_is_not_enough_however_often(shop: Shop) -> None:
    agent = await shop.agent(manifest(more=BOTH))
    call = calling(shop, agent)
    approval = await waiting(shop)
    assert approval.needed == 2
    for name in ("ada", "ada", "bob"):
        assert not call.done()
        # A name that is only claimed does not make another person of the same key.
        await shop.tooling.approvals.approve(bound_operator(agent.id, name), approval.id, operator=f"{name}-again")
    assert (await call).status == "success"
    assert (await shop.stores.approvals.get(approval.id)).approved_by == ("ada", "bob")


async def test_nobody_agreeing_in_time_is_a_refusal(shop: Shop) -> None:
    agent = await shop.agent(manifest(more=ASKING))
    call = calling(shop, agent)
    approval = await waiting(shop)
    assert await shop.tooling.approvals.sweep(at=utc_now() + timedelta(seconds=301)) == 1
    with pytest.raises(Forbidden) as late:
        await call
    assert late.value.code == "approval_timeout"
    assert (await shop.stores.approvals.get(approval.id)).state is ApprovalState.EXPIRED
    assert (await shop.entries("HumanApproval"))[-1]["outcome"] == "timeout"


async def test_what_is_not_allowed_any_more_is_not_made_though_agreed_to(shop: Shop) -> None:
    rule = "  budget: {calls: 1}\n" + ASKING + "  - {effect: allow, capability: 'tool.invoke:agent.info'}\n"
    agent = await shop.agent(manifest(more=rule))
    pending = await shop.tooling.tools.invoke(agents_own(agent), agent.id, "echo", {}, wait=False)
    await shop.tooling.tools.invoke(agents_own(agent), agent.id, "agent.info", {})
    decided = await shop.tooling.approvals.approve(operator(), str(pending.approval_id))
    assert decided.state is ApprovalState.USED
    _, kept = await shop.tooling.approvals.get(operator(), str(pending.approval_id))
    assert kept is not None
    assert kept.refusal is not None
    assert kept.refusal.code == "budget_exceeded"


async def test_of_many_who_agree_at_once_one_has_the_call_made(shop: Shop) -> None:
    agent = await shop.agent(manifest(more=ASKING))
    pending = await shop.tooling.tools.invoke(agents_own(agent), agent.id, "echo", {}, wait=False)
    approvals = shop.tooling.approvals
    found = await asyncio.gather(
        *(approvals.approve(operator(), str(pending.approval_id)) for _ in range(5)), return_exceptions=True
    )
    assert {each.code for each in found if isinstance(each, Conflict)} <= {"stale_approval", "already_decided"}
    assert len([each for each in found if isinstance(each, Approval)]) >= 1
    assert len([each for each in await shop.entries("ToolInvoke") if each["kind"] == "outcome"]) == 1


async def test_what_an_agent_waited_for_ends_with_it(shop: Shop) -> None:
    agent = await shop.agent(manifest(more=ASKING))
    call = calling(shop, agent)
    approval = await waiting(shop)
    await shop.tooling.on_end(agent.id)
    with pytest.raises(Conflict) as ended:
        await call
    assert ended.value.code == "approval_cancelled"
    assert (await shop.stores.approvals.get(approval.id)).state is ApprovalState.CANCELLED


async def test_a_request_outlives_the_daemon(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as before:
        agent = await before.agent(manifest(more=ASKING))
        plain = await before.tooling.tools.invoke(agents_own(agent), agent.id, "echo", {"n": 3}, wait=False)
        await before.secrets.unlock(b"a passphrase")
        await before.secrets.put("key", b"not-to-be-shown-9", description=None)
        await before.know_secrets()
        hiding = await before.tooling.tools.invoke(
            agents_own(agent), agent.id, "echo", {"n": "not-to-be-shown-9"}, wait=False
        )
    async with opened(tmp_path / "state") as after:
        approvals = after.tooling.approvals
        assert (await approvals.approve(operator(), str(plain.approval_id))).state is ApprovalState.USED
        _, kept = await approvals.get(operator(), str(plain.approval_id))
        assert kept is not None
        assert kept.invocation is not None
        assert kept.invocation.output == {"n": 3}
        # What was not written down because it held a secret cannot be made after all; that is said.
        await approvals.approve(operator(), str(hiding.approval_id))
        _, kept = await approvals.get(operator(), str(hiding.approval_id))
        assert kept is not None
        assert kept.refusal is not None
        assert kept.refusal.code == "approval_mismatch"
