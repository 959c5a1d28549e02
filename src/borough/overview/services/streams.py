"""The streams of all contexts as one: read once for everybody who listens, resumed at any place of it.

Each context's stream is followed by one task as long as anybody listens. What comes gets its place in the one stream,
which is the positions in all of them, and goes to every listener's bounded queue. A listener that is too slow loses its
queue and no event: it reads on from the stores, from where it was.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog

from borough.core.errors import BoroughError, Unavailable
from borough.overview.occurrences import Context, Gap, Occurrence, Positions, Wanted, encode_positions, order
from borough.overview.ports import Stream

log = structlog.get_logger(__name__)

MOST_LISTENERS = 2000
MOST_QUEUED = 1024
PAGE = 500
RETRIED_AFTER_S = 0.5
BEGUN_WITHIN_S = 0.25
"""How long a listener waits for a context that is still being opened; it comes in later."""


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """An occurrence and its place in the one stream; there is one object for all who listen."""

    occurrence: Occurrence
    cursor: str
    positions: Positions


class EventStreamService:
    """What happens anywhere."""

    def __init__(self, streams: Sequence[Stream], *, capacity: int = MOST_QUEUED) -> None:
        self._streams = {stream.context: stream for stream in streams}
        self._hub = _Hub(streams, capacity)

    @property
    def contexts(self) -> frozenset[Context]:
        """Return whose events there are."""
        return frozenset(self._streams)

    async def newest(self, wanted: Wanted, *, limit: int) -> tuple[Sequence[Occurrence], str]:
        """Return what happened last, oldest first, and a cursor from which to follow; a filter looks at some more.

        A context that cannot be read now has nothing to tell, and is followed as soon as it can be.
        """
        found: list[Occurrence] = []
        positions: dict[Context, str] = {}
        looked = limit if wanted == Wanted(contexts=wanted.contexts) else 10 * PAGE
        for context, stream in self._streams.items():
            if context not in wanted.contexts:
                continue
            try:
                positions[context] = (await stream.bounds())[1]
                some = await stream.newest(limit=looked)
            except BoroughError as error:
                log.warning("events.not_read", context=context.value, error=error.message)
                continue
            # What came between the two is followed, not listed.
            until = order(positions[context])
            found += [each for each in some if wanted.admits(each) and order(each.position) <= until]
        found.sort(key=lambda each: each.at)
        return found[-limit:], encode_positions(positions)

    async def follow(self, wanted: Wanted, after: Positions | None) -> AsyncIterator[Told | Gap]:
        """Return what happened after some positions (where one is missing, and for ``None``: from now on), without end.

        Raises:
            Unavailable: too many listen already (``too_many_streams``).
        """
        if self._hub.listening >= MOST_LISTENERS:
            raise Unavailable(
                f"{MOST_LISTENERS} streams are open already",
                code="too_many_streams",
                resolution="close some, or come back later",
                details={"retry_after_s": 30},
            )
        return self._follow(wanted, await self._begin(wanted, after or {}))

    async def _begin(self, wanted: Wanted, after: Positions) -> dict[Context, str]:
        """Return where a listener begins: now, where nothing else is said. It is known before anybody is answered."""
        seen = {context: self._hub.positions[context] for context in wanted.contexts & self._hub.positions.keys()}
        missing = wanted.contexts & self._streams.keys() - seen.keys() - after.keys()
        seen.update(after)
        for context in sorted(missing):
            with suppress(BoroughError, TimeoutError):  # it comes in when it is there
                async with asyncio.timeout(BEGUN_WITHIN_S):
                    seen[context] = (await self._streams[context].bounds())[1]
        return seen

    async def _follow(self, wanted: Wanted, seen: dict[Context, str]) -> AsyncIterator[Told | Gap]:
        async with self._hub.listen(wanted) as listener:
            while True:
                # New ones are let in first, then the old ones are read up to them.
                begun = listener.begin()
                for context in wanted.contexts & begun.keys():
                    async for told in self._replay(wanted, context, seen, until=begun[context]):
                        yield told
                while (some := await listener.take()) is not None:
                    for told in some:
                        seen.update(told.positions)
                        yield told

    async def _replay(
        self, wanted: Wanted, context: Context, seen: dict[Context, str], *, until: str
    ) -> AsyncIterator[Told | Gap]:
        """Yield what is between what a listener has seen of one context and the place from which it is told."""
        if context not in seen:
            seen[context] = until
            return
        stream = self._streams[context]
        before_first, _ = await stream.bounds()
        gone = order(seen[context]) < order(before_first) and not _is_start(seen[context])
        if gone or order(seen[context]) > order(until):
            # What came next is no longer kept, or this store was begun anew.
            resumes_at = before_first if gone else until
            yield Gap(context=context, after=seen[context], resumes_at=resumes_at)
            seen[context] = resumes_at
        while order(seen[context]) < order(until):
            some, looked = await stream.after(seen[context], limit=PAGE)
            for occurrence in some:
                if order(occurrence.position) > order(until):
                    break
                seen[context] = occurrence.position
                if wanted.admits(occurrence):
                    yield Told(occurrence, encode_positions(seen), dict(seen))
            if looked == seen[context] or order(looked) >= order(until):
                seen[context] = until
            elif order(looked) > order(seen[context]):
                seen[context] = looked


class _Listener:
    """One reader's queue. It begins behind: ``begin`` lets events in, and what was before is in the stores."""

    def __init__(self, hub: "_Hub", wanted: Wanted, capacity: int) -> None:
        self._hub = hub
        self._wanted = wanted
        self._capacity = capacity
        self._queue: deque[Told] = deque()
        self._wake = asyncio.Event()
        self._behind = True

    def begin(self) -> Positions:
        """Queue events from now on; return where that is."""
        self._queue.clear()
        self._behind = False
        return dict(self._hub.positions)

    async def take(self) -> Sequence[Told] | None:
        """Return what has come, as soon as something has; ``None`` when some was missed."""
        while not (self._queue or self._behind):
            self._wake.clear()
            await self._wake.wait()
        if self._behind:
            return None
        taken = tuple(self._queue)
        self._queue.clear()
        return taken

    def offer(self, told: Told) -> None:
        """Queue an event if it is wanted and there is room."""
        if self._behind or not self._wanted.admits(told.occurrence):
            return
        if len(self._queue) >= self._capacity:
            self.fall_behind()
            return
        self._queue.append(told)
        self._wake.set()

    def fall_behind(self) -> None:
        """Let the reader know that it has to look itself."""
        self._behind = True
        self._queue.clear()
        self._wake.set()


