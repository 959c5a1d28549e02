"""The ledger: durable appends against bare SQLite, what old entries cost, and how fast an export is verified."""

import asyncio
import os
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw

from bench.figures import Figure, Section, median, milliseconds, percentile
from borough.adapters.sql.engine import Database
from borough.adapters.sql.ledger import MIGRATIONS, SqlLedger
from borough.adapters.verifying import verify_file
from borough.core.ids import AgentId
from borough.governance.ledger import Draft, Outcome
from borough.governance.ports.ledger import EntryFilter
from borough.governance.verification import Broken, checkpoint_lines

OLD_ENTRIES = int(os.environ.get("BENCH_OLD_ENTRIES", "200000"))
FEW_ENTRIES = 5_000
CALLERS, APPENDS, ROUNDS = 64, 3_000, 11
QUERIES = 40
VERIFIED = 3
AGENTS = [AgentId(str(uuid.UUID(int=number))) for number in range(10)]
ACTIONS = ("ToolInvoke", "ToolInvoke", "MemoryAccess", "AccessDenied", "SecretUse")
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
WANTED = EntryFilter(agents=frozenset({AGENTS[7]}), actions=frozenset({"SecretUse"}))


def draft(number: int) -> Draft:
    return Draft(
        id=str(uuid.uuid4()),
        at=BEGAN + timedelta(milliseconds=10 * number),
        agent_id=AGENTS[number % len(AGENTS)],
        agent_name="reader",
        action=ACTIONS[number // len(AGENTS) % len(ACTIONS)],
        outcome=Outcome.SUCCESS,
        detail='fs.read({"path":"src/main.py"})',
        token_name="ci",
        input_sha256="0" * 64,
        decision_rule="allow fs.read:src/**",
    )


@asynccontextmanager
async def ledger(folder: Path, *, entries: int) -> AsyncIterator[SqlLedger]:
    """Open a ledger that holds ``entries`` already."""
    database = await Database.open(folder / "ledger.db", MIGRATIONS)
    opened = await SqlLedger.open(database)
    for start in range(0, entries, 500):
        await opened.append([draft(number) for number in range(start, min(start + 500, entries))])
    yield opened
    await opened.close()
    await database.close()


async def append_round(opened: SqlLedger, count: int = APPENDS) -> tuple[float, list[float]]:
    """Append from many callers, one entry at a time each; return appends a second and the time of each."""
    size = (await opened.head()).size
    drafts = iter([draft(size + number) for number in range(count)])
    latencies_s: list[float] = []

    async def work() -> None:
        for one in drafts:
            began = time.perf_counter()
            await opened.append([one])
            latencies_s.append(time.perf_counter() - began)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(work())
    return count / (time.perf_counter() - began), latencies_s


def bare_round(folder: Path, canonical: bytes, count: int = APPENDS) -> float:
    """Insert rows of the same bytes into one table, as many a commit as there are callers; return rows a second."""
    connection = apsw.Connection(str(folder / "bare.db"))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS entry (seq INTEGER PRIMARY KEY, canonical BLOB NOT NULL) STRICT")
    began = time.perf_counter()
    for _ in range(count // CALLERS):
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(CALLERS):
            connection.execute("INSERT INTO entry (canonical) VALUES (?)", (canonical,))
        connection.execute("COMMIT")
    seconds = time.perf_counter() - began
    connection.close()
    return count // CALLERS * CALLERS / seconds


async def timed(act: Callable[[], Awaitable[object]], count: int) -> float:
    """Return the median time of ``act``."""
    times_s = []
    for _ in range(count):
        began = time.perf_counter()
        await act()
        times_s.append(time.perf_counter() - began)
    return median(times_s)


async def export(opened: SqlLedger, file: Path) -> int:
    """Write an export and return how many entries it has."""
    signed = await opened.sign_now()
    with file.open("wb") as out:
        async for line in opened.export(first_seq=0, size=signed.size):
            out.write(line)
        out.write(checkpoint_lines(signed.note))
    return signed.size


def verified(opened: SqlLedger, file: Path, entries: int, *, processes: int) -> float:
    """Return entries a second, the median of some rounds."""
    rates = []
    for _ in range(VERIFIED):
        began = time.perf_counter()
        found = verify_file(file, opened.key, processes=processes)
        seconds = time.perf_counter() - began
        if isinstance(found, Broken):
            raise RuntimeError(f"the export is not whole: {found}")  # noqa: TRY004 - of the ledger, not of a type
        rates.append(entries / seconds)
    return median(rates)


async def measure() -> Section:
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        root = Path(folder)
        async with (
            ledger(root / "few", entries=FEW_ENTRIES) as few,
            ledger(root / "many", entries=OLD_ENTRIES) as many,
        ):
            canonical = (await few.get(0)).canonical
            runs, old_runs, bare, few_s, many_s = [], [], [], [], []
            for _ in range(ROUNDS):  # in turns, so that a busy moment hits all alike
                runs.append(await append_round(few))
                old_runs.append(await append_round(many))
                bare.append(bare_round(root, canonical))
                few_s.append(await timed(lambda: few.newest(WANTED, limit=100), QUERIES))
                many_s.append(await timed(lambda: many.newest(WANTED, limit=100), QUERIES))
            entries = await export(many, root / "export")
            alone = verified(many, root / "export", entries, processes=1)
            together = verified(many, root / "export", entries, processes=cores)
    rate, latencies_s = sorted(runs)[ROUNDS // 2]
    append_ratio = median([new[0] / old[0] for new, old in zip(runs, old_runs, strict=True)])
    query_ratio = median([old_s / new_s for new_s, old_s in zip(few_s, many_s, strict=True)])
    spread = f"{milliseconds(percentile(latencies_s, 50))} / {milliseconds(percentile(latencies_s, 99))}"
    return Section(
        name="ledger",
        title="The ledger",
        how=(
            f"{CALLERS} callers append one entry of {len(canonical)} bytes at a time; an answer means on disk "
            f"(`synchronous=FULL`). *Bare* is one table of the same bytes, {CALLERS} rows a commit, one thread and no "
            f"chain. Old entries: {OLD_ENTRIES:,} against {FEW_ENTRIES:,}; the query is the newest 100 of one agent "
            f"and action. Median of {ROUNDS} rounds, in turns, ratios round by round. `BENCH_OLD_ENTRIES` sets n."
        ),
        figures=[
            Figure(what="durable appends", value=f"{rate:,.0f}/s", goal="at least 5,000/s", met=rate >= 5000),
            Figure(what="append, p50 / p99", value=spread),
            Figure(what="bare SQLite", value=f"{median(bare):,.0f}/s"),
            Figure(what="share of bare", value=f"{rate / median(bare):.2f}"),
            Figure(
                what=f"append with {OLD_ENTRIES:,} old entries, ratio",
                value=f"{append_ratio:.2f}",
                goal="≤ 1.3",
                met=append_ratio <= 1.3,
            ),
            Figure(what="filtered query", value=milliseconds(median(few_s))),
            Figure(
                what=f"filtered query with {OLD_ENTRIES:,} old entries, ratio",
                value=f"{query_ratio:.2f}",
                goal="≤ 1.3",
                met=query_ratio <= 1.3,
            ),
            Figure(
                what="verified by one process",
                value=f"{alone:,.0f} entries/s",
                goal="at least 60,000/s",
                met=alone >= 60_000,
            ),
            Figure(what=f"verified by {cores}", value=f"{together:,.0f} entries/s"),
        ],
    )
