"""Entries handed to many readers as they are written; each reader has a bounded queue of whole groups."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from borough.governance.ledger import Sealed


class _Reader:
    """One reader's queue, and the iterator that empties it."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._groups: deque[Sequence[Sealed]] = deque()
        self._behind = 0
        self._current: deque[Sealed] = deque()
        self._ended = False
        self._ready = asyncio.Event()

    def offer(self, group: Sequence[Sealed]) -> bool:
        """Queue a group; ``False``: the reader is too far behind and gets no more."""
        self._behind += len(group)
        if self._behind > self._capacity:
            self.end()
            return False
        self._groups.append(group)
        self._ready.set()
        return True

    def end(self) -> None:
        """Let the iterator end."""
        self._ended = True
        self._groups.clear()
        self._current.clear()
        self._ready.set()

    def __aiter__(self) -> "_Reader":
        return self

    async def __anext__(self) -> Sealed:
        while not self._current:
            if self._groups:
                self._current.extend(self._groups.popleft())
                continue
            if self._ended:
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()
        self._behind -= 1
        return self._current.popleft()


class InProcessFeed:
    """The ``LedgerFeed`` of this process: a queue a reader, one append a group and reader."""

    def __init__(self) -> None:
        self._readers: set[_Reader] = set()

    def publish(self, entries: Sequence[Sealed]) -> None:
        """Hand ``entries``, which are on disk, to every reader; those that are too far behind are cut off."""
        group = tuple(entries)
        cut_off = [reader for reader in self._readers if not reader.offer(group)]
        self._readers.difference_update(cut_off)

    def close(self) -> None:
        """End every reader: at the end, or where others wrote, so that each reads on from the ledger."""
        while self._readers:
            self._readers.pop().end()

    @asynccontextmanager
    async def subscribe(self, *, capacity: int = 1024) -> AsyncIterator[AsyncIterator[Sealed]]:
        """Yield every entry from now on; see ``LedgerFeed``."""
        reader = _Reader(capacity)
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)
