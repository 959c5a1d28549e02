"""Runs in a file: each change with the event that tells of it, in one step."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Final, Self

import apsw
import msgspec

from borough.adapters.sql.engine import Database
from borough.adapters.sql.fleet import history
from borough.adapters.sql.fleet.rows import Row, ms, row, rows, text
from borough.adapters.sql.governance.following import Following
from borough.core.clock import to_ms, utc_now
from borough.core.errors import Conflict, NotFound
from borough.core.events import Event
from borough.core.paging import Page, PageRequest
from borough.runs.ports import RunFilter
from borough.runs.runs import Run
from borough.runs.states import next_of

FEWEST_CHARACTERS: Final = 4
"""Of an id, for a run to be found by the beginning of it."""
_ADD: Final = """
  INSERT INTO runs (id, state, agent_id, settled, ended_at_ms, labels, revision, document)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?)
  ON CONFLICT (id) DO NOTHING RETURNING number
"""
_SET: Final = """
  UPDATE runs SET state = ?, agent_id = ?, settled = ?, ended_at_ms = ?, labels = ?, revision = ?, document = ?
  WHERE id = ? AND revision = ? RETURNING number
"""
_FORGET: Final = """
  DELETE FROM runs WHERE number IN (
    SELECT number FROM runs WHERE settled = 1 AND ended_at_ms < ? ORDER BY ended_at_ms LIMIT ?
  ) RETURNING id
"""
_DOCUMENT: Final = "SELECT document FROM runs"
_LABELLED: Final = "json_extract(labels, ?) = ?"
_RUN: Final = msgspec.json.Decoder(Run)
_BOUNDS: Final = "SELECT coalesce(min(id) - 1, 0), coalesce(max(id), 0) FROM events"


class SqlRuns:
    """The port ``RunStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._changed: dict[str, set[asyncio.Event]] = {}
        self._told: set[asyncio.Event] = set()
        self._newest = 0
        self._noted: Following[tuple[str, int]] = Following(self._wake, reload=self._everything)
        database.follow(self._noted)

    @classmethod
    async def open(cls, database: Database) -> Self:
        """Return the runs of a file that was opened with ``tables.RUNS``."""
        store = cls(database)
        _, newest = await database.read(_bounds)
        store._newest = newest
        return store

    async def add(self, run: Run) -> Run:
        """Write a new run, or return the one that is there."""

        def step(connection: apsw.Connection) -> Run:
            if row(connection, _ADD, (run.id, *_columns(run))) is None:
                return _get(connection, run.id)
            self._tell(connection, run, "run.admitted", f"{run.name} is admitted", old_state=None)
            return run

        return await self._database.write(step)

    async def get(self, run_id: str) -> Run:
        """Return one, by its id or the beginning of it."""
        return await self._database.read(lambda connection: _find(connection, run_id))

    async def of_agent(self, agent_id: str) -> Run | None:
        """Return the newest run of an agent."""
        wanted = f"{_DOCUMENT} WHERE agent_id = ? ORDER BY number DESC LIMIT 1"
        found = await self._database.read(lambda connection: row(connection, wanted, (agent_id,)))
        return None if found is None else _run(found)

    async def find(self, wanted: RunFilter, page: PageRequest) -> Page[Run]:
        """Return runs, newest first."""
        conditions = ["number < ?"]
        values: list[int | str] = [int(page.after) if page.after else 1 << 62]
        if wanted.state is not None:
            conditions.append("state = ?")
            values.append(wanted.state.value)
        for key, value in wanted.labels.items():
            conditions.append(_LABELLED)
            values += [f"$.{text(key)}", value]
        asked = f"SELECT document, number FROM runs WHERE {' AND '.join(conditions)} ORDER BY number DESC LIMIT ?"  # noqa: S608 - only our own words are in it
        found = await self._database.read(lambda connection: rows(connection, asked, (*values, page.limit + 1)))
        after = str(found[page.limit - 1][1]) if len(found) > page.limit else None
        return Page(items=tuple(map(_run, found[: page.limit])), after=after)

    async def unsettled(self) -> tuple[Run, ...]:
        """Return what there is to be done about, oldest first."""
        wanted = f"{_DOCUMENT} WHERE settled = 0 ORDER BY number"
        return tuple(map(_run, await self._database.read(lambda connection: rows(connection, wanted))))

    async def change(self, run: Run, *, event: str, message: str) -> Run:
        """Write a changed run and its event."""
        changed = replace(run, revision=run.revision + 1)

        def step(connection: apsw.Connection) -> Run:
            before = _get(connection, run.id)
            if row(connection, _SET, (*_columns(changed), run.id, run.revision)) is None:
                raise Conflict(
                    f"{run.name} changed meanwhile", code="stale_run", resolution="read it again and repeat the request"
                )
            self._tell(connection, changed, event, message, old_state=before.state.value)
            return changed

        return await self._database.write(step)

    async def comes(self, run_id: str, *, revision: int) -> None:
        """Return when a run is not at ``revision`` any more."""
        with _waiter(self._changed.setdefault(run_id, set())) as woken:
            while (await self.get(run_id)).revision == revision:
                await woken.wait()
                woken.clear()
        if not self._changed.get(run_id, True):
            del self._changed[run_id]

    async def forget(self, *, ended_before: datetime, limit: int) -> tuple[str, ...]:
        """Drop what ended long ago."""
        values = (to_ms(ended_before), limit)
        gone = await self._database.write(lambda connection: rows(connection, _FORGET, values))
        return tuple(found[0] for found in gone)

    # -- events --------------------------------------------------------------------------------------------------------

    async def events(self, *, after: str, limit: int) -> tuple[Event, ...]:
        """Return what happened after an event, oldest first."""
        number = history.event_number(after)
        return await self._database.read(lambda connection: history.events_after(connection, number, limit))

    async def event_bounds(self) -> tuple[str, str]:
        """Return the ids before the first event that is kept and of the newest."""
        first, newest = await self._database.read(_bounds)
        return str(first), str(newest)

    async def event_comes(self, *, after: str) -> None:
        """Return as soon as there is an event after that one."""
        number = history.event_number(after)
        with _waiter(self._told) as woken:
            while self._newest <= number:
                await woken.wait()
                woken.clear()

    def _tell(self, connection: apsw.Connection, run: Run, event: str, message: str, *, old_state: str | None) -> None:
        number = history.tell(connection, event, message, _subjects(run, old_state), utc_now(), prune=True)
        self._noted.note((run.id, number))

    def _wake(self, noted: tuple[str, int]) -> None:
        run_id, number = noted
        self._newest = max(self._newest, number)
        for woken in (*self._changed.get(run_id, ()), *self._told):
            woken.set()

    def _everything(self, connection: apsw.Connection) -> list[tuple[str, int]]:
        _, newest = _bounds(connection)
        return [(run_id, newest) for run_id in self._changed] or [("", newest)]


