"""A ledger that several programs share: its writer is killed, stalled, replaced; nothing is lost or there twice."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance import tables
from borough.adapters.sql.ledger import SqlLedger
from borough.adapters.sql.ledger_lease import LEASE_MS, Holder, holder
from borough.adapters.sql.ledger_submissions import waiting
from borough.adapters.sql.ledger_tables import end
from borough.governance.services.intake import entry_id
from borough.governance.verification import Link, check_entries, read_header

pytestmark = pytest.mark.anyio

Process = subprocess.Popen[str]
Start = Callable[[str, int], Process]
TAKEN_WITHIN_S = LEASE_MS / 1000 + 2
ALL_WITHIN_S = 90.0
MANY, FEW = 700, 60


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    began: list[Process] = []

    def one(who: str, last: int) -> Process:
        argv = [sys.executable, "-m", "tests.faults.ledger_sharers", str(tmp_path / "governance.db"), who, str(last)]
        began.append(subprocess.Popen(argv, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True))
        return began[-1]

    def end_all() -> None:
        for process in began:
            process.kill()

    too_long = threading.Timer(ALL_WITHIN_S, end_all)
    too_long.start()
    yield one
    too_long.cancel()
    for process in began:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


class Seen:
    """The ledger's file as anybody sees it who may read it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def ask(self, question: Callable[[apsw.Connection], Any]) -> Any:
        with closing(apsw.Connection(str(self.file), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
            connection.set_busy_timeout(5_000)
            return question(connection)

    def writer(self) -> Holder:
        found: Holder = self.ask(holder)
        return found

    def stall(self, process: Process) -> None:
        """Let a program stand still between two steps: in the middle of one it would keep all others out."""
        while True:
            process.send_signal(signal.SIGSTOP)
            with closing(apsw.Connection(str(self.file))) as connection:
                connection.set_busy_timeout(1_000)
                try:
                    connection.execute("BEGIN IMMEDIATE; ROLLBACK")
                except apsw.BusyError:
                    process.send_signal(signal.SIGCONT)
                else:
                    return

    def becomes(self, told: Callable[[], bool], within_s: float) -> float:
        began = time.monotonic()
        while not told():
            assert time.monotonic() - began < within_s, self.writer()
            time.sleep(0.02)
        return time.monotonic() - began


def acknowledged(process: Process, number: int) -> None:
    """Wait until a program was told that its acts up to ``number`` are on disk."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip().isdigit() and int(line) >= number:
            return
    raise AssertionError(f"it ended with {process.wait()}")


async def test_the_place_of_a_killed_or_stalled_writer_is_taken(tmp_path: Path, start: Start) -> None:
    seen = Seen(tmp_path / "governance.db")
    first = start("first", FEW)
    acknowledged(first, 9)
    members = {name: start(name, MANY) for name in ("town", "fleet")}
    for each in members.values():
        acknowledged(each, 9)
    first.kill()
    seen.becomes(lambda: not seen.writer().name.startswith("agentd"), TAKEN_WITHIN_S)
    sealed = seen.ask(end)
    seen.becomes(lambda: seen.ask(end) > sealed, 5.0)

    taker = seen.writer().name.partition(" ")[0]
    other = "town" if taker == "fleet" else "fleet"
    members[taker].kill()  # with what it has not finished; it goes on where it was acknowledged
    seen.becomes(lambda: seen.writer().name.startswith(other), TAKEN_WITHIN_S)
    members[taker] = start(taker, MANY)
    first = start("first", FEW)  # whose store it is takes its place at once
    acknowledged(first, FEW)
    assert seen.writer().name.startswith("agentd")

    seen.stall(first)
    stalled = seen.writer()
    seen.becomes(lambda: seen.writer().epoch > stalled.epoch, TAKEN_WITHIN_S)
    first.send_signal(signal.SIGCONT)
    for each in members.values():
        acknowledged(each, MANY)
    seen.becomes(lambda: seen.writer().name == stalled.name and seen.writer().epoch > stalled.epoch + 1, 5.0)
    seen.becomes(lambda: seen.ask(waiting) == 0, 5.0)
    for each in (first, *members.values()):
        each.kill()
        each.wait()

    told = await whole(seen.file)
    for name, last in (("first", FEW), ("town", MANY), ("fleet", MANY)):
        ids = {entry_id(name, f"{number}-0"): number for number in range(last)}
        assert [ids[one["id"]] for one in told if one["id"] in ids] == list(range(last)), name
    assert len(told) == FEW + 2 * MANY


async def whole(file: Path) -> list[dict[str, Any]]:
    """Return every entry, having checked that they are one chain and what was signed."""
    database = await Database.open(file, tables.MIGRATIONS)
    ledger = await SqlLedger.open(database)
    try:
        signed = await ledger.sign_now()
        header, *lines = [line async for line in ledger.export(first_seq=0, size=signed.size)]
        begin = read_header(header)
        checked = list(check_entries(lines, Link(seq=begin.size, hash=begin.hash, leaf=begin.leaf)))
        assert len(checked) == signed.size
        return [json.loads(line.split(b" ", 1)[1]) for line in lines]
    finally:
        await ledger.close()
        await database.close()
