"""What is checked before a ledger is opened: that its newest entries are whole, and are what was signed last."""

from typing import Final

import apsw

from borough.adapters.sql import ledger_tables as tables
from borough.adapters.sql.ledger_reading import export_lines
from borough.adapters.sql.ledger_writing import newest_checkpoint
from borough.core.errors import Conflict, Invalid, NotFound
from borough.governance.checkpoints import VerifierKey, open_checkpoint
from borough.governance.merkle import root_of
from borough.governance.verification import Link, NotWhole, check_entries

CHECKED_ENTRIES: Final = 10_000
"""How many of the newest entries are checked at each opening; ``borough verify`` checks all."""


def check_end(connection: apsw.Connection, key: VerifierKey) -> None:
    """Check the newest entries, the tree above them and the newest checkpoint.

    Raises:
        Conflict: the ledger was altered or damaged (``ledger_broken``).
    """
    try:
        _check_entries(connection)
        _check_checkpoint(connection, key)
    except NotWhole as found:
        raise _broken(f"entry {found.broken.seq}: {found.broken.reason}") from None
    except (LookupError, NotFound, ValueError) as error:
        raise _broken(str(error)) from error
    except Invalid as error:
        raise _broken(f"its newest checkpoint: {error.message}") from error


def _check_entries(connection: apsw.Connection) -> None:
    first, end = tables.chain(connection)[0], tables.end(connection)
    start = max(first, end - CHECKED_ENTRIES)
    head = tables.head_at(connection, start)
    frontier, link = head.frontier, Link(seq=head.size, hash=head.hash, leaf=head.leaf)
    stored = connection.execute("SELECT nodes FROM tree WHERE seq >= ? ORDER BY seq", (start,))
    for leaf, after in check_entries(export_lines(connection, start, end), link):
        frontier, completed = frontier.append(leaf)
        if next(stored, (b"",))[0] != b"".join(node.hash for node in completed):
            raise LookupError(f"the tree is not that of its entries, from entry {after.seq - 1} on")
    if next(stored, None) is not None:
        raise LookupError(f"the tree has more entries than the ledger, which ends before entry {end}")


def _check_checkpoint(connection: apsw.Connection, key: VerifierKey) -> None:
    newest = newest_checkpoint(connection)
    if newest is None:
        return
    checkpoint = open_checkpoint(newest.note, key)
    end = tables.end(connection)
    if checkpoint.size > end:
        raise LookupError(f"{checkpoint.size} entries were signed, and there are {end}")

    def node(level: int, place: int) -> bytes:
        found = tables.node(connection, level, place)
        if found is None:
            raise LookupError(f"the tree lacks node {place} of level {level}")
        return found

    if root_of(checkpoint.size, node) != checkpoint.root:
        raise LookupError(f"the first {checkpoint.size} entries are not those that were signed")


def _broken(reason: str) -> Conflict:
    return Conflict(
        "the ledger was altered or damaged",
        code="ledger_broken",
        reason=reason,
        resolution="keep a copy of the file as it is, find out what wrote to it, and put back a backup; "
        "'borough verify' on an older export says up to where it is whole",
    )
