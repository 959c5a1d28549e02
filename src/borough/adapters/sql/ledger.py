"""The ledger in an SQLite file: one chain, one writer, entries of many callers in one commit.

This is the ledger of the program that has the store to itself, or is the first of several that share it: it takes the
place of the ledger's writer whenever it writes. Others record through ``ledger_member``.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final, Self, TypeVar

import apsw
import structlog

from borough.adapters.sql import ledger_reading as reading
from borough.adapters.sql.engine import Database
from borough.adapters.sql.failures import STORE_UNAVAILABLE
from borough.adapters.sql.ledger_checking import check_end
from borough.adapters.sql.ledger_feed import InProcessFeed
from borough.adapters.sql.ledger_key import SigningKey, signing_key
from borough.adapters.sql.ledger_lease import LEASE_MS, Lease, Standing, holder, now_ms
from borough.adapters.sql.ledger_submissions import AT_ONCE, drain, waiting
from borough.adapters.sql.ledger_tables import MIGRATIONS, TABLES, floor_ms
from borough.adapters.sql.ledger_writing import LedgerWriter, newest_checkpoint
from borough.core.clock import utc_now
from borough.core.errors import BoroughError, NotFound, Unavailable
from borough.core.paging import Page, PageRequest
from borough.governance.checkpoints import VerifierKey
from borough.governance.ledger import Draft, Head, Sealed
from borough.governance.ports.ledger import EntryFilter, SignedCheckpoint

__all__ = ["MIGRATIONS", "TABLES", "SqlLedger"]

log = structlog.get_logger(__name__)

DEFAULT_NAME: Final = "borough.local"
SIGN_AFTER_S: Final = 1.0
EXPORTED_AT_ONCE: Final = 500

T = TypeVar("T")


class SqlLedger:
    """The ``Ledger`` in a database; ``feed`` is its ``LedgerFeed``."""

    def __init__(
        self, database: Database, key: SigningKey, *, now: Callable[[], datetime], sign_after_s: float, lease: Lease
    ) -> None:
        self._database = database
        self._key = key
        self._now = now
        self._sign_after_s = sign_after_s
        self._writer = LedgerWriter(key, lease=lease, announce=self._announce)
        self._head = Head()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._signing: asyncio.Task[None] | None = None
        self._closed = False
        self.feed = InProcessFeed()

    @classmethod
    async def open(
        cls,
        database: Database,
        *,
        name: str = DEFAULT_NAME,
        key_file: Path | None = None,
        now: Callable[[], datetime] = utc_now,
        sign_after_s: float = SIGN_AFTER_S,
        shared: bool = False,
    ) -> Self:
        """Check the newest entries and go on where they end; ``database`` has the tables (``TABLES``).

        The key is in ``key_file``, or beside the database; a new ledger gets a new one, and ``name`` stands in it.
        ``sign_after_s``: how long an entry may be on disk before a checkpoint is over it. ``shared``: other programs
        record here too, and one of them writes while this one is silent; ``keep_place`` has to be called then.

        Raises:
            Conflict: the ledger was altered or damaged (``ledger_broken``), or its key is missing
                (``ledger_key_missing``) or not one (``ledger_key_broken``, ``store_not_private``).
            Unavailable: it cannot be read (``ledger_unavailable``).
        """
        file = key_file or database.path.with_suffix(".key")
        with _named():
            unsigned = await database.read(lambda connection: newest_checkpoint(connection) is None)
            key = await asyncio.to_thread(signing_key, file, name=name, may_make=unsigned)
            await database.read(lambda connection: check_end(connection, key.verifier))
            lease = Lease("agentd", seizes=True, shared=shared)
            ledger = cls(database, key, now=now, sign_after_s=sign_after_s, lease=lease)
            await database.write(ledger._writer.begin)
        database.follow(ledger._writer)
        ledger._head = ledger._writer.head
        await ledger.keep_place()  # what was handed in and never sealed
        return ledger

    @property
    def key(self) -> VerifierKey:
        """Return what those need who check the checkpoints."""
        return self._key.verifier

    async def close(self) -> None:
        """Sign what is not signed, end the feed, let others write; the database stays open. Again it does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._signing is not None:
            await asyncio.wait([self._signing])
        self.feed.close()
        await self._sign()
        with suppress(BoroughError):  # then its place is free when its time is over
            await self._write(self._writer.lease.give_up)

    # -- writing -------------------------------------------------------------------------------------------------------

    def append_within(self, connection: apsw.Connection, drafts: Sequence[Draft]) -> tuple[Sealed, ...]:
        """Seal ``drafts`` inside a step of the same database's ``write``, so that they and it are one transaction.

        Raises:
            Invalid: a draft cannot be sealed; the step has to raise it too.
        """
        return self._writer.append(connection, drafts)

    async def append(self, drafts: Sequence[Draft]) -> tuple[Sealed, ...]:
        """Seal ``drafts`` and return when they are on disk; see ``Ledger``."""
        return await self._write(lambda connection: self._writer.append(connection, drafts))

    async def sign_now(self) -> SignedCheckpoint:
        """Sign all that is on disk; see ``Ledger``."""
        return await self._write(lambda connection: self._writer.sign(connection, self._now()))

    async def retain(self, *, before: datetime, limit: int) -> int:
        """Drop the oldest entries; see ``Ledger``."""
        return await self._write(lambda connection: self._writer.retain(connection, floor_ms(before), limit))

    # -- for others --------------------------------------------------------------------------------------------------

    async def keep_place(self) -> None:
        """Seal what others handed in, and say that this program lives; to be called every fraction of ``LEASE_MS``."""
        while await self._write(self._serve) == AT_ONCE:
            pass

    def _serve(self, connection: apsw.Connection) -> int:
        self._writer.begin(connection)
        self._writer.lease.renew(connection)
        return drain(connection, self._writer)

    async def is_due(self) -> bool:
        """Tell whether ``keep_place`` has something to do."""

        def due(connection: apsw.Connection) -> bool:
            until = holder(connection).until_ms
            renewed_ms = 0 if until is None else until - LEASE_MS
            return waiting(connection) > 0 or now_ms() - renewed_ms > LEASE_MS / 3

        return await self._read(due)

    async def standing(self) -> Standing:
        """Return who writes the ledger, and how much that was handed in waits to be sealed."""
        told, count = await self._read(lambda connection: (holder(connection), waiting(connection)))
        return Standing(holder=told, here=told.name == self._writer.lease.name, waiting=count)

    # -- reading -------------------------------------------------------------------------------------------------------

    async def head(self) -> Head:
        """Return where the ledger stands on disk."""
        return self._head

    async def get(self, seq: int) -> Sealed:
        """Return one entry; see ``Ledger``."""
        return await self._read(lambda connection: reading.get(connection, seq))

    async def named(self, entry_id: str) -> Sealed:
        """Return the entry of an id; see ``Ledger``."""
        return await self._read(lambda connection: reading.named(connection, entry_id))

    async def newest(self, wanted: EntryFilter, *, limit: int) -> tuple[Sealed, ...]:
        """Return the newest wanted entries, oldest first."""
        return await self._read(lambda connection: reading.newest(connection, wanted, limit))

    async def find(self, wanted: EntryFilter, page: PageRequest) -> Page[Sealed]:
        """Return a page of wanted entries; see ``Ledger``."""
        return await self._read(lambda connection: reading.find(connection, wanted, page))

    async def before(self, wanted: EntryFilter, page: PageRequest) -> Page[Sealed]:
        """Return a page of older wanted entries; see ``Ledger``."""
        return await self._read(lambda connection: reading.before(connection, wanted, page))

    async def open_intents(self) -> tuple[Sealed, ...]:
        """Return the intents that have no outcome, oldest first."""
        return await self._read(reading.open_intents)

    async def node(self, level: int, place: int) -> bytes:
        """Return the hash of a complete node; raises ``NotFound`` (``node_not_found``)."""
        return await self._read(lambda connection: reading.node(connection, level, place))

    async def nodes(self, wanted: Collection[tuple[int, int]]) -> Mapping[tuple[int, int], bytes]:
        """Return the hashes of many complete nodes; raises ``NotFound`` (``node_not_found``)."""
        return await self._read(lambda connection: {each: reading.node(connection, *each) for each in wanted})

    async def checkpoint(self) -> SignedCheckpoint:
        """Return the newest checkpoint; see ``Ledger``."""
        found = await self._read(newest_checkpoint)
        if found is None:
            raise NotFound(
                "the ledger has no checkpoint yet",
                code="checkpoint_not_found",
                reason="nothing was written to it",
                resolution="ask again when something was",
            )
        return found

    async def export(self, *, first_seq: int, size: int) -> AsyncIterator[bytes]:
        """Yield the header and one line an entry; the signed checkpoint over ``size`` entries is to follow them.

        Raises:
            NotFound: an entry was dropped (``entry_not_found``).
            Invalid: there is no such range (``invalid_range``).
        """
        yield await self._read(lambda connection: reading.export_header(connection, first_seq, size))
        for start in range(first_seq, size, EXPORTED_AT_ONCE):
            for line in await self._lines(start, min(start + EXPORTED_AT_ONCE, size)):
                yield line

    async def _lines(self, start: int, end: int) -> list[bytes]:
        return await self._read(lambda connection: reading.export_lines(connection, start, end))

    # -- after each commit ---------------------------------------------------------------------------------------------

    def _announce(self, head: Head, entries: Sequence[Sealed]) -> None:
        if entries[0].seq != self._head.size:
            self.feed.close()  # others wrote meanwhile
        self._head = head
        self.feed.publish(entries)
        if self._timer is None and not self._closed:
            self._timer = self._loop.call_later(self._sign_after_s, self._start_signing)

    def _start_signing(self) -> None:
        self._timer = None
        self._signing = self._loop.create_task(self._sign())

    async def _sign(self) -> None:
        try:
            await self.sign_now()
        except BoroughError as error:
            # The entries are on disk; the next checkpoint is over them too.
            log.warning("ledger.not_signed", error=error.message, code=error.code, reason=error.reason)

    async def _write(self, step: Callable[[apsw.Connection], T]) -> T:
        with _named():
            return await self._database.write(step)

    async def _read(self, step: Callable[[apsw.Connection], T]) -> T:
        with _named():
            return await self._database.read(step)


@contextmanager
def _named() -> Iterator[None]:
    """Say of which store it is that it cannot be read or written."""
    try:
        yield
    except Unavailable as error:
        if error.code != STORE_UNAVAILABLE:
            raise
        raise Unavailable(
            "the ledger cannot be read or written",
            code="ledger_unavailable",
            reason=error.reason,
            resolution=error.resolution,
        ) from error
