"""Requests for agreement: decided once, nobody's agreement lost, whoever waits hears of it."""

import asyncio
from dataclasses import replace

import pytest

from borough.core.errors import Conflict, NotFound
from borough.core.ids import AgentId, new_id
from borough.governance.approvals import Approval, ApprovalState, approve, deny
from borough.governance.lifecycle import Status
from borough.governance.ports.tools import Approvals
from tests.contracts.governance_kit import MANIFEST, NOON, SECOND, House, new_agent

pytestmark = pytest.mark.anyio
LONG_S = 30.0


@pytest.fixture
def approvals(house: House) -> Approvals:
    return house.stores.approvals


def new_approval(*, needed: int = 1, agent_id: AgentId | None = None) -> Approval:
    return Approval(
        id=new_id(),
        agent_id=agent_id or AgentId(new_id()),
        tool="sandbox.exec",
        call_digest="c" * 64,
        shown={"code": "ls", "deep": [1, 2.5, None]},
        rule="spec.policy[0]",
        submitted_at=NOON,
        expires_at=NOON + 60 * SECOND,
        needed=needed,
    )


async def test_what_waits_is_listed_oldest_first_over_a_restart(house: House, approvals: Approvals) -> None:
    requests = [new_approval() for _ in range(3)]
    for each in (*requests, requests[0]):
        await approvals.add(each)
    await approvals.replace(deny(requests[1], by="eve", at=NOON), was=ApprovalState.PENDING)
    approvals = (await house.reopen()).approvals
    assert await approvals.waiting() == (requests[0], requests[2])
    assert await approvals.get(requests[1].id) == deny(requests[1], by="eve", at=NOON)
    assert (await approvals.decided(requests[1].id, timeout_s=0)).state is ApprovalState.DENIED


async def test_a_request_is_decided_once(approvals: Approvals) -> None:
    request = new_approval()
    await approvals.add(request)
    decisions = [approve(request, by="ada", at=NOON), deny(request, by="eve", at=NOON)]
    outcomes = await asyncio.gather(
        *(approvals.replace(each, was=ApprovalState.PENDING) for each in decisions), return_exceptions=True
    )
    assert [type(each).__name__ for each in outcomes] == ["NoneType", "Conflict"]
    assert await approvals.get(request.id) == decisions[0]


async def test_of_two_who_agree_at_once_none_is_lost(approvals: Approvals) -> None:
    request = new_approval(needed=2)
    await approvals.add(request)
    await approvals.replace(approve(request, by="ada", at=NOON), was=ApprovalState.PENDING)
    with pytest.raises(Conflict) as refused:
        await approvals.replace(approve(request, by="bob", at=NOON), was=ApprovalState.PENDING)
    assert refused.value.code == "stale_approval"
    both = approve(await approvals.get(request.id), by="bob", at=NOON)
    await approvals.replace(both, was=ApprovalState.PENDING)
    assert (await approvals.get(request.id)).approved_by == ("ada", "bob")
    await approvals.replace(replace(both, state=ApprovalState.USED), was=ApprovalState.APPROVED)
    with pytest.raises(Conflict):
        await approvals.replace(replace(both, state=ApprovalState.USED), was=ApprovalState.APPROVED)


async def test_all_who_wait_hear_of_the_decision(approvals: Approvals) -> None:
    request = new_approval(needed=2)
    await approvals.add(request)
    waiters = [asyncio.ensure_future(approvals.decided(request.id, timeout_s=LONG_S)) for _ in range(3)]
    half = approve(request, by="ada", at=NOON)
    await approvals.replace(half, was=ApprovalState.PENDING)
    assert not any(each.done() for each in waiters)
    whole = approve(half, by="bob", at=NOON)
    await approvals.replace(whole, was=ApprovalState.PENDING)
    async with asyncio.timeout(LONG_S / 2):
        assert await asyncio.gather(*waiters) == [whole] * 3


async def test_no_decision_falls_between_the_look_and_the_wait(approvals: Approvals) -> None:
    async with asyncio.timeout(LONG_S / 2):
        for _ in range(50):
            request = new_approval()
            await approvals.add(request)
            decision = approve(request, by="ada", at=NOON)
            found, _ = await asyncio.gather(
                approvals.decided(request.id, timeout_s=LONG_S),
                approvals.replace(decision, was=ApprovalState.PENDING),
            )
            assert found == decision


async def test_whoever_waits_too_long_gets_the_request_as_it_is(approvals: Approvals) -> None:
    request = new_approval()
    await approvals.add(request)
    assert await approvals.decided(request.id, timeout_s=0.01) == request


async def test_a_request_that_is_not_there_is_not_found(approvals: Approvals) -> None:
    nothing = new_approval()
    for attempt in (
        approvals.get(nothing.id),
        approvals.decided(nothing.id, timeout_s=LONG_S),
        approvals.replace(nothing, was=ApprovalState.PENDING),
    ):
        with pytest.raises(NotFound) as refused:
            await attempt
        assert refused.value.code == "approval_not_found"


async def test_requests_go_with_their_agent(house: House, approvals: Approvals) -> None:
    agent = new_agent()
    request = new_approval(agent_id=agent.id)
    await house.stores.agents.add(agent, MANIFEST)
    await approvals.add(request)
    await house.stores.agents.set_status(agent.id, run_id=agent.run_id, was=Status.RUNNING, to=Status.KILLED, at=NOON)
    await house.stores.agents.forget(ended_before=NOON + SECOND)
    assert await approvals.waiting() == ()
