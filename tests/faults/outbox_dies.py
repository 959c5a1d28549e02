"""Takes acts into a ledger and kills itself in the middle of the step, after the entries and before the position.

``python -m tests.faults.outbox_dies FILE``
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import apsw

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance import intake, tables
from borough.adapters.sql.ledger import SqlLedger
from borough.governance.ledger import Via
from borough.governance.services.intake import IntakeService
from borough.governance.services.scrubbing import Scrubber
from tests.services.happenings import SOURCE, happenings


def dies(_connection: apsw.Connection, _statement: str, _values: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(file: Path) -> None:
    database = await Database.open(file, tables.MIGRATIONS)
    ledger = await SqlLedger.open(database)
    service = IntakeService(intake.SqlIntake(database, ledger), Scrubber(lambda _digest: False), via=Via.TOWN)
    await service.take(SOURCE, happenings(0, 3), up_to="3-0")
    intake.rows = dies  # type: ignore[assignment] # between the entries and the position
    await service.take(SOURCE, happenings(3, 6), up_to="6-0")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
