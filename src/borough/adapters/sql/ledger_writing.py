"""What writes the ledger: what it has in memory, and the steps it takes. Runs in the thread of its database's writer.

Each step that writes first has the place of the ledger's one writer (``ledger_lease``); where that had to be taken,
what is in memory is read again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import apsw

from borough.adapters.sql import ledger_tables as tables
from borough.adapters.sql.engine import Follower
from borough.adapters.sql.ledger_key import SigningKey
from borough.adapters.sql.ledger_lease import Lease
from borough.core.clock import from_ms
from borough.governance.checkpoints import Checkpoint, sign_checkpoint
from borough.governance.ledger import GENESIS, Draft, Head, Kind, Sealed, seal
from borough.governance.ports.ledger import SignedCheckpoint

MOST_FACETS: Final = 10_000
"""How many kinds of entries are known by heart; the rest is looked up."""

Announce = Callable[[Head, Sequence[Sealed]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Now:
    """Where the ledger stands in the transaction that is being written."""

    head: Head = GENESIS
    latest_ms: int = 0
    most_late_ms: int = 0


class LedgerWriter(Follower):
    """Seals drafts and writes them, in step with the database's writer."""

    def __init__(self, key: SigningKey, *, lease: Lease, announce: Announce) -> None:
        self._key = key
        self.lease = lease
        self._announce = announce
        """Called in the event loop with each group that is on disk, in order."""
        self._now = _Now()
        self._fresh: list[Sealed] = []
        self._facets: dict[tuple[str, str, str], int] = {}

    # -- in step with the database -------------------------------------------------------------------------------------

    def mark(self) -> tuple[_Now, int]:
        """Return where the ledger stands, and how many entries of this group there are."""
        return self._now, len(self._fresh)

    def undo(self, mark: object) -> None:
        """Forget the entries of a step that was undone."""
        assert isinstance(mark, tuple)  # noqa: S101 - what ``mark`` returned
        self._now, kept = mark
        del self._fresh[kept:]
        self._facets.clear()

    def rebuild(self, connection: apsw.Connection) -> None:
        """Read from the tables where the ledger stands."""
        self._fresh.clear()
        self._facets.clear()
        head = tables.head_at(connection, tables.end(connection))
        latest, most_late = connection.execute("SELECT latest_ms, most_late_ms FROM chain").get
        newest = connection.execute("SELECT latest_ms FROM entry WHERE seq = ?", (head.size - 1,)).get
        self._now = _Now(head=head, latest_ms=latest if newest is None else newest, most_late_ms=most_late)

    def committed(self) -> Callable[[], None] | None:
        """Return the announcement of the entries that are on disk now."""
        if not self._fresh:
            return None
        entries, self._fresh = self._fresh, []
        head = self.head
        return lambda: self._announce(head, entries)

    @property
    def head(self) -> Head:
        """Return where the ledger stands."""
        return self._now.head

    # -- steps; each raises ``Conflict`` (``not_ledger_writer``) where the place is another's --------------------------

    def begin(self, connection: apsw.Connection) -> None:
        """Have the place of the ledger's writer, and know where the ledger stands."""
        if self.lease.take(connection):
            self.rebuild(connection)

    def append(self, connection: apsw.Connection, drafts: Sequence[Draft]) -> tuple[Sealed, ...]:
        """Seal and write ``drafts``; one whose id is there already is not written again."""
        self.begin(connection)
        return tuple(tables.by_id(connection, draft.id) or self._append(connection, draft) for draft in drafts)

    def sign(self, connection: apsw.Connection, at: datetime) -> SignedCheckpoint:
        """Sign what is there, or return the newest checkpoint when that is over all of it."""
        self.begin(connection)
        head, key = self._now.head, self._key.verifier
        newest = newest_checkpoint(connection)
        if newest is not None and newest.size == head.size:
            return newest
        checkpoint = Checkpoint(origin=key.name, size=head.size, root=head.frontier.root())
        note, at_ms = sign_checkpoint(checkpoint, key, self._key.sign), tables.floor_ms(at)
        connection.execute("INSERT INTO checkpoint VALUES (?, ?, ?)", (head.size, at_ms, note))
        return SignedCheckpoint(size=head.size, at=from_ms(at_ms), note=note)

    def retain(self, connection: apsw.Connection, before_ms: int, limit: int) -> int:
        """Drop at most ``limit`` of the oldest entries, up to the first that is not from before ``before_ms``."""
        self.begin(connection)
        first = last = tables.chain(connection)[0] - 1
        told: Any = None
        statement = "SELECT seq, at_ms, canonical FROM entry ORDER BY seq LIMIT ?"
        oldest: list[Any] = connection.execute(statement, (limit,)).fetchall()
        for seq, at_ms, canonical in oldest:
            if at_ms >= before_ms:
                break
            last, told = seq, tables.fields(canonical)
            facets = tables.facets_of(told["agent_id"], told.get("on_behalf_of"), told["action"], told["outcome"])
            for number in self._numbers(connection, facets):
                connection.execute("DELETE FROM posting WHERE facet = ? AND seq = ?", (number, seq))
        if told is None:
            return 0
        leaf = tables.node(connection, 0, last)
        assert leaf is not None  # noqa: S101 - every entry has one
        connection.execute(
            "UPDATE chain SET first_seq = ?, hash = ?, leaf = ?, latest_ms = ?",
            (last + 1, told["hash"], leaf.hex(), self._now.latest_ms),
        )
        connection.execute("DELETE FROM entry WHERE seq <= ?", (last,))
        connection.execute("DELETE FROM open_intent WHERE seq <= ?", (last,))
        connection.execute(
            "DELETE FROM checkpoint WHERE size <= ? AND size < (SELECT max(size) FROM checkpoint)", (last,)
        )
        return last - first

    def _append(self, connection: apsw.Connection, draft: Draft) -> Sealed:
        entry, head = seal(draft, self._now.head)
        at_ms = tables.floor_ms(draft.at)
        latest_ms = max(self._now.latest_ms, at_ms)
        connection.execute(
            "INSERT INTO entry VALUES (?, ?, ?, ?, ?)",
            (entry.seq, at_ms, latest_ms, tables.id_key(entry.id), entry.canonical),
        )
        nodes = b"".join([node.hash for node in entry.nodes])
        connection.execute("INSERT INTO tree VALUES (?, ?)", (entry.seq, nodes))
        facets = tables.facets_of(draft.agent_id, draft.on_behalf_of, draft.action, draft.outcome.value)
        for number in self._numbers(connection, facets):
            connection.execute("INSERT INTO posting VALUES (?, ?)", (number, entry.seq))
        if draft.kind is Kind.INTENT:
            connection.execute("INSERT INTO open_intent VALUES (?, ?)", (entry.id, entry.seq))
        elif draft.kind is Kind.OUTCOME:
            connection.execute("DELETE FROM open_intent WHERE id = ?", (draft.intent_id,))
        most_late_ms = self._now.most_late_ms
        if latest_ms - at_ms > most_late_ms:
            most_late_ms = latest_ms - at_ms
            connection.execute("UPDATE chain SET most_late_ms = ?", (most_late_ms,))
        self._now = _Now(head=head, latest_ms=latest_ms, most_late_ms=most_late_ms)
        self._fresh.append(entry)
        return entry

    def _numbers(self, connection: apsw.Connection, facets: list[tuple[str, str, str]]) -> list[int]:
        return [self._facets.get(facet) or self._number(connection, facet) for facet in facets]

    def _number(self, connection: apsw.Connection, facet: tuple[str, str, str]) -> int:
        number: int | None = connection.execute(
            "SELECT number FROM facet WHERE agent = ? AND action = ? AND outcome = ?", facet
        ).get
        if number is None:
            connection.execute("INSERT INTO facet (agent, action, outcome) VALUES (?, ?, ?)", facet)
            number = connection.last_insert_rowid()
        if len(self._facets) >= MOST_FACETS:
            self._facets.clear()
        self._facets[facet] = number
        return number


def newest_checkpoint(connection: apsw.Connection) -> SignedCheckpoint | None:
    """Return the newest checkpoint, if there is one."""
    row = connection.execute("SELECT size, at_ms, note FROM checkpoint ORDER BY size DESC LIMIT 1").get
    return None if row is None else SignedCheckpoint(size=row[0], at=from_ms(row[1]), note=row[2])
