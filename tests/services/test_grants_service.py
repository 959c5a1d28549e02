"""Capabilities given, taken back, and asked for."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import orjson
import pytest

from borough.core.clock import utc_now
from borough.core.errors import Conflict, Forbidden, Invalid, NotFound
from borough.governance.escalations import EscalationState
from borough.governance.lifecycle import Phase, Status
from tests.services.tool_shop import Shop, agents_own, bound_operator, manifest, opened, operator

pytestmark = pytest.mark.anyio


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with opened(tmp_path / "state") as shop:
        yield shop


async def test_a_grant_holds_at_once_and_no_longer_than_it_is_meant_to(shop: Shop) -> None:
    agent = await shop.agent(manifest())
    me, invoke = agents_own(agent), shop.tooling.tools.invoke
    with pytest.raises(Forbidden):
        await invoke(me, agent.id, "echo", {})
    grant = await shop.tooling.grants.issue(operator(), agent.id, "tool.invoke:echo", ttl_s=60)
    assert (await invoke(me, agent.id, "echo", {})).status == "success"
    assert grant.granted_by == "operator"
    assert [each.id for each in await shop.tooling.grants.of(me, agent.id)] == [grant.id]
    await shop.tooling.grants.revoke(operator(), agent.id, grant.id)
    with pytest.raises(Forbidden):
        await invoke(me, agent.id, "echo", {})
    with pytest.raises(NotFound):
        await shop.tooling.grants.revoke(operator(), agent.id, grant.id)
    told = [(each["action"], each["outcome"]) for each in await shop.entries("CapabilityGrant", "CapabilityRevoke")]
    assert told == [
        ("CapabilityGrant", "pending"),
        ("CapabilityGrant", "success"),
        ("CapabilityRevoke", "pending"),
        ("CapabilityRevoke", "success"),
    ]


async def test_grants_keep_below_the_ceiling_and_end_in_time(shop: Shop) -> None:
    agent = await shop.agent(manifest(trust="sandboxed"))
    with pytest.raises(Forbidden) as above:
        await shop.tooling.grants.issue(operator(), agent.id, "fs.write")
    assert above.value.code == "over_ceiling"
    with pytest.raises(Invalid) as over:
        await shop.tooling.grants.issue(operator(), agent.id, "obs.append", ttl_s=0)
    assert over.value.code == "invalid_expiry"
    await shop.tooling.grants.issue(operator(), agent.id, "obs.append", ttl_s=60)
    assert await shop.tooling.grants.sweep() == 0
    assert await shop.tooling.grants.sweep(at=utc_now() + timedelta(seconds=61)) == 1
    assert await shop.stores.grants.of(agent.id) == ()
    refused = [each for each in await shop.entries("CapabilityGrant") if each["outcome"] == "denied"]
    assert [each["data"]["code"] for each in refused] == ["over_ceiling"]


async def test_a_parent_gives_its_children_a_part_of_its_own(shop: Shop) -> None:
    parent = await shop.agent(manifest("tool.invoke:echo", "fs.read:/workspace/**", name="parent"))
    child = await shop.agent(manifest(), parent=parent)
    me = agents_own(parent)
    assert await shop.tooling.grants.issue(me, child.id, "fs.read:/workspace/notes/*")
    with pytest.raises(Forbidden) as beyond:
        await shop.tooling.grants.issue(me, child.id, "fs.read:/etc/**")
    assert beyond.value.code == "capability_escalation_denied"
    for other in (parent, await shop.echoing()):
        with pytest.raises(Forbidden) as unrelated:
            await shop.tooling.grants.issue(me, other.id, "tool.invoke:echo")
        assert unrelated.value.code in {"not_related", "denied"}
    with pytest.raises(Forbidden):
        await shop.tooling.grants.issue(agents_own(child), parent.id, "tool.invoke:echo")
    own = [each for each in await shop.entries("CapabilityGrant") if each["agent_id"] == parent.id]
    assert {each["agent_name"] for each in own} == {"parent"}
    await shop.tooling.on_end(child.id)
    assert await shop.stores.grants.of(child.id) == ()


async def test_a_request_goes_to_the_parent_first_and_to_people_last(shop: Shop) -> None:
    root = await shop.agent(manifest("tool.invoke:echo", name="root"))
    middle = await shop.agent(manifest("obs.append", name="middle"), parent=root)
    child = await shop.agent(manifest(name="child"), parent=middle)
    made = await shop.tooling.escalations.request_capability(
        agents_own(child), child.id, "tool.invoke:echo", reason="to say it again", ttl_s=60
    )
    assert made.to_agent_id == middle.id
    (message,) = (await shop.bus.poll(middle.id)).messages
    assert message.topic == f"scarab.escalation.{middle.id}"
    told = orjson.loads(message.payload)
    assert (told["type"], told["capability"], told["agent_id"]) == ("CapabilityRequest", "tool.invoke:echo", child.id)
    resolve = shop.tooling.escalations.resolve
    with pytest.raises(Forbidden):
        await resolve(agents_own(root), made.id, "approve")
    with pytest.raises(Forbidden) as beyond:
        await resolve(agents_own(middle), made.id, "approve")
    assert beyond.value.code == "capability_escalation_denied"
    passed = await resolve(agents_own(middle), made.id, "pass_up")
    assert (passed.to_agent_id, passed.passed_by) == (root.id, (middle.id,))
    assert [each.id for each in await shop.tooling.escalations.open(agents_own(root))] == [made.id]
    done = await resolve(agents_own(root), made.id, "approve")
    assert done.state is EscalationState.APPROVED
    assert (await shop.tooling.tools.invoke(agents_own(child), child.id, "echo", {})).status == "success"
    assert orjson.loads((await shop.bus.poll(child.id)).messages[0].payload)["state"] == "approved"
    with pytest.raises(Conflict) as decided:
        await resolve(operator(), made.id, "deny")
    assert decided.value.code == "already_decided"


async def test_at_the_top_people_decide(shop: Shop) -> None:
    root = await shop.agent(manifest(name="root"))
    made = await shop.tooling.escalations.request_capability(agents_own(root), root.id, "obs.append", reason="")
    assert made.to_agent_id is None
    with pytest.raises(Forbidden):
        await shop.tooling.escalations.resolve(agents_own(root), made.id, "approve")
    with pytest.raises(Conflict) as top:
        await shop.tooling.escalations.resolve(bound_operator(root.id), made.id, "pass_up")
    assert top.value.code == "at_the_top"
    denied = await shop.tooling.escalations.resolve(operator(), made.id, "deny", reason="not before the audit")
    assert denied.state is EscalationState.DENIED
    [heard] = (await shop.bus.poll(root.id)).messages
    assert "not before the audit" in heard.payload
    assert await shop.stores.grants.of(root.id) == ()
    assert await shop.tooling.escalations.open(operator()) == ()
    with pytest.raises(Invalid):
        await shop.tooling.escalations.request_capability(agents_own(root), root.id, "no such thing", reason="")


async def test_what_an_ended_agent_did_not_decide_goes_on_upwards(shop: Shop) -> None:
    root = await shop.agent(manifest(name="root"))
    middle = await shop.agent(manifest(name="middle"), parent=root)
    child = await shop.agent(manifest(name="child"), parent=middle)
    made = await shop.tooling.escalations.request_capability(agents_own(child), child.id, "obs.append", reason="")
    await shop.stores.agents.set_status(
        middle.id, run_id=middle.run_id, was=Status.RUNNING, to=Status.KILLED, at=utc_now()
    )
    await shop.stores.agents.move(middle.id, run_id=middle.run_id, was=Phase.PLAN, to=Phase.TERMINATE, at=utc_now())
    await shop.tooling.on_end(middle.id)
    assert (await shop.stores.escalations.get(made.id)).to_agent_id == root.id
    await shop.tooling.on_end(child.id)
    assert (await shop.stores.escalations.get(made.id)).state is EscalationState.CANCELLED
