"""Cursor paging: a page knows where the next one starts; the cursor means nothing to its bearer."""

import base64
import binascii
from dataclasses import dataclass
from typing import Generic, TypeVar

from borough.core.errors import Invalid

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """Which page: at most ``limit`` items after the position ``after`` (store's own words, '' = from the start)."""

    limit: int = DEFAULT_LIMIT
    after: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Item]):
    """Some items and the position after the last, or ``None`` when there are no more."""

    items: tuple[Item, ...]
    after: str | None = None


def encode_cursor(after: str) -> str:
    """Return the opaque form of a position."""
    return base64.urlsafe_b64encode(after.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> str:
    """Return the position that ``cursor`` stands for.

    Raises:
        Invalid: ``cursor`` is not one that we gave out.
    """
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError):
        raise Invalid(
            "the cursor is not one that this server gave out",
            code="invalid_cursor",
            resolution="start again without a cursor and follow next_cursor from there",
        ) from None
