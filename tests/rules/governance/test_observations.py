"""Observations: one chain for each agent; any change is found."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.core.errors import Invalid
from borough.core.ids import AgentId
from borough.governance.observations import (
    GENESIS_HASH,
    NewObservation,
    Observation,
    ObservationFilter,
    chained,
    check_observation,
    first_broken,
    matches,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def chain(count: int) -> list[Observation]:
    observations: list[Observation] = []
    prev = GENESIS_HASH
    for number in range(count):
        new = NewObservation(action="Read", result=f"result {number}", tags=("a", "b"), metadata={"n": 0.5})
        at = NOON + timedelta(minutes=number)
        observations.append(chained(new, id=str(number), agent_id=AgentId("a"), at=at, prev_hash=prev))
        prev = observations[-1].hash
    return observations


@given(
    st.integers(0, 4),
    st.sampled_from(
        [
            {"action": "Write"},
            {"result": ""},
            {"tags": ("ab",)},
            {"metadata": None},
            {"id": "x"},
            {"agent_id": AgentId("b")},
            {"at": NOON - timedelta(days=1)},
            {"hash": GENESIS_HASH},
            {"prev_hash": "f" * 64},
        ]
    ),
)
def test_any_change_is_found_at_its_place(place: int, change: dict[str, object]) -> None:
    observations = chain(5)
    assert first_broken(observations) is None
    observations[place] = replace(observations[place], **change)  # type: ignore[arg-type] # fields by name
    assert first_broken(observations) == place


def test_a_missing_observation_is_found() -> None:
    observations = chain(5)
    assert first_broken(observations[1:]) == 0
    assert first_broken(observations[2:], prev_hash=observations[1].hash) is None
    assert first_broken([*observations[:2], *observations[3:]]) == 2


def test_observations_are_found_by_time_tag_and_words() -> None:
    each = chain(1)[0]
    for wanted, found in (
        (ObservationFilter(since=NOON, until=NOON), True),
        (ObservationFilter(since=NOON + timedelta(seconds=1)), False),
        (ObservationFilter(tag="a"), True),
        (ObservationFilter(tag="c"), False),
        (ObservationFilter(keyword="RESULT 0"), True),
        (ObservationFilter(keyword="read"), True),
        (ObservationFilter(keyword="other"), False),
    ):
        assert matches(each, wanted) is found


@pytest.mark.parametrize(
    "new",
    [
        NewObservation(action="", result=""),
        NewObservation(action="a", result="b" * 70_000),
        NewObservation(action="a", result="", tags=("",)),
        NewObservation(action="a", result="", tags=("t",) * 40),
    ],
)
def test_what_cannot_be_kept_is_refused(new: NewObservation) -> None:
    with pytest.raises(Invalid):
        check_observation(new)
