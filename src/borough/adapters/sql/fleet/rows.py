"""Rows and single values, as the fleet's stores read and write them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import apsw
import msgspec

from borough.core.clock import from_ms, to_ms

Row = tuple[Any, ...]
"""A row's columns, in the order in which they were asked for; each store knows their types."""


def rows(connection: apsw.Connection, statement: str, values: Sequence[Any] = ()) -> list[Row]:
    """Run a statement and return all its rows."""
    return connection.execute(statement, tuple(values)).fetchall()


def row(connection: apsw.Connection, statement: str, values: Sequence[Any] = ()) -> Row | None:
    """Run a statement and return its one row, if it has one."""
    found = rows(connection, statement, values)
    return found[0] if found else None


def places(columns: str) -> str:
    """Return as many question marks as there are ``columns``."""
    return ", ".join("?" for _ in columns.split(","))


def text(value: object) -> str:
    """Return a value as JSON text."""
    return msgspec.json.encode(value).decode()


def ms(moment: datetime | None) -> int | None:
    """Return a moment as it is stored."""
    return None if moment is None else to_ms(moment)


def moment(milliseconds: int | None) -> datetime | None:
    """Return a stored moment."""
    return None if milliseconds is None else from_ms(milliseconds)


def stored(at: datetime) -> datetime:
    """Return a moment as it will be read again."""
    return from_ms(to_ms(at))
