"""The ledger for a program that shares it: what it records is handed in, and sealed by whoever writes the ledger.

While the program that has the ledger's store to itself is silent, one of those that share it takes its place, seals
what was handed in, and signs it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw
import structlog

from borough.adapters.sql.engine import Database, Migration
from borough.adapters.sql.governance.intake import position_of, put_position
from borough.adapters.sql.ledger_key import signing_key
from borough.adapters.sql.ledger_lease import LEASE_MS, Holder, Lease, Standing, holder, now_ms
from borough.adapters.sql.ledger_submissions import AT_ONCE, drain, submit, waiting
from borough.adapters.sql.ledger_writing import LedgerWriter, newest_checkpoint
from borough.core.clock import utc_now
from borough.core.errors import BoroughError, Conflict, Unavailable
from borough.governance.ledger import Draft

log = structlog.get_logger(__name__)

_RENEW_MS: Final = LEASE_MS // 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Joined:
    database: Database
    writer: LedgerWriter


class LedgerMember:
    """The port ``Intake``, on a store that another program has to itself. It is joined when it is needed and there."""

    def __init__(self, path: Path, migrations: Sequence[Migration], *, program: str) -> None:
        self._path = path
        self._migrations = migrations
        self._lease = Lease(program, seizes=False, shared=True)
        self._joining = asyncio.Lock()
        self._joined: _Joined | None = None

    async def position(self, source: str) -> str:
        """Return up to where the acts of ``source`` were taken; raises as ``Database.join``."""
        return await (await self._join()).database.read(lambda connection: position_of(connection, source))

    async def take(self, source: str, drafts: Sequence[Draft], *, up_to: str) -> None:
        """Hand ``drafts`` in and move the position to ``up_to``, in one step; see ``Intake``.

        Raises:
            Unavailable: whose ledger it is has it to itself (``ledger_not_shared``), or as ``Database.join``.
        """

        def step(connection: apsw.Connection) -> None:
            _check_shared(holder(connection))
            submit(connection, drafts)
            put_position(connection, source, up_to)

        await (await self._join()).database.write(step)

    async def stand(self) -> None:
        """Take the place of a writer that is silent, and do its work while it is; to be called again and again."""
        joined = await self._join()
        if not await joined.database.read(self._may_write):
            return
        try:
            while await joined.database.write(lambda connection: self._serve(connection, joined.writer)) == AT_ONCE:
                pass
        except Conflict as error:
            if error.code != "not_ledger_writer":  # somebody else was faster
                raise

    async def standing(self) -> Standing:
        """Return who writes the ledger; raises as ``Database.join``."""
        told, count = await (await self._join()).database.read(
            lambda connection: (holder(connection), waiting(connection))
        )
        return Standing(holder=told, here=told.name == self._lease.name, waiting=count)

    async def close(self) -> None:
        """Let others write, and close the store."""
        if self._joined is None:
            return
        joined, self._joined = self._joined, None
        try:
            await joined.database.write(self._lease.give_up)
        except BoroughError as error:
            log.warning("ledger.place_not_given_up", error=error.message)  # its time ends by itself
        await joined.database.close()

    async def _join(self) -> _Joined:
        async with self._joining:
            if self._joined is None:
                database = await Database.join(self._path, self._migrations)
                try:
                    key = await asyncio.to_thread(signing_key, self._path.with_suffix(".key"), name="", may_make=False)
                except BaseException:
                    await database.close()
                    raise
                writer = LedgerWriter(key, lease=self._lease, announce=lambda _head, _entries: None)
                database.follow(writer)
                self._joined = _Joined(database=database, writer=writer)
            return self._joined

    def _may_write(self, connection: apsw.Connection) -> bool:
        """Tell whether there is something to do: the place is free, or it is ours and there is work."""
        told = holder(connection)
        if told.name != self._lease.name:
            return told.is_over(now_ms())
        late = told.until_ms is None or now_ms() > told.until_ms - LEASE_MS + _RENEW_MS
        return late or waiting(connection) > 0

    def _serve(self, connection: apsw.Connection, writer: LedgerWriter) -> int:
        before = holder(connection)
        writer.begin(connection)
        if before.name != self._lease.name:
            log.warning("ledger.place_taken", epoch=before.epoch + 1, before=before.name or "nobody")
        self._lease.renew(connection)
        sealed = drain(connection, writer)
        signed = newest_checkpoint(connection)
        if sealed < AT_ONCE and (signed is None or signed.size != writer.head.size):
            writer.sign(connection, utc_now())
        return sealed


def _check_shared(told: Holder) -> None:
    """Let drafts be handed in where somebody will seal them; raises ``Unavailable`` (``ledger_not_shared``)."""
    if told.until_ms is None:
        raise Unavailable(
            "the ledger is not shared",
            code="ledger_not_shared",
            reason=f"{told.name} has it to itself, and would not seal what is handed in",
            resolution="set BOROUGH_LEDGER for agentd too, and start it again",
        )
