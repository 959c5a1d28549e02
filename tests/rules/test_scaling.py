"""The signal, case by case as the reference page and its worked examples define it."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.town.agents import AgentState
from borough.town.scaling import AgentReading, Recommendation, Snapshot, signal

NOW = datetime(2026, 4, 4, 18, tzinfo=UTC)


def agent(state: AgentState, *, idle_s: float = 0, lease_s: float | None = 10, beat_s: float = 0) -> AgentReading:
    return AgentReading(
        state=state,
        last_active_at=NOW - timedelta(seconds=idle_s),
        last_heartbeat=NOW - timedelta(seconds=beat_s),
        lease_expires_at=None if lease_s is None else NOW + timedelta(seconds=lease_s),
    )


def snapshot(*agents: AgentReading, backlog: int = 0, assigned: int = 0, in_flight: int = 0) -> Snapshot:
    return Snapshot(
        at=NOW,
        backlog=backlog,
        assigned=assigned,
        urgent=0,
        in_flight=in_flight,
        delayed=0,
        dead_letters=0,
        completed_total=0,
        agents=agents,
        missions_active=0,
        mission_open=False,
        mission_last_tick=None,
    )


def recommend(found: Snapshot, *, max_agents: int = 10, timeout_s: int = 300) -> Recommendation:
    return signal(found, max_agents=max_agents, idle_timeout=timedelta(seconds=timeout_s)).recommendation


def test_one_starting_agent_and_two_tasks_want_one_more() -> None:
    found = signal(
        snapshot(agent(AgentState.STARTING, lease_s=None), backlog=1, assigned=1),
        max_agents=10,
        idle_timeout=timedelta(seconds=300),
    )
    assert (found.queue_depth, found.pending_tasks, found.in_flight_tasks) == (2, 2, 0)
    assert (found.active_agents, found.desired_agents) == (1, 2)
    assert found.recommendation is Recommendation.SCALE_UP


def test_an_agent_idle_past_the_timeout_scales_to_zero() -> None:
    found = snapshot(agent(AgentState.IDLE, idle_s=10))
    assert recommend(found, timeout_s=1) is Recommendation.SCALE_TO_ZERO
    assert recommend(found, timeout_s=60) is Recommendation.SCALE_DOWN


def test_an_empty_town_scales_to_zero() -> None:
    assert recommend(snapshot()) is Recommendation.SCALE_TO_ZERO
    assert recommend(snapshot(), timeout_s=0) is Recommendation.SCALE_TO_ZERO


def test_without_an_idle_timeout_idle_agents_are_only_surplus() -> None:
    assert recommend(snapshot(agent(AgentState.IDLE, idle_s=9999)), timeout_s=0) is Recommendation.SCALE_DOWN


def test_a_working_agent_is_never_surplus() -> None:
    assert recommend(snapshot(agent(AgentState.WORKING), in_flight=1)) is Recommendation.STEADY


def test_more_work_than_agents_scales_up_also_at_the_cap() -> None:
    found = snapshot(agent(AgentState.WORKING), backlog=5, in_flight=1)
    told = signal(found, max_agents=1, idle_timeout=timedelta(seconds=300))
    assert told.recommendation is Recommendation.SCALE_UP
    assert told.desired_agents == 1


def test_a_lost_lease_does_not_count_as_an_agent() -> None:
    told = signal(
        snapshot(agent(AgentState.WORKING, lease_s=-1), agent(AgentState.IDLE)),
        max_agents=10,
        idle_timeout=timedelta(0),
    )
    assert told.active_agents == 1


@pytest.mark.parametrize(("beat_s", "active"), [(119, 1), (121, 0)])
def test_a_record_that_never_held_a_lease_counts_while_it_is_fresh(beat_s: float, active: int) -> None:
    found = snapshot(agent(AgentState.IDLE, lease_s=None, beat_s=beat_s))
    assert signal(found, max_agents=10, idle_timeout=timedelta(0)).active_agents == active


def test_cold_agents_are_counted_apart() -> None:
    told = signal(snapshot(agent(AgentState.COLD)), max_agents=10, idle_timeout=timedelta(0))
    assert (told.cold_agents, told.active_agents) == (1, 0)


COUNT = st.integers(min_value=0, max_value=50)


@given(COUNT, COUNT, COUNT, st.lists(st.sampled_from(list(AgentState)), max_size=20), st.integers(0, 30))
def test_the_numbers_always_agree(
    backlog: int, assigned: int, in_flight: int, states: list[AgentState], max_agents: int
) -> None:
    found = snapshot(*(agent(state) for state in states), backlog=backlog, assigned=assigned, in_flight=in_flight)
    told = signal(found, max_agents=max_agents, idle_timeout=timedelta(seconds=300))
    assert told.queue_depth == told.pending_tasks + told.in_flight_tasks
    assert told.desired_agents == min(told.queue_depth, max_agents)
    if told.queue_depth:
        assert told.recommendation is not Recommendation.SCALE_TO_ZERO
    if told.recommendation is Recommendation.SCALE_DOWN:
        assert told.pending_tasks == 0
        assert told.active_agents > told.queue_depth
