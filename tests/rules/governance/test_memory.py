"""Memory and the blackboard: versions, compare-and-swap, expiry, limits."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.core.errors import Conflict, Invalid
from borough.governance.memory import (
    MOST_KEYS,
    MOST_VALUE_BYTES,
    MemoryEntry,
    check_key,
    check_room,
    check_version,
    present,
    swapped,
    written,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FIRST = written(None, key="state/a", value="1", at=NOON, ttl_s=60)


@given(st.lists(st.booleans(), max_size=8))
def test_each_write_raises_the_version_by_one_and_an_expired_value_begins_anew(pauses: list[bool]) -> None:
    entry: MemoryEntry | None = None
    at, expected = NOON, 0
    for pause in pauses:
        at += timedelta(seconds=61 if pause else 1)
        expected = 1 if pause else expected + 1
        entry = written(entry, key="a", value="1", at=at, ttl_s=60)
        assert entry.version == expected


def test_a_write_on_another_version_is_refused_and_told_what_is_there() -> None:
    assert written(FIRST, key="state/a", value="2", at=NOON, expected_version=1).version == 2
    for before, expected in ((FIRST, 0), (FIRST, 2), (None, 1)):
        with pytest.raises(Conflict) as refused:
            written(before, key="state/a", value="2", at=NOON, expected_version=expected)
        assert refused.value.details["version"] == (before.version if before else 0)
    assert written(None, key="a", value="1", at=NOON, expected_version=0).version == 1
    check_version(FIRST, None)


def test_what_has_expired_is_not_there() -> None:
    assert present(FIRST, at=NOON + timedelta(seconds=59)) == FIRST
    assert present(FIRST, at=NOON + timedelta(seconds=60)) is None
    assert written(FIRST, key="a", value="1", at=NOON + timedelta(seconds=60), expected_version=0).version == 1


@pytest.mark.parametrize("key", ["", "a\n", "a*", "a" * 600])
def test_a_key_that_cannot_be_used_is_refused(key: str) -> None:
    with pytest.raises(Invalid):
        check_key(key)


def test_there_are_limits() -> None:
    with pytest.raises(Invalid):
        written(None, key="a", value="a" * (MOST_VALUE_BYTES + 1), at=NOON)
    with pytest.raises(Invalid):
        written(None, key="a", value="1", at=NOON, ttl_s=0)
    check_room(MOST_KEYS, is_new=False)
    with pytest.raises(Conflict):
        check_room(MOST_KEYS, is_new=True)


def test_the_blackboard_compares_values_however_they_are_spelled() -> None:
    held = swapped(None, key="lock", expected=None, new='{"b": 1, "a": 2}', at=NOON)
    assert held is not None
    again = swapped(held, key="lock", expected={"a": 2, "b": 1}, new="1", at=NOON)
    assert again is not None
    assert again.version == 2
    assert swapped(again, key="lock", expected=1, new=None, at=NOON) is None
    with pytest.raises(Conflict) as refused:
        swapped(again, key="lock", expected=None, new="5", at=NOON)
    assert refused.value.details == {"value": "1"}
