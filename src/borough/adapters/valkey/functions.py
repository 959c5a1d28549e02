"""The library of server-side functions: its source, put together from tables that Python owns and Lua files.

The tables of legal moves, the fields of records and every limit are written once, here or in ``borough.town``, so
that the store cannot follow other rules than the rest of the town.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from importlib.resources import files
from typing import TypeVar

from borough.adapters.valkey.town.records import AGENT_FIELDS, MESSAGE_FIELDS, TASK_FIELDS
from borough.core.ids import SHORT_LENGTH
from borough.town import agents, names, tasks
from borough.town.texts import MAX_TEXT_BYTES

State = TypeVar("State", bound=StrEnum)

LIBRARY_NAME = "borough_town"
FILES = (
    *("common", "queues", "tasks", "agents", "mailbox"),
    *("task_calls", "agent_calls", "leases", "events", "readings", "administration"),
)
"""In this order: later files use what earlier ones define."""

LIMITS: Mapping[str, int] = {
    "HISTORY_LENGTH": 50,
    "EVENTS_LENGTH": 100_000,
    "UNREAD_EVENTS": 1000,
    "AGENT_EVENTS_LENGTH": 100,
    "EXCERPT_BYTES": 200,
    "REASON_BYTES": 500,
    "MAILBOX_LENGTH": 1000,
    "MAIL_PER_LEASE": 100,
    "MAIL_BYTES_PER_LEASE": 4 * MAX_TEXT_BYTES,
    "PROMOTE_LIMIT": 16,
    "FIND_LOOKS": 5000,
    "ONCE_MS": 600_000,
    "REPORT_GRACE_MS": 120_000,
    "SHORT_LENGTH": SHORT_LENGTH,
}
"""Lengths of histories, streams and mailboxes; what one call may hand out or look at; the grace of ``is_live``."""


def library_source() -> str:
    """Return the whole library, ready for ``FUNCTION LOAD REPLACE``."""
    folder = files("borough.adapters.valkey") / "functions"
    parts = [(folder / f"{name}.lua").read_text(encoding="utf-8") for name in FILES]
    return "\n".join([f"#!lua name={LIBRARY_NAME}", *_tables(), *parts])


def _tables() -> list[str]:
    ended, active = agents.PRUNABLE, agents.ACTIVE
    values = {
        "TASK_MOVES": _moves(tasks.MOVES),
        "TASK_TERMINAL": _set(tasks.TERMINAL),
        "TASK_REPLAYABLE": _set(tasks.REPLAYABLE),
        "TASK_STATES": _list(tasks.TaskState),
        "AGENT_MOVES": _moves(agents.MOVES),
        "AGENT_ENDED": _set(ended),
        "AGENT_ACTIVE": _set(active),
        "TASK_FIELDS": _list(TASK_FIELDS),
        "AGENT_FIELDS": _list(AGENT_FIELDS),
        "MESSAGE_FIELDS": _list(MESSAGE_FIELDS),
        "SUPERVISOR_ID": _text(names.SUPERVISOR_ID),
        "SUPERVISOR_NAMES": _set(names.SUPERVISOR_NAMES),
        "DEFAULT_ROLE": _text(names.DEFAULT_ROLE),
        "GENERALIST_ROLES": _set(names.GENERALIST_ROLES),
        **{name: str(value) for name, value in LIMITS.items()},
    }
    return [f"local {name} = {value}" for name, value in values.items()]


def _text(text: str) -> str:
    return f"'{text}'"


def _list(words: Iterable[str]) -> str:
    return "{" + ", ".join(_text(word) for word in words) + "}"


def _set(words: Iterable[str]) -> str:
    return "{" + ", ".join(f"[{_text(word)}] = true" for word in sorted(words)) + "}"


def _moves(moves: Mapping[State, frozenset[State]]) -> str:
    return "{" + ", ".join(f"[{_text(old)}] = {_set(new)}" for old, new in moves.items()) + "}"
