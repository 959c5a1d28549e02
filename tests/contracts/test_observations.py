"""Observations: one unbroken chain an agent, and found again by every filter as the rule would."""

import asyncio
from collections.abc import Mapping

import pytest

from borough.core.errors import Conflict, Invalid
from borough.core.ids import AgentId, new_id
from borough.governance.observations import (
    GENESIS_HASH,
    NewObservation,
    Observation,
    ObservationFilter,
    first_broken,
    matches,
)
from borough.governance.ports.records import Observations
from tests.contracts.governance_kit import NOON, SECOND, House

pytestmark = pytest.mark.anyio
ADA, BOB = AgentId(new_id()), AgentId(new_id())
EVERYTHING = ObservationFilter(limit=1000)


@pytest.fixture
def observations(house: House) -> Observations:
    return house.stores.observations


async def say(
    observations: Observations,
    action: str,
    result: str = "",
    *,
    after_s: float = 0,
    tags: tuple[str, ...] = (),
    metadata: Mapping[str, object] | None = None,
    agent_id: AgentId = ADA,
    id_: str | None = None,
) -> Observation:
    new = NewObservation(action=action, result=result, tags=tags, metadata=metadata)
    return await observations.append(agent_id, new, id=id_ or new_id(), at=NOON + after_s * SECOND)


async def test_each_agent_has_a_chain_of_its_own_that_verifies_after_a_restart(
    house: House, observations: Observations
) -> None:
    said = [
        await say(observations, "Plan", "read", metadata={"z": 1.5, "a": [None, True]}, tags=("x", "y")),
        await say(observations, "ToolResult", "näïve \0 \U0001f600", after_s=0.0006),
        await say(observations, "Plan", "write", after_s=2),
    ]
    other = await say(observations, "Plan", agent_id=BOB)
    assert (said[0].prev_hash, other.prev_hash, said[1].prev_hash) == (GENESIS_HASH, GENESIS_HASH, said[0].hash)
    found = await (await house.reopen()).observations.find(ADA, EVERYTHING)
    assert found == tuple(said)
    assert first_broken(found) is None


async def test_appends_of_many_at_once_are_one_chain(observations: Observations) -> None:
    await asyncio.gather(*(say(observations, f"step {number}", after_s=number % 7) for number in range(60)))
    found = await observations.find(ADA, EVERYTHING)
    assert len(found) == 60
    assert first_broken(found) is None
    assert [each.at for each in found] == sorted(each.at for each in found)


async def test_saying_the_same_again_is_kept_once_and_an_id_is_one_agents(observations: Observations) -> None:
    first = await say(observations, "Plan", id_="o-1")
    await say(observations, "Act")
    assert await say(observations, "Plan", id_="o-1") == first
    assert len(await observations.find(ADA, EVERYTHING)) == 2
    with pytest.raises(Conflict) as refused:
        await say(observations, "Plan", id_="o-1", agent_id=BOB)
    assert refused.value.code == "observation_exists"


async def test_what_cannot_be_kept_leaves_no_link(observations: Observations) -> None:
    with pytest.raises(Invalid):
        await say(observations, "")
    await say(observations, "Plan")
    assert first_broken(await observations.find(ADA, EVERYTHING)) is None


async def test_times_never_run_backwards_in_a_chain(observations: Observations) -> None:
    await say(observations, "first", after_s=10)
    await say(observations, "second", after_s=5)
    found = await observations.find(ADA, EVERYTHING)
    assert [(each.action, each.at) for each in found] == [("first", NOON + 10 * SECOND), ("second", NOON + 10 * SECOND)]
    assert first_broken(found) is None


FILTERS = (
    EVERYTHING,
    ObservationFilter(limit=3),
    ObservationFilter(tag="odd"),
    ObservationFilter(tag="odd", limit=2),
    ObservationFilter(tag="none"),
    ObservationFilter(keyword="STRASSE"),
    ObservationFilter(keyword="straße", limit=1),
    ObservationFilter(keyword='say "hi"'),
    ObservationFilter(keyword="re"),
    ObservationFilter(keyword="%_*"),
    ObservationFilter(keyword="a\0b"),
    ObservationFilter(keyword="tail"),
    ObservationFilter(keyword="nowhere"),
    ObservationFilter(since=NOON + 3 * SECOND),
    ObservationFilter(until=NOON + 3 * SECOND),
    ObservationFilter(since=NOON + 2 * SECOND, until=NOON + 4 * SECOND, tag="odd", keyword="read"),
    ObservationFilter(since=NOON + 90 * SECOND),
    ObservationFilter(limit=0),
)


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
async def test_a_filter_finds_the_newest_that_the_rule_says_oldest_first(
    observations: Observations, wanted: ObservationFilter
) -> None:
    texts = ("Read Straße", 'they say "hi"', "READ 100 %_* sure", "a\0b then tail", "write", "ready, STRASSE")
    everything = [
        await say(
            observations, text, f"result {number}", after_s=number, tags=("odd",) if number % 2 else ("even", "odd2")
        )
        for number, text in enumerate(texts * 2)
    ]
    for text in texts:
        await say(observations, text, agent_id=BOB, tags=("odd",))
    expected = [each for each in everything if matches(each, wanted)]
    assert await observations.find(ADA, wanted) == tuple(expected[max(0, len(expected) - wanted.limit) :])
