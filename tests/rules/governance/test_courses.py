"""Courses: priorities that rise towards a deadline, what an agent may change by itself, plans."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.core.errors import Forbidden, Invalid
from borough.governance.courses import (
    MOST_STEPS,
    Course,
    PlanStep,
    effective_priority,
    new_run,
    with_deadline,
    with_plan,
    with_priority,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("left", "effective"),
    [
        (timedelta(hours=2), 50),
        (timedelta(hours=1, seconds=1), 50),
        (timedelta(hours=1), 60),
        (timedelta(minutes=31), 60),
        (timedelta(minutes=30), 75),
        (timedelta(seconds=1), 75),
        (timedelta(0), 100),
        (-timedelta(days=1), 100),
    ],
)
def test_a_near_deadline_raises_the_priority(left: timedelta, effective: int) -> None:
    assert effective_priority(Course(deadline=NOON + left), at=NOON) == effective


@given(priority=st.integers(1, 100), left_s=st.integers(-10_000, 10_000))
def test_no_priority_is_above_the_highest_nor_below_its_own(priority: int, left_s: int) -> None:
    course = Course(priority=priority, deadline=NOON + timedelta(seconds=left_s))
    assert priority <= effective_priority(course, at=NOON) <= 100
    assert effective_priority(Course(priority=priority), at=NOON) == priority


def test_an_agent_may_step_back_but_not_push_in() -> None:
    assert with_priority(Course(), 40, own=True).priority == 40
    assert with_priority(Course(), 60, own=False).priority == 60
    with pytest.raises(Forbidden) as refused:
        with_priority(Course(), 51, own=True)
    assert refused.value.code == "not_by_itself"
    for priority in (0, 101):
        with pytest.raises(Invalid) as wrong:
            with_priority(Course(), priority, own=False)
        assert wrong.value.code == "invalid_priority"


def test_a_deadline_that_was_set_is_not_the_agents_to_change() -> None:
    own = with_deadline(Course(), NOON, own=True)
    assert with_deadline(own, None, own=True).deadline is None
    given_ = with_deadline(own, NOON + timedelta(hours=1), own=False)
    for deadline in (NOON, None):
        with pytest.raises(Forbidden):
            with_deadline(given_, deadline, own=True)
    cleared = with_deadline(given_, None, own=False)
    assert with_deadline(cleared, NOON, own=True).deadline == NOON


def test_a_plan_counts_its_revisions_and_is_of_one_run() -> None:
    steps = (PlanStep(description="read"),)
    declared = with_plan(Course(), steps, at=NOON)
    revised = with_plan(declared, (*steps, PlanStep(description="think", tool="lm.chat")), at=NOON)
    assert declared.plan is not None
    assert revised.plan is not None
    assert (declared.plan.revision, revised.plan.revision, len(revised.plan.steps)) == (1, 2, 2)
    again = new_run(revised, run_id="r", nonce_sha256="n")
    assert (again.plan, again.run_id, again.connected, again.restart_at) == (None, "r", False, None)
    with pytest.raises(Invalid) as refused:
        with_plan(Course(), steps * (MOST_STEPS + 1), at=NOON)
    assert refused.value.code == "invalid_plan"
