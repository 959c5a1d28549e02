"""Canonical bytes: RFC 8785 for all values that are not refused."""

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from borough.core.errors import Invalid
from borough.governance.canonical import MOST_INTEGER, Json, canonical_bytes

KEYS = st.text(st.characters(codec="ascii"), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-MOST_INTEGER, MOST_INTEGER) | st.text(max_size=12)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20
)


@given(VALUES)
def test_the_bytes_are_those_of_rfc_8785(value: Json) -> None:
    assert canonical_bytes(value) == rfc8785.dumps(value)  # type: ignore[arg-type] # its own alias for JSON


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        2**53,
        -(2**53),
        {"é": 1},
        {1: 1},
        "\ud800",
        {"a": ["b", {"c": 0.5}]},
        {1, 2},
        b"a",
        Text("a"),
        {Text("a"): 1},
    ],
)
def test_what_readers_could_take_differently_is_refused(value: Json) -> None:
    with pytest.raises(Invalid) as refused:
        canonical_bytes(value)
    assert refused.value.code == "not_canonical"


def test_a_value_nested_too_deep_is_refused() -> None:
    value: Json = 1
    for _ in range(17):
        value = [value]
    with pytest.raises(Invalid):
        canonical_bytes(value)
