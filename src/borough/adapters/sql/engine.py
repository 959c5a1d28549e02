"""One SQLite file: a writer thread that commits many steps at once, and a few readers beside it.

A step is a function of a connection. Steps that wait together are run in one transaction, each in a savepoint of its
own, and are answered after that transaction is on disk (WAL, ``synchronous=FULL``): one flush for all of them. What is
kept in memory about the tables follows the writer as a ``Follower``, so that a step or a group that is undone is
undone there too.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self, TypeVar

import apsw

from borough.adapters.sql.failures import MISTAKES, store_unavailable, unavailable
from borough.adapters.sql.opening import Opened, connect, join_store, open_store

__all__ = ["MOST_STEPS", "Database", "Follower", "Migration"]

MOST_STEPS: Final = 512
"""How many steps are committed together at the most."""
READERS: Final = 3

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One step from an older set of tables to a newer one, applied once."""

    number: int
    """Counted from 1, without gaps."""
    statements: tuple[str, ...]


class Follower(Protocol):
    """What is kept in memory about the tables, in step with the writer; called in the writer's thread."""

    def mark(self) -> object:
        """Return what ``undo`` needs to come back to the present."""

    def undo(self, mark: object) -> None:
        """Come back to ``mark``: the step since then was undone."""

    def rebuild(self, connection: apsw.Connection) -> None:
        """Read everything from the tables again: a whole group was undone before."""

    def committed(self) -> Callable[[], None] | None:
        """Return what is to be run in the event loop before the group's callers go on, now that it is on disk."""


@dataclass(frozen=True, slots=True)
class _Write:
    step: Callable[[apsw.Connection], Any]
    future: "asyncio.Future[Any]"


@dataclass(frozen=True, slots=True)
class _Done:
    write: _Write
    result: Any = None
    error: BaseException | None = None


