"""Who writes the ledger: one row, in the ledger's own file.

Several programs may have the file open. The one whose name is in the row writes; all others hand in what they have to
record (``ledger_submissions``). The row is read in the transaction of every append, so a writer that was stalled and
lost its place cannot append: what it had in memory is not what is there any more. Time alone decides who may stand for
the place, never who may write.
"""

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import apsw

from borough.core.errors import Conflict

LEASE_MS: Final = 2_000
"""How long a writer may be silent until another takes its place."""
TABLES: Final = (
    """CREATE TABLE ledger_writer (
        one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL, holder TEXT NOT NULL, until_ms INTEGER
    ) STRICT""",
    "INSERT INTO ledger_writer VALUES (1, 0, '', 0)",
    """CREATE TABLE submission (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, draft BLOB NOT NULL
    ) STRICT""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who writes the ledger."""

    epoch: int
    """Counts how often the place was taken."""
    name: str
    """Program, process, and a word of its own; '' where nobody ever did."""
    until_ms: int | None
    """Until when it is believed to live; ``None``: as long as it has the store to itself."""

    def is_over(self, now_ms: int) -> bool:
        """Tell whether somebody else may stand for its place. One that ends too far ahead was written before the clock
        was set back.
        """
        return self.until_ms is not None and not now_ms <= self.until_ms <= now_ms + 2 * LEASE_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Who writes a shared ledger, as one program sees it."""

    holder: Holder
    here: bool
    """It is this program."""
    waiting: int
    """What was handed in and is not sealed yet."""


def now_ms() -> int:
    """Return the time as all processes of this machine know it."""
    return time.time_ns() // 1_000_000


def holder(connection: apsw.Connection) -> Holder:
    """Return who writes the ledger."""
    epoch, name, until = connection.execute("SELECT epoch, holder, until_ms FROM ledger_writer").get
    return Holder(epoch=epoch, name=name, until_ms=until)


class Lease:
    """One program's claim to the place. Used in the thread of its database's writer."""

    def __init__(self, program: str, *, seizes: bool, shared: bool, clock: Callable[[], int] = now_ms) -> None:
        """``seizes``: take the place whenever it is needed, as whoever has the store to itself; else only a free one.

        ``shared``: others may stand for the place when this program falls silent.
        """
        self.name = f"{program} {os.getpid()} {secrets.token_hex(4)}"
        self._seizes = seizes
        self._shared = shared
        self._clock = clock

    def is_held(self, connection: apsw.Connection) -> bool:
        """Tell whether the place is this program's, in the transaction that is being written."""
        return bool(connection.execute("SELECT holder = ? FROM ledger_writer", (self.name,)).get)

    def take(self, connection: apsw.Connection) -> bool:
        """Have the place, in the transaction that is being written; tell whether it had to be taken: then all that was
        known of the ledger has to be read again.

        Raises:
            Conflict: it is somebody else's (``not_ledger_writer``).
        """
        if self.is_held(connection):
            return False
        before = holder(connection)
        if not self._seizes and not before.is_over(self._clock()):
            raise Conflict(
                f"the ledger is written by {before.name}",
                code="not_ledger_writer",
                resolution="hand in what is to be recorded",
            )
        connection.execute("UPDATE ledger_writer SET epoch = epoch + 1, holder = ?", (self.name,))
        self.renew(connection)
        return True

    def renew(self, connection: apsw.Connection) -> None:
        """Say that this program, which has the place, lives."""
        until = self._clock() + LEASE_MS if self._shared else None
        connection.execute("UPDATE ledger_writer SET until_ms = ? WHERE holder = ?", (until, self.name))

    def give_up(self, connection: apsw.Connection) -> None:
        """Let others stand for the place at once."""
        connection.execute("UPDATE ledger_writer SET until_ms = 0 WHERE holder = ?", (self.name,))