@contextmanager
def _waiter(waiters: set[asyncio.Event]) -> Iterator[asyncio.Event]:
    woken = asyncio.Event()
    waiters.add(woken)
    try:
        yield woken
    finally:
        waiters.discard(woken)


def _subjects(run: Run, old_state: str | None) -> dict[str, str]:
    """Return whom an event of a run is about, and how it stands."""
    about = {
        "run_id": run.id,
        "task_id": run.task_id,
        "agent_id": run.agent.id,
        "state": run.state.value,
        "next": next_of(run.state),
    }
    if old_state is not None and old_state != run.state.value:
        about |= {"old_state": old_state, "new_state": run.state.value}
    if run.reason:
        about["reason"] = run.reason
    if run.attempt is not None:
        machine = run.attempt.machine
        about |= {"attempt": str(run.attempt.number), "env_id": machine.env_id, "vm_id": machine.vm_id}
        about |= {"host_id": machine.host_id} if machine.host_id else {}
    return about


def _columns(run: Run) -> Row:
    settled, ended = run.is_over and run.is_clean, ms(run.ended_at)
    labels = text(dict(run.labels))
    return run.state.value, run.agent.id, int(settled), ended, labels, run.revision, text(run)


def _run(found: Row) -> Run:
    return _RUN.decode(found[0])


def _bounds(connection: apsw.Connection) -> tuple[int, int]:
    found = rows(connection, _BOUNDS)[0]
    return found[0], found[1]


def _get(connection: apsw.Connection, run_id: str) -> Run:
    found = row(connection, f"{_DOCUMENT} WHERE id = ?", (run_id,))
    if found is None:
        raise _not_found(run_id)
    return _run(found)


def _find(connection: apsw.Connection, named: str) -> Run:
    """Return the run of an id, or the only one whose id begins so; ``run-`` before it is what names begin with."""
    wanted = named.removeprefix("run-")
    found = row(connection, f"{_DOCUMENT} WHERE id = ?", (wanted,))
    if found is not None:
        return _run(found)
    if len(wanted) < FEWEST_CHARACTERS:
        raise _not_found(named)
    like = rows(connection, f"{_DOCUMENT} WHERE substr(id, 1, ?) = ? LIMIT 2", (len(wanted), wanted))
    if not like:
        raise _not_found(named)
    if len(like) > 1:
        raise Conflict(
            f"more than one run begins with {named[:80]!r}", code="run_ambiguous", resolution="give more of its id"
        )
    return _run(like[0])


def _not_found(run_id: str) -> NotFound:
    return NotFound(f"there is no run {run_id[:80]!r}", code="run_not_found", resolution="list the runs: borough runs")
