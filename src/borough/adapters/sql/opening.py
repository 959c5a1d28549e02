"""Opening an SQLite file: private, held by one process, durable, with tables that are up to date."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw

from borough.adapters.sql.failures import unavailable
from borough.adapters.sql.private_files import (
    StoreLock,
    drop_guard,
    guard_side_files,
    is_shared,
    private_file,
    private_folder,
)
from borough.core.errors import Conflict, Unavailable

OLDEST_SQLITE: Final = (3, 51, 3)
"""Older ones can lose a commit when a checkpoint of the log and a write meet (sqlite.org/wal.html, WAL-reset)."""
BUSY_TIMEOUT_MS: Final = 5_000
WRITER_CACHE_KIB: Final = 16_384
"""So that the indexes of a large file, which are written in many places, seldom have to be read again."""
LOG_PAGES: Final = 8_000
"""How long the log grows (32 MiB) before it is copied into the file: an index page that is written again and again,
as those of random ids are, is then copied once.
"""
_FULL: Final = 2
_MIGRATIONS: Final = (
    "CREATE TABLE IF NOT EXISTS migration (number INTEGER PRIMARY KEY, applied_at TEXT NOT NULL) STRICT"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A file that is ready for use."""

    path: Path
    writer: apsw.Connection
    lock: StoreLock | None
    """``None``: it was joined, and another program may have it."""

    def close(self) -> None:
        """Close the file and let others have it."""
        self.writer.close()
        if self.lock is not None:
            drop_guard(self.path)
            self.lock.release()


def open_store(path: Path, migrations: Mapping[int, tuple[str, ...]]) -> Opened:
    """Open ``path`` and apply the migrations that it lacks; see ``Database.open``."""
    _check_library(apsw.sqlite_lib_version())
    real = private_folder(path.absolute().parent) / path.name
    # First of all: closing any descriptor of a database file ends the locks that this process has on it (sqlite.org,
    # "How To Corrupt An SQLite Database File").
    lock = StoreLock(real)
    try:
        return Opened(path=real, writer=_open_writer(real, migrations), lock=lock)
    except apsw.Error as error:
        lock.release()
        raise unavailable(error, str(real)) from error
    except BaseException:
        lock.release()
        raise


def join_store(path: Path, newest: int) -> Opened:
    """Open ``path`` beside the program that has it, with its tables as they are; see ``Database.join``."""
    _check_library(apsw.sqlite_lib_version())
    real = private_folder(path.absolute().parent) / path.name
    if is_shared(real.parent) or not real.exists():
        raise _not_ready(real, "it is in a folder of all" if is_shared(real.parent) else "it is not there")
    os.close(private_file(real))
    try:
        connection = connect(real, writes=True)
        try:
            _make_durable(connection, real)
            _check_newest(connection, real, newest)
        except BaseException:
            connection.close()
            raise
    except apsw.SQLError as error:  # it is being made
        raise _not_ready(real, str(error)) from error
    except apsw.Error as error:
        raise unavailable(error, str(real)) from error
    return Opened(path=real, writer=connection, lock=None)


def _check_newest(connection: apsw.Connection, path: Path, newest: int) -> None:
    found = connection.execute("SELECT coalesce(max(number), 0) FROM migration").get
    if found > newest:
        raise _too_new(path, found, newest)
    if found < newest:
        raise _not_ready(path, "an older version wrote it")


def _not_ready(path: Path, reason: str) -> Unavailable:
    return Unavailable(
        f"{path} is not ready to be shared",
        code="store_not_ready",
        reason=reason,
        resolution="start the program whose it is (agentd, for a ledger), of the same version, on its private folder",
    )


def connect(path: Path, *, writes: bool) -> apsw.Connection:
    """Return a connection to an existing file, set up and checked."""
    flags = apsw.SQLITE_OPEN_READWRITE if writes else apsw.SQLITE_OPEN_READONLY
    connection = apsw.Connection(str(path), flags=flags | apsw.SQLITE_OPEN_NOFOLLOW)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _open_writer(path: Path, migrations: Mapping[int, tuple[str, ...]]) -> apsw.Connection:
    if is_shared(path.parent):
        guard_side_files(path)
    _make(path)
    connection = connect(path, writes=True)
    try:
        connection.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KIB}")
        connection.wal_autocheckpoint(LOG_PAGES)
        _make_durable(connection, path)
        _migrate(connection, path, migrations)
    except BaseException:
        connection.close()
        raise
    return connection


def _make(path: Path) -> None:
    """Make the file where there is none: an empty database that keeps a log already, so that no journal is needed."""
    descriptor = private_file(path)
    try:
        if os.fstat(descriptor).st_size == 0:
            os.write(descriptor, _empty_database())
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _empty_database() -> bytes:
    memory = apsw.Connection(":memory:")
    memory.execute(_MIGRATIONS)
    image = bytearray(memory.serialize("main"))
    memory.close()
    image[18:20] = b"\2\2"  # the versions of the format that say: WAL (sqlite.org/fileformat.html, 1.3.3)
    return bytes(image)


def _make_durable(connection: apsw.Connection, path: Path) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").get
    connection.execute("PRAGMA synchronous = FULL")
    synchronous = connection.execute("PRAGMA synchronous").get
    if mode != "wal" or synchronous != _FULL:
        raise Unavailable(
            f"{path} cannot be written durably",
            code="store_unavailable",
            reason=f"SQLite answered journal_mode {mode} and synchronous {synchronous}",
            resolution="put it on a local file system; WAL does not work over a network (sqlite.org/wal.html)",
        )


def _migrate(connection: apsw.Connection, path: Path, migrations: Mapping[int, tuple[str, ...]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_MIGRATIONS)
        newest = connection.execute("SELECT coalesce(max(number), 0) FROM migration").get
        if newest > len(migrations):
            raise _too_new(path, newest, len(migrations))
        for number in range(newest + 1, len(migrations) + 1):
            for statement in migrations[number]:
                connection.execute(statement)
            connection.execute("INSERT INTO migration VALUES (?, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))", (number,))
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _check_library(version: str) -> None:
    if tuple(map(int, version.split("."))) < OLDEST_SQLITE:
        raise Unavailable(
            f"the SQLite library is too old: {version}",
            code="sqlite_too_old",
            reason="versions before 3.51.3 can lose a commit in WAL mode",
            resolution="install a newer apsw: pip install --upgrade apsw",
        )


def _too_new(path: Path, found: int, known: int) -> Conflict:
    return Conflict(
        f"{path} was written by a newer version of this program",
        code="store_too_new",
        reason=f"its tables are at number {found}, and this version knows {known}",
        resolution="use that version again, or put back a backup from before it",
    )
