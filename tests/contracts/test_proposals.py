"""Proposed tools: kept whole, decided once."""

import asyncio

import pytest

from borough.core.errors import Conflict, NotFound
from borough.core.ids import AgentId, new_id
from borough.governance.ports.tools import Proposals
from borough.governance.tools import (
    Category,
    Implementation,
    Proposal,
    ProposalState,
    Source,
    Tool,
    decide_proposal,
)
from tests.contracts.governance_kit import NOON, House

pytestmark = pytest.mark.anyio


@pytest.fixture
def proposals(house: House) -> Proposals:
    return house.stores.proposals


def new_proposal(name: str = "word.count") -> Proposal:
    tool = Tool(
        name=name,
        description="Counts words",
        category=Category.OUTPUT,
        input_schema={"type": "object", "properties": {"text": {"type": "string", "minLength": 1}}},
        estimated_cost_micros=7,
        requires_approval=True,
        approval_timeout_s=60,
        source=Source.DYNAMIC,
    )
    code = Implementation(kind="sandbox", runtime="python3", code="print(len(input().split()))")
    return Proposal(id=new_id(), agent_id=AgentId(new_id()), tool=tool, implementation=code, created_at=NOON)


async def test_proposals_are_kept_whole_in_their_order_over_a_restart(house: House, proposals: Proposals) -> None:
    first, second = new_proposal(), new_proposal("word.list")
    for each in (first, second, first):
        await proposals.add(each)
    approved = decide_proposal(first, ProposalState.APPROVED, by="ada", at=NOON, everywhere=True)
    await proposals.replace(approved, was=ProposalState.PROPOSED)
    proposals = (await house.reopen()).proposals
    assert await proposals.all(state=None) == (approved, second)
    assert await proposals.all(state=ProposalState.PROPOSED) == (second,)
    assert (await proposals.get(first.id)).tool.pin == first.tool.pin
    assert (await proposals.get(first.id)).implementation.code_sha256 == first.implementation.code_sha256


async def test_a_proposal_is_decided_once(proposals: Proposals) -> None:
    proposal = new_proposal()
    await proposals.add(proposal)
    decisions = [
        decide_proposal(proposal, state, by="ada", at=NOON) for state in (ProposalState.DENIED, ProposalState.APPROVED)
    ]
    outcomes = await asyncio.gather(
        *(proposals.replace(each, was=ProposalState.PROPOSED) for each in decisions), return_exceptions=True
    )
    refused = outcomes[1]
    assert outcomes[0] is None
    assert isinstance(refused, Conflict)
    assert refused.code == "already_decided"
    assert await proposals.get(proposal.id) == decisions[0]


async def test_a_proposal_that_is_not_there_is_not_found(proposals: Proposals) -> None:
    for attempt in (
        proposals.get(new_id()),
        proposals.replace(new_proposal(), was=ProposalState.PROPOSED),
    ):
        with pytest.raises(NotFound) as refused:
            await attempt
        assert refused.value.code == "proposal_not_found"