class Database:
    """An open SQLite file. One such object on the whole machine has it to itself; others may have joined it."""

    def __init__(self, opened: Opened, loop: asyncio.AbstractEventLoop) -> None:
        self.path = opened.path
        self._opened = opened
        self._connection = opened.writer
        self._readers: queue.SimpleQueue[apsw.Connection] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix=f"read {self.path.name}")
        self._loop = loop
        self._asked: list[_Write] = []
        """What was asked for since the event loop last came round; handed to the writer in one piece."""
        self._waiting: queue.SimpleQueue[list[_Write] | None] = queue.SimpleQueue()
        self._followers: tuple[Follower, ...] = ()
        self._closed = False
        self._stale = False
        self._writer = threading.Thread(target=self._write_groups, name=f"write {self.path.name}", daemon=True)
        self._writer.start()

    @classmethod
    async def open(cls, path: Path, migrations: Sequence[Migration]) -> Self:
        """Open the file, made owner-only where there is none, and bring its tables up to date.

        Raises:
            Conflict: another process has it (``store_in_use``), it is not private (``store_not_private``), or a newer
                version of this program wrote it (``store_too_new``).
            Unavailable: it cannot be read or written (``store_unavailable``), or the SQLite library is too old
                (``sqlite_too_old``).
        """
        steps = {migration.number: migration.statements for migration in migrations}
        if sorted(steps) != list(range(1, len(migrations) + 1)):
            raise ValueError("migrations are numbered from 1, without gaps")
        loop = asyncio.get_running_loop()
        return cls(await asyncio.to_thread(open_store, path, steps), loop)

    @classmethod
    async def join(cls, path: Path, migrations: Sequence[Migration]) -> Self:
        """Open a file that another program has, or had, to itself; its tables are that one's to change.

        Whatever is known of them in memory has to be compared with them in each step.

        Raises:
            Conflict: it is not private (``store_not_private``), or a newer version of this program wrote it
                (``store_too_new``).
            Unavailable: it is not there yet, or an older version wrote it (``store_not_ready``), or it cannot be read
                or written (``store_unavailable``).
        """
        loop = asyncio.get_running_loop()
        return cls(await asyncio.to_thread(join_store, path, len(migrations)), loop)

    def follow(self, follower: Follower) -> None:
        """Keep ``follower`` in step with the writer from now on; to be called before the first write that matters."""
        self._followers = (*self._followers, follower)

    async def write(self, step: Callable[[apsw.Connection], T]) -> T:
        """Run ``step`` in the writer's thread; return what it returned once that is on disk.

        A step that raises is undone by itself, and its error is raised here. Whoever stops waiting does not stop the
        step.

        Raises:
            Unavailable: it could not be written (``store_unavailable``); nothing of the step is there.
        """
        if self._closed:
            raise _closed(self.path)
        future: asyncio.Future[T] = self._loop.create_future()
        if not self._asked:
            self._loop.call_soon(self._hand_over)
        self._asked.append(_Write(step, future))
        return await future

    async def read(self, step: Callable[[apsw.Connection], T]) -> T:
        """Run ``step`` in a reader's thread, on what is on disk at one moment.

        Raises:
            Unavailable: it cannot be read (``store_unavailable``).
        """
        if self._closed:
            raise _closed(self.path)
        return await self._loop.run_in_executor(self._pool, self._read, step)

    async def close(self) -> None:
        """Finish what was asked for and close the file; closing it again does nothing."""
        if self._closed:
            return
        self._closed = True
        self._hand_over()
        self._waiting.put(None)
        await asyncio.to_thread(self._close)

    def _hand_over(self) -> None:
        # One wake-up of the writer for all that was asked for at once: the two threads then seldom fight for the
        # interpreter, and those who ask together are written together.
        if self._asked:
            self._waiting.put(self._asked)
            self._asked = []

    def _close(self) -> None:
        self._writer.join()
        self._pool.shutdown()
        while not self._readers.empty():
            self._readers.get().close()
        self._opened.close()

    # -- readers -------------------------------------------------------------------------------------------------------

    def _read(self, step: Callable[[apsw.Connection], T]) -> T:
        try:
            connection = self._reader()
            try:
                connection.execute("BEGIN")
                return step(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                self._readers.put(connection)
        except MISTAKES:
            raise
        except apsw.Error as error:
            raise unavailable(error, str(self.path)) from error

    def _reader(self) -> apsw.Connection:
        # There are as many threads as connections at most, so nobody waits here.
        try:
            return self._readers.get_nowait()
        except queue.Empty:
            return connect(self.path, writes=False)

    # -- the writer's thread -------------------------------------------------------------------------------------------

    def _write_groups(self) -> None:
        more = True
        while more:
            waiting, more = self._next_waiting()
            for start in range(0, len(waiting), MOST_STEPS):
                self._write_group(waiting[start : start + MOST_STEPS])

    def _next_waiting(self) -> tuple[list[_Write], bool]:
        """Return the steps that wait, and whether there may be more after them."""
        waiting: list[_Write] = []
        asked = self._waiting.get()
        with suppress(queue.Empty):  # what waits now is written together; nothing is waited for
            while asked is not None:
                waiting += asked
                if len(waiting) >= MOST_STEPS:
                    break
                asked = self._waiting.get_nowait()
        return waiting, asked is not None

    def _write_group(self, group: list[_Write]) -> None:
        announcements: list[Callable[[], None]] = []
        try:
            done = self._run_and_commit(group)
            announcements = [told for follower in self._followers if (told := follower.committed()) is not None]
        except BaseException as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it was
            # Followers may know what never reached the disk; the next group begins with what did.
            self._stale = True
            done = [_Done(write, error=self._lost(error)) for write in group]
        with suppress(RuntimeError):  # the event loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(_settle, done, announcements)

    def _run_and_commit(self, group: list[_Write]) -> list[_Done]:
        connection = self._connection
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.execute("BEGIN IMMEDIATE")
        if self._stale:
            for follower in self._followers:
                follower.rebuild(connection)
            self._stale = False
        done = [self._run(write) for write in group]
        connection.execute("COMMIT")
        return done

    def _run(self, write: _Write) -> _Done:
        marks = [(follower, follower.mark()) for follower in self._followers]
        self._connection.execute("SAVEPOINT step")
        try:
            result = write.step(self._connection)
        except Exception as error:  # it is the caller's, and given back
            if not self._connection.in_transaction:
                raise  # SQLite undid the whole group, as it may when the disk is full
            self._connection.execute("ROLLBACK TO step")
            self._connection.execute("RELEASE step")
            for follower, mark in marks:
                follower.undo(mark)
            return _Done(write, error=self._told(error))
        self._connection.execute("RELEASE step")
        return _Done(write, result=result)

    def _lost(self, error: BaseException) -> BaseException:
        """Return what each caller is told whose step was undone with its group."""
        if isinstance(error, apsw.Error):
            lost = unavailable(error, str(self.path))
        else:
            lost = store_unavailable(reason=f"nothing was written: {error!r}", resolution="try again")
        lost.__cause__ = error
        return lost

    def _told(self, error: BaseException) -> BaseException:
        if isinstance(error, apsw.Error) and not isinstance(error, MISTAKES):
            told = unavailable(error, str(self.path))
            told.__cause__ = error
            return told
        return error


def _settle(done: list[_Done], announcements: list[Callable[[], None]]) -> None:
    for announce in announcements:
        announce()
    for one in done:
        if one.write.future.done():
            continue  # its caller was cancelled
        if one.error is not None:
            one.write.future.set_exception(one.error)
        else:
            one.write.future.set_result(one.result)


def _closed(path: Path) -> Exception:
    return store_unavailable(reason=f"{path} was closed", resolution="this program is ending; start it again")
