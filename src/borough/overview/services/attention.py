"""The one queue of what needs a person, over all contexts."""

from collections.abc import Collection, Sequence

import structlog

from borough.core.clock import utc_now
from borough.core.errors import BoroughError, Invalid
from borough.core.paging import Page, PageRequest
from borough.overview.attention import Kind, Need, Settling, Urgency
from borough.overview.occurrences import Context, Subject
from borough.overview.ports import Needs

log = structlog.get_logger(__name__)

LOOKS = 20
"""How many pages of the sources one page of the queue may take: whoever reads on comes back with the cursor."""


class AttentionService:
    """Asks each source in turn, a page at a time: the queue is as long as it is, and a page costs what a page costs."""

    def __init__(self, sources: Sequence[Needs]) -> None:
        order = {kind: number for number, kind in enumerate(Kind)}
        self._sources = sorted(sources, key=lambda source: order[source.kind])

    async def page(self, contexts: Collection[Context], page: PageRequest, *, kind: Kind | None = None) -> Page[Need]:
        """Return what needs a person, the kinds in their order, each with what has waited longest first.

        A source that cannot be read is itself something that needs a person.

        Raises:
            Invalid: the position is none that was given out (``invalid_cursor``).
        """
        number, inner = _place(page.after, len(self._sources))
        found: list[Need] = []
        for _ in range(LOOKS):
            while number < len(self._sources) and not _is_asked(self._sources[number], contexts, kind):
                number, inner = number + 1, ""
            if number == len(self._sources):
                return Page(items=tuple(found))
            if len(found) == page.limit:
                break
            source = self._sources[number]
            try:
                some = await source.page(PageRequest(limit=page.limit - len(found), after=inner))
            except BoroughError as error:
                log.warning("attention.not_read", kind=source.kind.value, error=error.message)
                some = Page(items=(_unreadable(source, error),))
            found += some.items
            number, inner = (number + 1, "") if some.after is None else (number, some.after)
        return Page(items=tuple(found), after=f"{number}:{inner}")


def _is_asked(source: Needs, contexts: Collection[Context], kind: Kind | None) -> bool:
    return source.context in contexts and (kind is None or source.kind is kind)


def _place(after: str, count: int) -> tuple[int, str]:
    if not after:
        return 0, ""
    number, mark, inner = after.partition(":")
    if not (mark and number.isascii() and number.isdigit() and int(number) <= count):
        raise Invalid(
            "the cursor is not one that this server gave out",
            code="invalid_cursor",
            resolution="start again without a cursor and follow next_cursor from there",
        )
    return int(number), inner


def _unreadable(source: Needs, error: BoroughError) -> Need:
    return Need(
        kind=source.kind,
        title=f"whether anything of the kind {source.kind.value} needs somebody cannot be told now",
        why=error.reason or error.message,
        since=utc_now(),
        urgency=Urgency.SOON,
        subject=Subject(kind="context", id=source.context.value),
        safe_default="it is asked again with the next look",
        settled_by=(Settling(label="See how the server does", method="GET", path="/ready", command="tt status"),),
    )
