"""Budgets: counted in whole numbers, warned at 80 %, stopped at 100 %."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.core.errors import Invalid
from borough.governance.budgets import (
    BudgetState,
    Limits,
    Spent,
    charge,
    exhausted,
    from_micros,
    narrower,
    state_of,
    to_micros,
    would_exceed,
)


@pytest.mark.parametrize(
    ("tokens", "state"),
    [(0, "within"), (79, "within"), (80, "near"), (99, "near"), (100, "exhausted"), (101, "exhausted")],
)
def test_an_agent_is_warned_at_80_percent_and_stopped_at_100(tokens: int, state: str) -> None:
    assert state_of(Limits(tokens=100), Spent(tokens=tokens)) is BudgetState(state)


def test_a_call_may_use_a_limit_up_but_not_go_beyond() -> None:
    limits = Limits(cost_micros=100)
    assert would_exceed(limits, Spent(cost_micros=60), cost_micros=40) is None
    over = would_exceed(limits, Spent(cost_micros=60), cost_micros=41)
    assert over is not None
    assert over.resource == "cost_micros"
    assert would_exceed(limits, Spent(cost_micros=100), cost_micros=0) is not None


def test_without_a_limit_nothing_is_exhausted() -> None:
    assert exhausted(Limits(), Spent(calls=10**9, tokens=10**9)) is None


@pytest.mark.parametrize(("amount", "micros"), [(0.1, 100_000), ("2.5", 2_500_000), (0, 0), ("0.0000001", 1)])
def test_money_is_whole_millionths_rounded_up(amount: float | str, micros: int) -> None:
    assert to_micros(amount) == micros


@pytest.mark.parametrize("amount", [-1, "nan", "inf", "x", 10**12])
def test_what_is_no_amount_is_refused(amount: int | str) -> None:
    with pytest.raises(Invalid):
        to_micros(amount)


@given(st.integers(0, 10**9))
def test_millionths_survive_being_shown(micros: int) -> None:
    assert to_micros(str(from_micros(micros))) == micros


def test_wall_time_is_told_as_a_whole_and_nothing_is_taken_back() -> None:
    spent = charge(charge(Spent(), calls=1, tokens=5, wall_time_s=9), calls=1, wall_time_s=7)
    assert spent == Spent(calls=2, tokens=5, wall_time_s=9)
    with pytest.raises(ValueError):
        charge(spent, tokens=-1)


def test_a_child_never_gets_more_than_is_left_to_its_parent() -> None:
    given_out = narrower(
        Limits(tokens=500, calls=3), Limits(tokens=100, wall_time_s=60), Spent(tokens=40, wall_time_s=70)
    )
    assert given_out == Limits(tokens=60, calls=3, wall_time_s=0)
