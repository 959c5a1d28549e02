"""What happened and what is under way: events and operations."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import apsw
import msgspec

from borough.adapters.sql.fleet.rows import Row, places, row, rows, text
from borough.adapters.sql.fleet.values import OPERATION, operation_of, operation_row
from borough.core.clock import from_ms, to_ms
from borough.core.errors import Invalid, NotFound
from borough.core.events import Event
from borough.core.paging import Page, PageRequest
from borough.fleet.operations import Operation, OperationState

EVENTS_KEPT: Final = 100_000
OPERATIONS_KEPT: Final = 10_000
_PRUNE_EVERY: Final = 1_000

_TELL: Final = "INSERT INTO events (at_ms, type, message, subjects) VALUES (?, ?, ?, ?) RETURNING id"
_FORGET: Final = "DELETE FROM events WHERE id <= ?"
_SAVE: Final = f"""
  INSERT INTO operations ({OPERATION}) VALUES ({places(OPERATION)})
  ON CONFLICT (id) DO UPDATE SET state = excluded.state, ended_at_ms = excluded.ended_at_ms, total = excluded.total,
    started_at_ms = excluded.started_at_ms, done = excluded.done, errors = excluded.errors,
    warnings = excluded.warnings
  RETURNING number
"""
_RUNNING: Final = (
    f"SELECT number, {OPERATION} FROM operations WHERE state = 'running' AND number > ? ORDER BY number LIMIT ?"
)
_NEWEST: Final = f"SELECT number, {OPERATION} FROM operations WHERE number < ? ORDER BY number DESC LIMIT ?"
_MOST: Final = 2**63 - 1
_SUBJECTS: Final = msgspec.json.Decoder(dict[str, str])


def tell(
    connection: apsw.Connection, type_: str, message: str, subjects: Mapping[str, str], at: datetime, *, prune: bool
) -> int:
    """Write an event; return its number. Old ones go when there are too many, where nobody has to read each."""
    number: int = rows(connection, _TELL, (to_ms(at), type_, message, text(subjects)))[0][0]
    if prune and number % _PRUNE_EVERY == 0:
        rows(connection, _FORGET, (number - EVENTS_KEPT,))
    return number


def forget(connection: apsw.Connection, last: int) -> None:
    """Drop the events up to ``last``."""
    rows(connection, _FORGET, (last,))


def events_after(connection: apsw.Connection, after: int, limit: int) -> tuple[Event, ...]:
    """Return events, oldest first."""
    wanted = "SELECT id, at_ms, type, message, subjects FROM events WHERE id > ? ORDER BY id LIMIT ?"
    return tuple(map(_event, rows(connection, wanted, (after, limit))))


def was_planned(connection: apsw.Connection, vm_id: str, host_id: str) -> bool:
    """Tell whether an event says that a machine was placed on a host."""
    subjects = "json_extract(subjects, '$.vm_id') = ? AND json_extract(subjects, '$.host_id') = ?"
    planned = f"SELECT 1 FROM events WHERE type = 'vm.planned' AND {subjects}"
    return row(connection, planned, (vm_id, host_id)) is not None


def store_id(connection: apsw.Connection) -> str:
    """Return what tells this file from every other: numbers of events begin anew in each."""
    found: str = rows(connection, "SELECT value FROM facts WHERE name = 'store_id'")[0][0]
    return found


def oldest_event(connection: apsw.Connection) -> int | None:
    """Return the number of the oldest event that is kept."""
    found: int | None = connection.execute("SELECT min(id) FROM events").get
    return found


def event_number(event_id: str) -> int:
    """Return what ids of events sort by.

    Raises:
        Invalid: it is no such id (``invalid_last_event_id``).
    """
    if not event_id:
        return 0
    if not (event_id.isascii() and event_id.isdigit() and int(event_id) <= _MOST):
        raise Invalid(
            f"{event_id[:64]!r} is no id of an event",
            code="invalid_last_event_id",
            resolution="send the id of the last event that was read, or none",
        )
    return int(event_id)


def save_operation(connection: apsw.Connection, operation: Operation) -> bool:
    """Write an operation; return whether it was not there, or stood otherwise."""
    known = row(connection, "SELECT state FROM operations WHERE id = ?", (operation.id,))
    number = rows(connection, _SAVE, operation_row(operation))[0][0]
    if known is None and number % _PRUNE_EVERY == 0:
        gone = "DELETE FROM operations WHERE number <= ? AND state <> 'running'"
        rows(connection, gone, (number - OPERATIONS_KEPT,))
    return known is None or known[0] != operation.state


def operation(connection: apsw.Connection, operation_id: str) -> Operation:
    """Return an operation; raises ``NotFound`` (``operation_not_found``)."""
    found = row(connection, f"SELECT {OPERATION} FROM operations WHERE id = ?", (operation_id,))
    if found is None:
        raise NotFound(
            f"there is no operation {operation_id[:80]!r}",
            code="operation_not_found",
            resolution="list them: GET /api/operations; old ones are forgotten",
        )
    return operation_of(found)


def operations(connection: apsw.Connection, page: PageRequest, *, running: bool) -> Page[Operation]:
    """Return operations: those under way oldest first, else all, newest first."""
    after = event_number(page.after) if page.after else 0 if running else _MOST
    found = rows(connection, _RUNNING if running else _NEWEST, (after, page.limit + 1))
    shown = found[: page.limit]
    more = str(shown[-1][0]) if len(found) > page.limit else None
    return Page(items=tuple(operation_of(tuple(each[1:])) for each in shown), after=more)


def told_of(operation: Operation) -> tuple[str, str]:
    """Return type and message of the event that tells how an operation stands."""
    what = f"{operation.kind.value} of {operation.subject}"
    if operation.state is OperationState.RUNNING:
        return "operation.started", f"{what} has begun"
    return "operation.ended", f"{what} {operation.state.value}"


def _event(found: Row) -> Event:
    id_, at_ms, type_, message, subjects = found
    return Event(id=str(id_), type=type_, at=from_ms(at_ms), message=message, subjects=_SUBJECTS.decode(subjects))
