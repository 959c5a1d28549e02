"""The tables of legal moves, and what hangs on them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.town import agents, tasks
from borough.town.agents import AgentState
from borough.town.tasks import RetryPolicy, TaskState


def test_every_state_has_a_row() -> None:
    assert set(tasks.MOVES) == set(TaskState)
    assert set(agents.MOVES) == set(AgentState)


def test_a_completed_task_is_over_for_good() -> None:
    assert not tasks.MOVES[TaskState.COMPLETED]


@pytest.mark.parametrize("state", [state for state in TaskState if state not in tasks.TERMINAL])
def test_every_open_task_can_be_cancelled(state: TaskState) -> None:
    assert tasks.may_move(state, TaskState.CANCELLED)


@pytest.mark.parametrize("state", sorted(tasks.REPLAYABLE))
def test_what_can_be_replayed_can_reach_both_queues(state: TaskState) -> None:
    assert {TaskState.PENDING, TaskState.ASSIGNED} <= tasks.MOVES[state]


@pytest.mark.parametrize("state", sorted(agents.ACTIVE))
def test_every_active_agent_can_be_ended(state: AgentState) -> None:
    assert {AgentState.STOPPED, AgentState.ERROR} <= agents.MOVES[state]


@pytest.mark.parametrize("state", sorted(agents.PRUNABLE))
def test_every_ended_agent_can_be_started_again(state: AgentState) -> None:
    assert AgentState.STARTING in agents.MOVES[state]


def test_pauses_double_up_to_the_cap() -> None:
    policy = RetryPolicy(base_ms=1000, cap_ms=5000)
    assert [policy.delay_ms(attempt) for attempt in range(1, 5)] == [1000, 2000, 4000, 5000]


@given(st.integers(1, tasks.MAX_MAX_ATTEMPTS), st.integers(1, 10_000), st.integers(1, 600_000))
def test_pauses_never_shrink_and_never_pass_the_cap(attempt: int, base_ms: int, cap_ms: int) -> None:
    policy = RetryPolicy(base_ms=base_ms, cap_ms=cap_ms)
    assert policy.delay_ms(attempt) <= policy.delay_ms(attempt + 1) <= cap_ms
