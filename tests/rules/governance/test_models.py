"""Which model a call gets, and what it costs."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.governance.decisions import Denied
from borough.governance.manifests import ModelPolicy
from borough.governance.models import (
    BUILT_IN,
    FALLBACK_EMBEDDER,
    FALLBACK_MODEL,
    Model,
    Purpose,
    choose,
    find,
    price_micros,
    typical_cost_micros,
)

POLICIES = st.sampled_from(ModelPolicy)
BUDGETS = st.none() | st.integers(0, 10**6)
ENTRIES = st.builds(
    Model,
    id=st.text("abc/", min_size=1, max_size=4),
    input_micros=st.integers(0, 10**8),
    output_micros=st.integers(0, 10**8),
    speed_rank=st.integers(1, 5),
    capability_rank=st.integers(1, 5),
)
REGISTRIES = st.lists(ENTRIES, max_size=8, unique_by=lambda entry: entry.id).map(tuple)


@given(policy=POLICIES, remaining=BUDGETS, registry=REGISTRIES)
def test_a_model_that_is_named_always_wins(
    policy: ModelPolicy, remaining: int | None, registry: tuple[Model, ...]
) -> None:
    chosen = choose(policy, requested="mine", default="other", remaining_micros=remaining, registry=registry)
    assert chosen == "mine"


@given(policy=POLICIES, remaining=BUDGETS, registry=REGISTRIES)
def test_what_a_policy_chooses_fits_the_budget_and_none_that_fits_is_better(
    policy: ModelPolicy, remaining: int | None, registry: tuple[Model, ...]
) -> None:
    chosen = choose(policy, requested=None, default=None, remaining_micros=remaining, registry=registry)
    if policy is ModelPolicy.EXPLICIT or not registry:
        assert chosen == FALLBACK_MODEL
        return
    fit = [one for one in registry if remaining is None or typical_cost_micros(one) <= remaining]
    if isinstance(chosen, Denied):
        assert not fit
        assert chosen.code == "budget_exceeded"
        return
    entry = find(registry, chosen)
    assert entry is not None
    assert entry in fit
    measures: dict[ModelPolicy, Callable[[Model], int]] = {
        ModelPolicy.CHEAPEST: typical_cost_micros,
        ModelPolicy.FASTEST: lambda one: one.speed_rank,
        ModelPolicy.MOST_CAPABLE: lambda one: one.capability_rank,
    }
    assert measures[policy](entry) == min(map(measures[policy], fit))
    again = choose(policy, requested=None, default=None, remaining_micros=remaining, registry=registry[::-1])
    assert again == chosen


@pytest.mark.parametrize(
    ("policy", "default", "purpose", "expected"),
    [
        (ModelPolicy.EXPLICIT, None, Purpose.CHAT, "anthropic/claude-haiku-4-5"),
        (ModelPolicy.EXPLICIT, "local/small", Purpose.CHAT, "local/small"),
        (ModelPolicy.EXPLICIT, "local/small", Purpose.EMBEDDING, FALLBACK_EMBEDDER),
        (ModelPolicy.CHEAPEST, "local/small", Purpose.CHAT, "google/gemini-2.5-flash-lite"),
        (ModelPolicy.FASTEST, None, Purpose.CHAT, "google/gemini-2.5-flash-lite"),
        (ModelPolicy.MOST_CAPABLE, None, Purpose.CHAT, "anthropic/claude-opus-4.1"),
        (ModelPolicy.MOST_CAPABLE, None, Purpose.EMBEDDING, "openai/text-embedding-3-large"),
    ],
)
def test_the_built_in_registry(policy: ModelPolicy, default: str | None, purpose: Purpose, expected: str) -> None:
    chosen = choose(policy, requested=None, default=default, remaining_micros=None, registry=BUILT_IN, purpose=purpose)
    assert chosen == expected


def test_the_best_gives_way_to_what_is_left_of_the_budget() -> None:
    little = choose(ModelPolicy.MOST_CAPABLE, requested=None, default=None, remaining_micros=8_000, registry=BUILT_IN)
    assert little == FALLBACK_MODEL


@given(entry=ENTRIES, first=st.integers(0, 10**7), second=st.integers(0, 10**7))
def test_a_price_is_never_rounded_down(entry: Model, first: int, second: int) -> None:
    cost = price_micros(entry, input_tokens=first, output_tokens=second)
    exact = entry.input_micros * first + entry.output_micros * second
    assert exact <= cost * 1_000_000 < exact + 1_000_000
