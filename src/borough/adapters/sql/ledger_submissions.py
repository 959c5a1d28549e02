"""What was handed in for the ledger by programs that do not write it, in the ledger's own file.

A submission is on disk when its submitter goes on. The writer seals it and removes it in one transaction; its id keeps
it from being there twice, whoever dies when. Numbers grow with each commit: what one program hands in keeps its order.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, Final

import apsw
import msgspec

from borough.adapters.sql import ledger_tables as tables
from borough.adapters.sql.ledger_writing import LedgerWriter
from borough.governance.ledger import GENESIS, Draft, Kind, Outcome, Via, seal

AT_ONCE: Final = 500
"""How many are sealed in one step."""


def submit(connection: apsw.Connection, drafts: Sequence[Draft]) -> None:
    """Hand drafts in; those that were handed in or sealed before are passed over.

    Raises:
        Invalid: one cannot be sealed.
    """
    for draft in drafts:
        seal(draft, GENESIS)  # so that the writer can, whatever comes before it
        if tables.by_id(connection, draft.id) is None:
            statement = "INSERT OR IGNORE INTO submission (id, draft) VALUES (?, ?)"
            connection.execute(statement, (draft.id, _written(draft)))


def waiting(connection: apsw.Connection) -> int:
    """Return how many are not sealed yet."""
    found: int = connection.execute("SELECT count(*) FROM submission").get
    return found


def drain(connection: apsw.Connection, writer: LedgerWriter) -> int:
    """Seal the oldest, at most ``AT_ONCE``, and return how many; ``writer`` has the place."""
    statement = "SELECT number, draft FROM submission ORDER BY number LIMIT ?"
    rows: list[Any] = connection.execute(statement, (AT_ONCE,)).fetchall()
    if rows:
        writer.append(connection, [_read(draft) for _number, draft in rows])
        connection.execute("DELETE FROM submission WHERE number <= ?", (rows[-1][0],))
    return len(rows)


def _written(draft: Draft) -> bytes:
    told = {each.name: getattr(draft, each.name) for each in fields(Draft)}
    return msgspec.json.encode(told | {"at": draft.at.isoformat(), "data": dict(draft.data)})


def _read(written: bytes) -> Draft:
    told: dict[str, Any] = msgspec.json.decode(written)
    return replace(
        Draft(**told),
        at=datetime.fromisoformat(told["at"]),
        outcome=Outcome(told["outcome"]),
        kind=Kind(told["kind"]),
        via=Via(told["via"]),
    )
