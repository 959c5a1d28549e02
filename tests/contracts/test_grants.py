"""Grants: read from memory, kept on disk, gone once revoked or with their agent."""

from dataclasses import replace

import pytest

from borough.core.errors import NotFound
from borough.core.ids import AgentId, new_id
from borough.governance.capabilities import parse_capability
from borough.governance.grants import Grant, revoke
from borough.governance.lifecycle import Status
from borough.governance.ports.register import Grants
from tests.contracts.governance_kit import MANIFEST, NOON, SECOND, House, new_agent

pytestmark = pytest.mark.anyio
ADA = AgentId(new_id())


@pytest.fixture
def grants(house: House) -> Grants:
    return house.stores.grants


def new_grant(agent_id: AgentId = ADA, capability: str = "bus.publish:build.*") -> Grant:
    return Grant(
        id=new_id(),
        agent_id=agent_id,
        capability=parse_capability(capability),
        granted_by="operator",
        granted_at=NOON,
        expires_at=NOON + SECOND,
    )


async def test_grants_are_an_agents_own_in_their_order_over_a_restart(house: House, grants: Grants) -> None:
    ours = [new_grant(), new_grant(capability="fs.read:/workspace/**"), replace(new_grant(), expires_at=None)]
    await grants.add(new_grant(AgentId(new_id())))
    for grant in (*ours, ours[0]):
        await grants.add(grant)
    assert await grants.of(ADA) == tuple(ours)
    assert await (await house.reopen()).grants.of(ADA) == tuple(ours)
    assert await grants.of(AgentId(new_id())) == ()


async def test_a_revoked_grant_is_gone_and_does_not_come_back_by_being_added_again(
    house: House, grants: Grants
) -> None:
    grant, kept = new_grant(), new_grant()
    for each in (grant, kept):
        await grants.add(each)
    await grants.replace(revoke(grant, by="operator", at=NOON))
    await grants.add(grant)
    assert await grants.of(ADA) == (kept,)
    assert await (await house.reopen()).grants.of(ADA) == (kept,)


async def test_a_changed_grant_is_stored_and_one_that_is_not_there_cannot_be_changed(grants: Grants) -> None:
    grant = new_grant()
    with pytest.raises(NotFound) as refused:
        await grants.replace(grant)
    assert refused.value.code == "grant_not_found"
    await grants.add(grant)
    longer = replace(grant, expires_at=NOON + 60 * SECOND)
    await grants.replace(longer)
    assert await grants.of(ADA) == (longer,)


async def test_grants_go_with_their_agent(house: House, grants: Grants) -> None:
    agent = new_agent()
    await house.stores.agents.add(agent, MANIFEST)
    await grants.add(new_grant(agent.id))
    await house.stores.agents.set_status(agent.id, run_id=agent.run_id, was=Status.RUNNING, to=Status.KILLED, at=NOON)
    await house.stores.agents.forget(ended_before=NOON + SECOND)
    assert await grants.of(agent.id) == ()
    assert await (await house.reopen()).grants.of(agent.id) == ()
