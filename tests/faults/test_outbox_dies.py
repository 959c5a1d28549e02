"""A server that is killed between an entry and the position of its outbox: nothing is lost, nothing is there twice."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance import tables
from borough.adapters.sql.governance.intake import SqlIntake
from borough.adapters.sql.ledger import SqlLedger
from borough.governance.ledger import Via
from borough.governance.ports.ledger import EntryFilter
from borough.governance.services.intake import IntakeService
from borough.governance.services.scrubbing import Scrubber
from tests.services.happenings import SOURCE, happenings

pytestmark = pytest.mark.anyio


async def test_entries_and_position_are_one_step(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    died = subprocess.run(
        [sys.executable, "-m", "tests.faults.outbox_dies", str(file)],
        cwd=Path(__file__).parents[2],
        timeout=60,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL

    database = await Database.open(file, tables.MIGRATIONS)
    ledger = await SqlLedger.open(database)
    try:
        service = IntakeService(SqlIntake(database, ledger), Scrubber(lambda _digest: False), via=Via.TOWN)
        assert await service.position(SOURCE) == "3-0"
        assert (await ledger.head()).size == 3
        # It goes on where it was; what it has already does not come a second time.
        await service.take(SOURCE, happenings(2, 6), up_to="6-0")
        assert await service.position(SOURCE) == "6-0"
        entries = await ledger.newest(EntryFilter(actions=frozenset({"town.note"})), limit=100)
        assert [f"note {number}".encode() in entry.canonical for number, entry in enumerate(entries)] == [True] * 6
    finally:
        await ledger.close()
        await database.close()
