"""New entries of the ledger, handed to many listeners: parsed once, and nobody waits for anybody.

A listener's queue is bounded. One that falls behind loses its queue, not entries: it reads on from the ledger.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import orjson

from borough.governance.ledger import Sealed
from borough.governance.ports.ledger import EntryFilter, LedgerFeed

MOST_QUEUED = 1024
RETRIED_AFTER_S = 0.1


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Frame:
    """An entry with what listeners choose by; there is one object for all of them."""

    seq: int
    canonical: bytes
    agent_id: str
    on_behalf_of: str | None
    action: str
    outcome: str

    def matches(self, wanted: EntryFilter) -> bool:
        """Tell whether a filter without times lets the entry pass."""
        if wanted.actions and self.action not in wanted.actions:
            return False
        if wanted.outcomes and self.outcome not in wanted.outcomes:
            return False
        return wanted.agents is None or self.agent_id in wanted.agents or self.on_behalf_of in wanted.agents


def frame_of(entry: Sealed) -> Frame:
    """Return an entry as listeners get it."""
    fields = orjson.loads(entry.canonical)
    return Frame(
        seq=entry.seq,
        canonical=entry.canonical,
        agent_id=fields["agent_id"],
        on_behalf_of=fields.get("on_behalf_of"),
        action=fields["action"],
        outcome=fields["outcome"],
    )


class Listener:
    """One reader's queue. It begins behind: ``begin`` lets entries in, and what was before is in the ledger."""

    def __init__(self, wanted: EntryFilter, capacity: int) -> None:
        self._wanted = wanted
        self._capacity = capacity
        self._queue: deque[Frame] = deque()
        self._wake = asyncio.Event()
        self._behind = True
        self._failure: Exception | None = None

    def begin(self) -> None:
        """Queue entries from now on."""
        self._queue.clear()
        self._behind = False

    async def take(self) -> tuple[Frame, ...] | None:
        """Return what has come, as soon as something has; ``None`` when entries were missed.

        Raises:
            Exception: whatever ended the feed.
        """
        while not (self._queue or self._behind or self._failure):
            self._wake.clear()
            await self._wake.wait()
        if self._failure is not None:
            raise self._failure
        if self._behind:
            return None
        taken = tuple(self._queue)
        self._queue.clear()
        return taken

    def offer(self, frame: Frame) -> None:
        """Queue an entry if it is wanted and there is room."""
        if self._behind or not frame.matches(self._wanted):
            return
        if len(self._queue) >= self._capacity:
            self.fall_behind()
            return
        self._queue.append(frame)
        self._wake.set()

    def fall_behind(self) -> None:
        """Let the reader know that it has missed something."""
        self._behind = True
        self._queue.clear()
        self._wake.set()

    def fail(self, failure: Exception) -> None:
        """Let the reader know that nothing more will come."""
        self._failure = failure
        self._wake.set()


class Fanout:
    """Subscribes to the feed once, as long as anybody listens."""

    def __init__(self, feed: LedgerFeed, *, capacity: int = MOST_QUEUED) -> None:
        self._feed = feed
        self._capacity = capacity
        self._listeners: set[Listener] = set()
        self._pump: asyncio.Task[None] | None = None

    @property
    def listening(self) -> int:
        """Return how many listen."""
        return len(self._listeners)

    @asynccontextmanager
    async def listen(self, wanted: EntryFilter) -> AsyncIterator[Listener]:
        """Make a listener for the wanted entries; times in the filter are not looked at."""
        listener = Listener(wanted, self._capacity)
        self._listeners.add(listener)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.ensure_future(self._run())
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            if not self._listeners:
                pump, self._pump = self._pump, None
                pump.cancel()
                with suppress(asyncio.CancelledError):
                    await pump

    async def _run(self) -> None:
        try:
            while True:
                async with self._feed.subscribe() as entries:
                    # Whatever came before this subscription is found in the ledger.
                    for listener in self._listeners:
                        listener.fall_behind()
                    async for entry in entries:
                        frame = frame_of(entry)
                        for listener in self._listeners:
                            listener.offer(frame)
                await asyncio.sleep(RETRIED_AFTER_S)
        except Exception as failure:  # noqa: BLE001 - each listener raises it where somebody can tell of it
            for listener in self._listeners:
                listener.fail(failure)
