"""The streams of the contexts, as each of them keeps it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol

import orjson

from borough.core.events import Event
from borough.core.paging import PageRequest
from borough.governance.ledger import Sealed, Via
from borough.governance.ports.ledger import EntryFilter, Ledger, LedgerFeed
from borough.governance.tokens import NOBODY
from borough.overview.occurrences import Context, Occurrence, Subject, order
from borough.town.ports.events import EventFeed, Events

ELSEWHERE: Final = frozenset({Via.TOWN.value, Via.FLEET.value})
"""Entries of the ledger that are other contexts' events, and come from there."""
_EVERYTHING: Final = EntryFilter()
_MOST_LOOKED_AT: Final = 10_000
_KINDS: Final = (
    ("run_id", "run"),
    ("task_id", "task"),
    ("vm_id", "vm"),
    ("env_id", "env"),
    ("host_id", "host"),
    ("agent_id", "agent"),
    ("mission_id", "mission"),
    ("operation_id", "operation"),
)
"""By which name an event tells of which kind of thing, the nearest first."""


class TownStream:
    """The town's events."""

    context: Final = Context.TOWN

    def __init__(self, events: Events, feed: EventFeed) -> None:
        self._events = events
        self._feed = feed

    async def bounds(self) -> tuple[str, str]:
        """Return the positions before the first event that is kept and of the newest."""
        found = await self._events.bounds()
        if found is None:
            return "", ""
        milliseconds, sequence = order(found[0])
        before_first = f"{milliseconds}-{sequence - 1}" if sequence else f"{milliseconds - 1}-{10**15}"
        return before_first, found[1]

    async def after(self, position: str, *, limit: int) -> tuple[Sequence[Occurrence], str]:
        """Return what happened after a position, and up to where was looked."""
        found = await self._events.after(position, limit=limit)
        return [of_town(event) for event in found], found[-1].id if found else position

    async def newest(self, *, limit: int) -> Sequence[Occurrence]:
        """Return what happened last, oldest first."""
        return [of_town(event) for event in await self._events.newest(limit=limit)]

    async def comes(self, *, after: str) -> None:
        """Return as soon as there is something after a position."""
        async with self._feed.subscribe(capacity=1) as live:
            if await self._events.after(after, limit=1):
                return
            async for _ in live:
                return


class Numbered(Protocol):
    """A store that numbers its events: the fleet's, and that of the runs."""

    async def events(self, *, after: str, limit: int) -> tuple[Event, ...]:
        """Return what happened after an event, oldest first."""

    async def event_bounds(self) -> tuple[str, str]:
        """Return the ids before the first event that is kept and of the newest."""

    async def event_comes(self, *, after: str) -> None:
        """Return as soon as there is an event after that one."""


class NumberedStream:
    """The events of a store that numbers them, as soon as it is open."""

    def __init__(self, context: Context, store: Callable[[], Awaitable[Numbered]]) -> None:
        """``store`` waits until it is open, and raises ``Unavailable`` where that lasts."""
        self.context = context
        self._store = store

    async def bounds(self) -> tuple[str, str]:
        """Return the positions before the first event that is kept and of the newest."""
        return await (await self._store()).event_bounds()

    async def after(self, position: str, *, limit: int) -> tuple[Sequence[Occurrence], str]:
        """Return what happened after a position, and up to where was looked."""
        found = await (await self._store()).events(after=position, limit=limit)
        return [self._told(event) for event in found], found[-1].id if found else position

    async def newest(self, *, limit: int) -> Sequence[Occurrence]:
        """Return what happened last, oldest first."""
        store = await self._store()
        _, newest = await store.event_bounds()
        found = await store.events(after=str(max(0, int(newest) - limit)), limit=limit)
        return [self._told(event) for event in found]

    async def comes(self, *, after: str) -> None:
        """Return as soon as there is something after a position."""
        await (await self._store()).event_comes(after=after)

    def _told(self, event: Event) -> Occurrence:
        return _occurrence(self.context, event, f"{self.context.value}:{event.id}")


class LedgerStream:
    """What governance does: the ledger's own entries. A position is how many entries come before it."""

    context: Final = Context.GOVERNANCE

    def __init__(self, ledger: Ledger, feed: LedgerFeed) -> None:
        self._ledger = ledger
        self._feed = feed

    async def bounds(self) -> tuple[str, str]:
        """Return the positions before the first entry that is kept and of the newest."""
        size = (await self._ledger.head()).size
        oldest = (await self._ledger.find(_EVERYTHING, PageRequest(limit=1))).items
        return str(oldest[0].seq if oldest else size), str(size)

    async def after(self, position: str, *, limit: int) -> tuple[Sequence[Occurrence], str]:
        """Return what happened after a position, and up to where was looked."""
        number = int(position or 0)
        page = PageRequest(limit=limit, after=str(number - 1) if number else "")
        found = (await self._ledger.find(_EVERYTHING, page)).items
        told = [each for each in map(of_ledger, found) if each is not None]
        return told, str(found[-1].seq + 1) if found else position

    async def newest(self, *, limit: int) -> Sequence[Occurrence]:
        """Return what happened last, oldest first; other contexts' entries are passed over."""
        looked = min(4 * limit, _MOST_LOOKED_AT)
        found = await self._ledger.newest(_EVERYTHING, limit=looked)
        told = [each for each in map(of_ledger, found) if each is not None]
        return told[-limit:]

    async def comes(self, *, after: str) -> None:
        """Return as soon as there is something after a position."""
        async with self._feed.subscribe(capacity=1) as entries:
            if (await self._ledger.head()).size > int(after or 0):
                return
            async for _ in entries:
                return
        await asyncio.sleep(0)  # cut off: there is more than one


def of_town(event: Event) -> Occurrence:
    """Return an event of the town."""
    return _occurrence(Context.TOWN, event, event.id)


def of_ledger(entry: Sealed) -> Occurrence | None:
    """Return what an entry tells; ``None`` for one that is another context's event."""
    fields = orjson.loads(entry.canonical)
    if fields["via"] in ELSEWHERE:
        return None
    position = str(entry.seq + 1)
    agent = None if fields["agent_id"] == NOBODY else fields["agent_id"]
    named = {name: value for name in ("run_id", "on_behalf_of") if (value := fields.get(name)) is not None}
    facts = {name: value for name, value in fields.get("data", {}).items() if isinstance(value, str)}
    return Occurrence(
        context=Context.GOVERNANCE,
        position=position,
        id=f"{Context.GOVERNANCE.value}:{position}",
        at=datetime.fromisoformat(fields["timestamp"]),
        kind=fields["action"],
        message=fields["detail"],
        subject=None if agent is None else Subject(kind="agent", id=agent, name=fields["agent_name"] or None),
        subjects={**facts, **named, **({} if agent is None else {"agent_id": agent})},
        data=fields,
    )


def _occurrence(context: Context, event: Event, id_: str) -> Occurrence:
    return Occurrence(
        context=context,
        position=event.id,
        id=id_,
        at=event.at,
        kind=event.type,
        message=event.message,
        subject=_subject(event.subjects),
        subjects=event.subjects,
        data=dict(event.subjects),
    )


def _subject(subjects: Mapping[str, str]) -> Subject | None:
    return next((Subject(kind=kind, id=subjects[name]) for name, kind in _KINDS if name in subjects), None)
