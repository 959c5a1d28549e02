"""Where a run may go."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.core.errors import Conflict
from borough.runs import states
from borough.runs.runs import asked_again, attempt_ended, moved, with_attempt
from borough.runs.states import LIVE, TERMINAL, RunState, move, next_of
from tests.contracts.runs_kit import NOON, a_run, an_attempt


def test_every_state_has_a_row_and_a_next() -> None:
    assert set(states.MOVES) == set(RunState)
    assert all(next_of(state) for state in RunState)


@pytest.mark.parametrize("state", sorted(LIVE))
def test_every_run_that_is_not_over_can_be_ended_from_outside(state: RunState) -> None:
    assert {RunState.CANCELLED, RunState.KILLED, RunState.FAILED} <= states.MOVES[state]


def test_what_succeeded_is_over_for_good() -> None:
    assert not states.MOVES[RunState.SUCCEEDED]


@pytest.mark.parametrize("state", sorted(TERMINAL - {RunState.SUCCEEDED}))
def test_what_is_over_only_begins_anew(state: RunState) -> None:
    assert states.MOVES[state] == {RunState.ADMITTED}


@given(st.lists(st.sampled_from(list(RunState)), max_size=30))
def test_no_way_leads_past_the_table(wanted: list[RunState]) -> None:
    run, at = a_run(), NOON
    for to in wanted:
        at += timedelta(seconds=1)
        legal = to is run.state or to in states.MOVES[run.state]
        if not legal:
            with pytest.raises(Conflict) as refused:
                moved(run, to, at=at)
            assert refused.value.code == "illegal_run_state"
            continue
        after = moved(run, to, at=at)
        assert after.since == (at if to is not run.state else run.since)
        assert (after.ended_at == at) is (to in TERMINAL)
        run = replace(after, ended_at=None) if to in TERMINAL else after


@given(st.sampled_from(list(RunState)))
def test_where_it_is_it_may_stay(state: RunState) -> None:
    assert move(state, state) is state


def test_attempts_go_into_the_past_in_their_order() -> None:
    run = a_run()
    for number in (1, 2, 3):
        run = with_attempt(run, an_attempt(number))
        run = attempt_ended(run, f"lost {number}", at=NOON)
    assert [each.number for each in run.past] == [1, 2]
    assert run.attempt is not None
    assert (run.attempt.number, run.attempt.outcome) == (3, "lost 3")
    assert attempt_ended(run, "another word", at=NOON) == run


def test_asked_for_again_it_keeps_its_history_and_counts_on() -> None:
    run = moved(with_attempt(a_run(), an_attempt(4)), RunState.FAILED, at=NOON, reason="it broke")
    again = asked_again(
        run, run.agent, run.admission, task_id=run.task_id, worker_id=run.worker_id, at=datetime(2026, 1, 2, tzinfo=UTC)
    )
    assert (again.state, again.tries, again.earlier_attempts, again.attempt) == (RunState.ADMITTED, 2, 4, None)
    assert [each.number for each in again.past] == [4]
    assert (again.reason, again.ended_at, again.is_clean) == (None, None, False)


def test_what_is_not_over_is_not_asked_for_again() -> None:
    run = moved(a_run(), RunState.PREPARING, at=NOON)
    with pytest.raises(Conflict):
        asked_again(run, run.agent, run.admission, task_id=run.task_id, worker_id=run.worker_id, at=NOON)
