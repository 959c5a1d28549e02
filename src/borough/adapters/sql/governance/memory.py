"""What agents keep under keys. The rules decide inside the step, on the row that is there."""

from datetime import datetime
from typing import Final

import apsw

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance.rows import Row, moment, ms, row, rows
from borough.core.clock import from_ms, to_ms
from borough.core.errors import Conflict
from borough.core.paging import Page, PageRequest
from borough.governance.memory import MemoryEntry, check_room, check_version, present, swapped, written

_SELECT: Final = """
  SELECT key, value, version, updated_at_ms, expires_at_ms FROM memory WHERE namespace = ? AND key = ?
"""
_PUT: Final = """
  INSERT INTO memory (namespace, key, value, version, updated_at_ms, expires_at_ms) VALUES (?, ?, ?, ?, ?, ?)
  ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value, version = excluded.version,
    updated_at_ms = excluded.updated_at_ms, expires_at_ms = excluded.expires_at_ms
"""
_KEYS: Final = """
  SELECT key FROM memory WHERE namespace = ? AND key > ? AND (expires_at_ms IS NULL OR expires_at_ms > ?)
  ORDER BY key LIMIT ?
"""
_SWEEP: Final = """
  DELETE FROM memory WHERE rowid IN (
    SELECT rowid FROM memory WHERE expires_at_ms <= ? ORDER BY expires_at_ms LIMIT ?
  ) RETURNING 1
"""


class SqlMemory:
    """The port ``Memory``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, namespace: str, key: str, *, at: datetime) -> MemoryEntry | None:
        """Return what is there and has not expired."""
        return present(await self._database.read(lambda connection: _entry(connection, namespace, key)), at=at)

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

        def step(connection: apsw.Connection) -> MemoryEntry:
            before = _entry(connection, namespace, key)
            after = written(before, key=key, value=value, at=at, ttl_s=ttl_s, expected_version=expected_version)
            return _put(connection, namespace, after, is_new=before is None)

        return await self._database.write(step)

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

        def step(connection: apsw.Connection) -> MemoryEntry | None:
            before = _entry(connection, namespace, key)
            after = swapped(before, key=key, expected=expected, new=new, at=at, ttl_s=ttl_s)
            if after is not None:
                return _put(connection, namespace, after, is_new=before is None)
            _delete(connection, namespace, key)
            return None

        return await self._database.write(step)

    async def delete(self, namespace: str, key: str, *, at: datetime, expected_version: int | None = None) -> bool:
        """Delete what is there and tell whether there was something."""

        def step(connection: apsw.Connection) -> bool:
            now = present(_entry(connection, namespace, key), at=at)
            check_version(now, expected_version)
            _delete(connection, namespace, key)
            return now is not None

        return await self._database.write(step)

    async def keys(self, namespace: str, *, at: datetime, page: PageRequest) -> Page[str]:
        """Return the keys that have not expired, in order."""
        values = (namespace, page.after, to_ms(at), page.limit + 1)
        found = [key for (key,) in await self._database.read(lambda connection: rows(connection, _KEYS, values))]
        shown = tuple(found[: page.limit])
        return Page(items=shown, after=shown[-1] if len(found) > page.limit else None)

    async def sweep(self, *, at: datetime, limit: int) -> int:
        """Delete at most ``limit`` expired entries; return how many."""
        return len(await self._database.write(lambda connection: rows(connection, _SWEEP, (to_ms(at), limit))))


def _entry(connection: apsw.Connection, namespace: str, key: str) -> MemoryEntry | None:
    stored = row(connection, _SELECT, (namespace, key))
    if stored is None:
        return None
    found, value, version, updated_at_ms, expires_at_ms = stored
    return MemoryEntry(
        key=found,
        value=value,
        version=version,
        updated_at=from_ms(updated_at_ms),
        expires_at=moment(expires_at_ms),
    )


def _put(connection: apsw.Connection, namespace: str, entry: MemoryEntry, *, is_new: bool) -> MemoryEntry:
    if is_new:
        _make_room(connection, namespace, at_ms=to_ms(entry.updated_at))
    times = (to_ms(entry.updated_at), ms(entry.expires_at))
    values: Row = (namespace, entry.key, entry.value, entry.version, *times)
    rows(connection, _PUT, values)
    return entry


def _make_room(connection: apsw.Connection, namespace: str, *, at_ms: int) -> None:
    """Let a new key in; what has expired counts only until somebody needs its place."""
    try:
        check_room(_size(connection, namespace), is_new=True)
    except Conflict:
        rows(connection, "DELETE FROM memory WHERE namespace = ? AND expires_at_ms <= ?", (namespace, at_ms))
        check_room(_size(connection, namespace), is_new=True)


def _size(connection: apsw.Connection, namespace: str) -> int:
    found = row(connection, "SELECT keys FROM memory_sizes WHERE namespace = ?", (namespace,))
    return 0 if found is None else int(found[0])


def _delete(connection: apsw.Connection, namespace: str, key: str) -> None:
    rows(connection, "DELETE FROM memory WHERE namespace = ? AND key = ?", (namespace, key))
