"""One of the programs that share a ledger: the first of them, or one that hands in. Made to be killed at any moment.

``python -m tests.faults.ledger_sharers FILE first|NAME LAST``: records acts 1 to LAST, a few at a time, as fast as it
goes, and prints each number that was acknowledged; then it goes on doing a writer's work.
"""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance import tables
from borough.adapters.sql.governance.intake import SqlIntake
from borough.adapters.sql.ledger import SqlLedger
from borough.adapters.sql.ledger_member import LedgerMember
from borough.core.errors import Unavailable
from borough.governance.ledger import Via
from borough.governance.ports.ledger import Intake
from borough.governance.services.intake import IntakeService
from borough.governance.services.scrubbing import Scrubber
from tests.services.happenings import happenings

AT_ONCE = 3
PAUSE_S = 0.02


async def record(intake: Intake, source: str, last: int) -> None:
    service = IntakeService(intake, Scrubber(lambda _digest: False), via=Via.TOWN)
    done = int((await service.position(source)).partition("-")[0] or 0)
    print(done, flush=True)  # noqa: T201 - what the test reads
    while done < last:
        end = min(done + AT_ONCE, last)
        with suppress(Unavailable):  # the others had the file all the time: it is handed in again, as programs do
            await service.take(source, happenings(done, end), up_to=f"{end}-0")
            done = end
            print(done, flush=True)  # noqa: T201 - what the test reads
        await asyncio.sleep(PAUSE_S)


async def first(file: Path, last: int) -> None:
    database = await Database.open(file, tables.MIGRATIONS)
    ledger = await SqlLedger.open(database, shared=True)
    recording = asyncio.create_task(record(SqlIntake(database, ledger), "first", last))
    while True:
        with suppress(Unavailable):
            if await ledger.is_due():
                await ledger.keep_place()
        await asyncio.sleep(0.05)
        if recording.done():
            await recording


async def member(file: Path, name: str, last: int) -> None:
    shared = LedgerMember(file, tables.MIGRATIONS, program=name)
    recording = asyncio.create_task(record(shared, name, last))
    while True:
        with suppress(Unavailable):
            await shared.stand()
        await asyncio.sleep(0.05)
        if recording.done():
            await recording


if __name__ == "__main__":
    path, who, until = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    asyncio.run(first(path, until) if who == "first" else member(path, who, until))