class _Hub:
    """Follows every stream, as long as anybody listens."""

    def __init__(self, streams: Sequence[Stream], capacity: int) -> None:
        self._streams = streams
        self._capacity = capacity
        self._listeners: set[_Listener] = set()
        self._pumps: list[asyncio.Task[None]] = []
        self.positions: dict[Context, str] = {}
        """Up to where everybody was told of each stream that is followed."""

    @property
    def listening(self) -> int:
        return len(self._listeners)

    @asynccontextmanager
    async def listen(self, wanted: Wanted) -> AsyncIterator[_Listener]:
        """Make a listener for what is wanted."""
        listener = _Listener(self, wanted, self._capacity)
        self._listeners.add(listener)
        try:
            if not self._pumps:
                self._begin()
            yield listener
        finally:
            self._listeners.discard(listener)
            if not self._listeners:
                await self._end()

    def _begin(self) -> None:
        self._pumps = [
            asyncio.create_task(self._pump(stream), name=f"follow the {stream.context.value}")
            for stream in self._streams
        ]

    async def _end(self) -> None:
        pumps, self._pumps, self.positions = self._pumps, [], {}
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, stream: Stream) -> None:
        context, told = stream.context, False
        while True:
            try:
                await self._find_place(stream)
                await self._follow(stream)
            except BoroughError as error:
                if not told:
                    log.warning("events.not_followed", context=context.value, error=error.message)
                told = True
            except Exception:
                log.exception("events.not_followed", context=context.value)
            await asyncio.sleep(RETRIED_AFTER_S)

    async def _find_place(self, stream: Stream) -> None:
        """Begin at the newest event, or go on; where that is not possible, listeners look themselves."""
        before_first, newest = await stream.bounds()
        place = self.positions.get(stream.context)
        if place is not None and (_is_start(place) or order(before_first) <= order(place) <= order(newest)):
            return
        self.positions[stream.context] = newest
        for listener in self._listeners:
            listener.fall_behind()

    async def _follow(self, stream: Stream) -> None:
        context = stream.context
        while True:
            position = self.positions[context]
            some, looked = await stream.after(position, limit=PAGE)
            for occurrence in some:
                self.positions[context] = occurrence.position
                self._tell(occurrence)
            self.positions[context] = looked
            if looked == position:
                await stream.comes(after=position)

    def _tell(self, occurrence: Occurrence) -> None:
        positions = dict(self.positions)
        told = Told(occurrence, encode_positions(positions), positions)
        for listener in self._listeners:
            listener.offer(told)


def _is_start(position: str) -> bool:
    """Tell whether a position is before everything: a store was empty when it was read."""
    return order(position) == (0, 0)
