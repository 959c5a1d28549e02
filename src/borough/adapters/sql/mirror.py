"""Tables kept in memory, twice: as the writer's steps see them, and as they are on disk.

A step changes the writer's picture as it changes the tables; a step that is undone is undone there too. After the
commit, and before the steps' callers go on, the same changes are made to the picture from which everybody reads. So a
reader never sees what is not on disk, and whoever was answered sees what was written.
"""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import apsw

from borough.adapters.sql.engine import Database

Change = TypeVar("Change")


class Picture(Protocol[Change]):
    """What is kept of the tables."""

    def apply(self, change: Change) -> Change:
        """Make ``change``; return the one that undoes it."""


Kept = TypeVar("Kept", bound=Picture)  # type: ignore[type-arg]  # a bound cannot name another type variable


class Mirror(Generic[Kept, Change]):
    """A ``Follower`` of a database with two pictures of it."""

    def __init__(self, load: Callable[[apsw.Connection], Kept], told: Callable[[], None] = lambda: None) -> None:
        """``load`` reads a whole picture; ``told`` is called in the event loop after every change."""
        self._load = load
        self._told = told
        self._log: list[tuple[Change, Change]] = []
        self._fresh: Kept | None = None
        self.writing: Kept
        """For steps only, in the writer's thread."""
        self.reading: Kept
        """For everybody else, in the event loop."""

    async def open(self, database: Database) -> None:
        """Read everything and follow the database from now on."""
        self.reading = await database.read(self._load)
        self.writing = await database.read(self._load)
        database.follow(self)

    def change(self, change: Change) -> None:
        """Note what a step has changed in the tables; to be called in the step."""
        self._log.append((change, self.writing.apply(change)))

    def mark(self) -> int:
        """Return how much is noted."""
        return len(self._log)

    def undo(self, mark: object) -> None:
        """Take back what was noted since ``mark``."""
        if not isinstance(mark, int):
            raise TypeError("that is no mark of this mirror")
        while len(self._log) > mark:
            self.writing.apply(self._log.pop()[1])

    def rebuild(self, connection: apsw.Connection) -> None:
        """Read everything anew: what is on disk is not known."""
        self._log = []
        self.writing = self._load(connection)
        self._fresh = self._load(connection)

    def committed(self) -> Callable[[], None] | None:
        """Return what brings the readers' picture up to date, if something changed."""
        if not self._log and self._fresh is None:
            return None
        log, self._log = self._log, []
        fresh, self._fresh = self._fresh, None

        def catch_up() -> None:
            if fresh is not None:
                self.reading = fresh
            for change, _ in log:
                self.reading.apply(change)
            self._told()

        return catch_up
