"""The quick yes is never a yes where the validator says no."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from borough.governance.builtin_tools import BUILTIN_TOOLS
from borough.governance.quick_schemas import quick

SMALL = st.integers(0, 3)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 12) | st.floats(allow_nan=False) | st.text("ab", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
plain: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({"type": st.just("string")}, optional={"minLength": SMALL, "maxLength": SMALL}),
    st.fixed_dictionaries({"type": st.just("integer")}, optional={"minimum": st.integers(-3, 3), "maximum": SMALL}),
    st.just({"type": "boolean"}),
    st.just({"enum": ["a", "b"]}),
    st.just({"enum": [1, True]}),
    st.just({"type": "number"}),
    st.just({}),
)  # fmt: skip
schemas = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("array")}, optional={"items": inner, "minItems": SMALL, "maxItems": SMALL}
        ),
        st.fixed_dictionaries(
            {"type": st.just("object")},
            optional={
                "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
                "required": st.lists(st.sampled_from("abc"), unique=True, max_size=2),
                "additionalProperties": st.booleans() | inner,
                "description": st.text(max_size=3),
                "minProperties": st.integers(0, 2),
            },
        ),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2)}),
    ),
    max_leaves=5,
)  # fmt: skip


@given(schemas, values)
def test_a_quick_yes_is_a_validators_yes(schema: dict[str, Any], value: Any) -> None:
    fits = quick(schema)
    if fits is not None and fits(value):
        assert Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize("tool", sorted(set(BUILTIN_TOOLS) - {"web.fetch"}))
def test_every_built_in_schema_has_a_quick_answer(tool: str) -> None:
    assert quick(BUILTIN_TOOLS[tool].input_schema) is not None


def test_plain_values_are_answered_quickly() -> None:
    fits = quick({"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]})
    assert fits is not None
    assert fits({"n": 1, "more": []})
    assert not fits({"n": 0})
    assert not fits({"n": True})
    assert not fits({})
    assert not fits([])
