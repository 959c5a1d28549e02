"""Pages of lists that are short enough to be had whole."""

from collections.abc import Iterable

from borough.core.errors import Invalid
from borough.core.paging import Page, PageRequest
from borough.overview.attention import Need


def part(found: Iterable[Need], page: PageRequest) -> Page[Need]:
    """Return a page of a list, those that have waited longest first. What was settled between two pages moves nothing.

    Raises:
        Invalid: the position is none that was given out (``invalid_cursor``).
    """
    after = _key(page.after) if page.after else (0, "")
    ordered = sorted(((_place(need), need.id, need) for need in found), key=lambda each: each[:2])
    rest = [(place, id_, need) for place, id_, need in ordered if (place, id_) > after]
    shown = rest[: page.limit]
    more = f"{shown[-1][0]}/{shown[-1][1]}" if len(rest) > page.limit else None
    return Page(items=tuple(need for _, _, need in shown), after=more)


def _place(need: Need) -> int:
    return round(need.since.timestamp() * 1_000_000)


def _key(text: str) -> tuple[int, str]:
    place, mark, id_ = text.partition("/")
    if not (mark and place.isascii() and place.isdigit()):
        raise Invalid(
            "the cursor is not one that this server gave out",
            code="invalid_cursor",
            resolution="start again without a cursor and follow next_cursor from there",
        )
    return int(place), id_
