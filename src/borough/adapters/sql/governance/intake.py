"""Up to where other records were taken into the ledger; the position and the entries are one transaction."""

from collections.abc import Sequence

import apsw

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance.rows import row, rows
from borough.adapters.sql.ledger import SqlLedger
from borough.governance.ledger import Draft

_PUT = "INSERT INTO intake VALUES (?, ?) ON CONFLICT (source) DO UPDATE SET position = excluded.position"


def position_of(connection: apsw.Connection, source: str) -> str:
    """Return up to where the acts of ``source`` were taken; '' before the first."""
    found = row(connection, "SELECT position FROM intake WHERE source = ?", (source,))
    return "" if found is None else str(found[0])


def put_position(connection: apsw.Connection, source: str, up_to: str) -> None:
    """Write down up to where the acts of ``source`` were taken."""
    rows(connection, _PUT, (source, up_to))


class SqlIntake:
    """The port ``Intake``, in the ledger's own file."""

    def __init__(self, database: Database, ledger: SqlLedger) -> None:
        self._database = database
        self._ledger = ledger

    async def position(self, source: str) -> str:
        """Return up to where the acts of ``source`` were taken."""
        return await self._database.read(lambda connection: position_of(connection, source))

    async def take(self, source: str, drafts: Sequence[Draft], *, up_to: str) -> None:
        """Seal ``drafts`` and move the position; see ``Intake``."""

        def step(connection: apsw.Connection) -> None:
            self._ledger.append_within(connection, drafts)
            put_position(connection, source, up_to)

        await self._database.write(step)
