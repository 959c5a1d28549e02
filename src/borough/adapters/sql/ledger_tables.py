"""The ledger's tables, and entries as they are written to them and read from them.

* ``entry``: one row an entry, its canonical bytes; ``latest_ms`` is the newest time among it and all before it, so
  that it grows with ``seq`` even where clocks do not.
* ``tree``: for each entry the nodes of the Merkle tree that it completed, its leaf first, one after the other. The
  node at a level and a place was completed by entry ``((place + 1) << level) - 1``. Kept when entries are dropped.
* ``facet`` and ``posting``: for each agent (also ``*``, any), action and outcome that occurred together the entries
  of that kind. What a filter wants is a merge of such lists, however many entries there are of other kinds.
* ``open_intent``: intents that have no outcome. ``chain``: what the first kept entry is bound to.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

import apsw
import orjson

from borough.adapters.sql import ledger_lease
from borough.adapters.sql.engine import Migration
from borough.governance.ledger import GENESIS, Head, Sealed
from borough.governance.merkle import HASH_BYTES, CompleteNode, Frontier

TABLES: Final = (
    """CREATE TABLE entry (
        seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, latest_ms INTEGER NOT NULL, id_key INTEGER NOT NULL,
        canonical BLOB NOT NULL
    ) STRICT""",
    "CREATE INDEX entry_by_id ON entry (id_key)",
    "CREATE TABLE tree (seq INTEGER PRIMARY KEY, nodes BLOB NOT NULL) STRICT",
    """CREATE TABLE facet (
        number INTEGER PRIMARY KEY, agent TEXT NOT NULL, action TEXT NOT NULL, outcome TEXT NOT NULL,
        UNIQUE (agent, action, outcome)
    ) STRICT""",
    """CREATE TABLE posting (
        facet INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (facet, seq)
    ) STRICT, WITHOUT ROWID""",
    "CREATE TABLE open_intent (id TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE checkpoint (size INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, note TEXT NOT NULL) STRICT",
    """CREATE TABLE chain (
        one INTEGER PRIMARY KEY CHECK (one = 1), first_seq INTEGER NOT NULL, hash TEXT NOT NULL, leaf TEXT NOT NULL,
        latest_ms INTEGER NOT NULL, most_late_ms INTEGER NOT NULL
    ) STRICT""",
    f"INSERT INTO chain VALUES (1, 0, '{GENESIS.hash}', '{GENESIS.leaf}', 0, 0)",  # noqa: S608 - constants of ours
)
MIGRATIONS: Final = (Migration(number=1, statements=TABLES), Migration(number=2, statements=ledger_lease.TABLES))

ANY_AGENT: Final = "*"
"""Stands for every agent; no agent's id."""
_UUID_CHARACTERS: Final = 36
_HALF: Final = 2**63
"""SQLite's integers have a sign."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def floor_ms(moment: datetime) -> int:
    """Return the milliseconds since the epoch that an entry shows for ``moment``: what is beyond them is cut off."""
    return (moment - _EPOCH) // _MILLISECOND


def ceiling_ms(moment: datetime) -> int:
    """Return the first millisecond that is not before ``moment``."""
    return -((_EPOCH - moment) // _MILLISECOND)


def id_key(entry_id: str) -> int:
    """Return a number by which an entry's id is found; different ids may share it.

    Ids that grow with time have keys that do, and then the index is written at its end only.
    """
    if len(entry_id) == _UUID_CHARACTERS:
        try:
            return int(entry_id[:8] + entry_id[9:13] + entry_id[14:18], 16) - _HALF
        except ValueError:  # as long as a UUID, and none
            return _digest_key(entry_id)
    return _digest_key(entry_id)


def _digest_key(entry_id: str) -> int:
    return int.from_bytes(blake2b(entry_id.encode(), digest_size=8).digest(), "big") - _HALF


def fields(canonical: bytes) -> Mapping[str, Any]:
    """Return an entry's fields."""
    found: dict[str, Any] = orjson.loads(canonical)
    return found


def node(connection: apsw.Connection, level: int, place: int) -> bytes | None:
    """Return the hash of a complete node of the tree, or ``None`` when it is not complete."""
    seq = ((place + 1) << level) - 1
    statement = "SELECT substr(nodes, ?, 32) FROM tree WHERE seq = ?"
    found: bytes | None = connection.execute(statement, (1 + HASH_BYTES * level, seq)).get
    return found or None


def frontier_at(connection: apsw.Connection, size: int) -> Frontier:
    """Return what appending to the first ``size`` entries needs of their tree."""
    roots, covered = [], 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            root = node(connection, level, covered >> level)
            if root is None:
                raise LookupError(f"the tree lacks node {covered >> level} of level {level}")
            roots.append(root)
            covered += 1 << level
    return Frontier(size=size, roots=tuple(roots))


def head_at(connection: apsw.Connection, size: int) -> Head:
    """Return the head after the first ``size`` entries.

    Raises:
        LookupError: the entry that it tells of was dropped, or never was.
    """
    first_seq, hash_, leaf = chain(connection)
    if size != first_seq:
        row = connection.execute(f"{ENTRIES} WHERE entry.seq = ?", (size - 1,)).get
        if row is None:
            raise LookupError(f"there is no entry {size - 1}")
        before = sealed(row)
        hash_, leaf = before.hash, before.leaf.hex()
    return Head(size=size, hash=hash_, leaf=leaf, frontier=frontier_at(connection, size))


def chain(connection: apsw.Connection) -> tuple[int, str, str]:
    """Return the first kept entry's number, and the two hashes that it is bound to."""
    found: tuple[int, str, str] = connection.execute("SELECT first_seq, hash, leaf FROM chain").get
    return found


def end(connection: apsw.Connection) -> int:
    """Return how many entries there are, dropped ones included."""
    found: int = connection.execute(
        "SELECT coalesce((SELECT max(seq) + 1 FROM entry), (SELECT first_seq FROM chain))"
    ).get
    return found


ENTRIES: Final = "SELECT entry.seq, entry.canonical, tree.nodes FROM entry JOIN tree ON tree.seq = entry.seq"
"""What ``sealed`` reads; a condition may follow."""


def sealed(row: tuple[int, bytes, bytes]) -> Sealed:
    """Return the entry in a row of ``ENTRIES``."""
    seq, canonical, nodes = row
    told = fields(canonical)
    hashes = [nodes[at : at + HASH_BYTES] for at in range(0, len(nodes), HASH_BYTES)]
    return Sealed(
        seq=seq,
        id=told["id"],
        canonical=canonical,
        leaf=hashes[0],
        hash=told["hash"],
        nodes=tuple(CompleteNode(level=level, place=seq >> level, hash=hash_) for level, hash_ in enumerate(hashes)),
    )


def by_id(connection: apsw.Connection, entry_id: str) -> Sealed | None:
    """Return the entry with this id, if there is one."""
    for (seq,) in connection.execute("SELECT seq FROM entry WHERE id_key = ?", (id_key(entry_id),)):
        row: Any = connection.execute(f"{ENTRIES} WHERE entry.seq = ?", (seq,)).get
        if (found := sealed(row)).id == entry_id:
            return found
    return None


def facets_of(agent: str, behalf: str | None, action: str, outcome: str) -> list[tuple[str, str, str]]:
    """Return the kinds under which an entry is found."""
    agents = {ANY_AGENT, agent} if behalf is None else {ANY_AGENT, agent, behalf}
    return [(one, action, outcome) for one in agents]
