"""Ids, cursors, times."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.core.clock import from_ms, rfc3339, to_ms
from borough.core.errors import Invalid
from borough.core.ids import canonical_id, derived_id, is_id, new_id
from borough.core.paging import decode_cursor, encode_cursor


def test_ids_are_uuids_and_derived_ones_repeat() -> None:
    assert is_id(new_id())
    assert derived_id("a", "b") == derived_id("a", "b")
    assert derived_id("a", "b") != derived_id("ab")
    assert canonical_id("6F1D7A2E-0000-4000-8000-000000000000") == "6f1d7a2e-0000-4000-8000-000000000000"


@given(st.text())
def test_cursors_come_back(text: str) -> None:
    assert decode_cursor(encode_cursor(text)) == text


@pytest.mark.parametrize("cursor", ["ä", "a", "////", "\x00"])
def test_foreign_cursors_are_refused(cursor: str) -> None:
    with pytest.raises(Invalid) as refusal:
        decode_cursor(cursor)
    assert refusal.value.code == "invalid_cursor"


@given(st.integers(0, 4_000_000_000_000))
def test_milliseconds_survive(milliseconds: int) -> None:
    assert to_ms(from_ms(milliseconds)) == milliseconds


def test_times_end_in_z() -> None:
    east = datetime(2026, 1, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    assert rfc3339(east) == "2026-01-01T12:00:00.000Z"
    assert rfc3339(datetime(2026, 1, 1, 12, tzinfo=UTC)) == "2026-01-01T12:00:00.000Z"
