"""The blackboard: a memory that all agents share and that ends with this process."""

from bisect import bisect_right, insort
from dataclasses import dataclass, field
from datetime import datetime

from borough.core.errors import Conflict
from borough.core.paging import Page, PageRequest
from borough.governance.memory import MemoryEntry, check_room, check_version, present, swapped, written


@dataclass(slots=True)
class _Space:
    entries: dict[str, MemoryEntry] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    """In order."""


class Boards:
    """The port ``Memory``. Nothing here waits, so each method is one step."""

    def __init__(self) -> None:
        self._spaces: dict[str, _Space] = {}

    async def read(self, namespace: str, key: str, *, at: datetime) -> MemoryEntry | None:
        """Return what is there and has not expired."""
        return present(self._entry(namespace, key), at=at)

    async def write(
        self,
        namespace: str,
        key: str,
        value: str,
        *,
        at: datetime,
        ttl_s: int | None,
        expected_version: int | None = None,
    ) -> MemoryEntry:
        """Write as ``memory.written`` says."""
        before = self._entry(namespace, key)
        after = written(before, key=key, value=value, at=at, ttl_s=ttl_s, expected_version=expected_version)
        self._put(namespace, after, at=at)
        return after

    async def swap(
        self,
        namespace: str,
        key: str,
        *,
        expected: object,
        new: str | None,
        at: datetime,
        ttl_s: int | None = None,
    ) -> MemoryEntry | None:
        """Write or delete as ``memory.swapped`` says."""
        after = swapped(self._entry(namespace, key), key=key, expected=expected, new=new, at=at, ttl_s=ttl_s)
        if after is None:
            self._drop(namespace, key)
        else:
            self._put(namespace, after, at=at)
        return after

    async def delete(self, namespace: str, key: str, *, at: datetime, expected_version: int | None = None) -> bool:
        """Delete what is there and tell whether there was something."""
        now = present(self._entry(namespace, key), at=at)
        check_version(now, expected_version)
        self._drop(namespace, key)
        return now is not None

    async def keys(self, namespace: str, *, at: datetime, page: PageRequest) -> Page[str]:
        """Return the keys that have not expired, in order."""
        space = self._spaces.get(namespace, _Space())
        found: list[str] = []
        for place in range(bisect_right(space.keys, page.after), len(space.keys)):
            key = space.keys[place]
            if present(space.entries[key], at=at) is None:
                continue
            if len(found) == page.limit:
                return Page(items=tuple(found), after=found[-1])
            found.append(key)
        return Page(items=tuple(found))

    async def sweep(self, *, at: datetime, limit: int) -> int:
        """Delete at most ``limit`` expired entries; return how many."""
        expired = [
            (namespace, key)
            for namespace, space in self._spaces.items()
            for key, entry in space.entries.items()
            if present(entry, at=at) is None
        ][:limit]
        for namespace, key in expired:
            self._drop(namespace, key)
        return len(expired)

    def _entry(self, namespace: str, key: str) -> MemoryEntry | None:
        space = self._spaces.get(namespace)
        return None if space is None else space.entries.get(key)

    def _put(self, namespace: str, entry: MemoryEntry, *, at: datetime) -> None:
        space = self._spaces.get(namespace) or _Space()
        if entry.key not in space.entries:
            self._make_room(namespace, space, at=at)
            insort(space.keys, entry.key)
        space.entries[entry.key] = entry
        self._spaces[namespace] = space

    def _make_room(self, namespace: str, space: _Space, *, at: datetime) -> None:
        """Let a new key in; what has expired counts only until somebody needs its place."""
        try:
            check_room(len(space.entries), is_new=True)
        except Conflict:
            for key in [key for key, entry in space.entries.items() if present(entry, at=at) is None]:
                self._drop(namespace, key)
            check_room(len(space.entries), is_new=True)

    def _drop(self, namespace: str, key: str) -> None:
        space = self._spaces.get(namespace)
        if space is None or space.entries.pop(key, None) is None:
            return
        del space.keys[bisect_right(space.keys, key) - 1]
        if not space.entries:
            del self._spaces[namespace]
