"""Conditions: what must hold besides the capability before a rule applies. Evaluated from given facts only.

A condition holds, fails, or cannot be told. What cannot be told never helps the caller: it fails where the rule
allows and holds where the rule forbids.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from enum import Enum
from functools import lru_cache
from typing import Protocol

from borough.governance.budgets import NOTHING_SPENT, Limits, Spent, exhausted
from borough.governance.globs import Glob

MINUTES_PER_DAY = 24 * 60
RATE_WINDOW_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What conditions may look at."""

    at: datetime
    arguments: Mapping[str, object] = field(default_factory=dict)
    calls_last_minute: Mapping[str, int] = field(default_factory=dict)
    """By rule id: how many calls the rule let pass within the last 60 seconds."""
    spent: Spent = NOTHING_SPENT


class Truth(Enum):
    """Whether a condition holds."""

    HOLDS = "holds"
    FAILS = "fails"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The truth of one condition, and what to say when it stands in the way."""

    truth: Truth
    code: str = "condition_not_met"
    reason: str = ""
    retry_after_s: int | None = None


HOLDS = Finding(truth=Truth.HOLDS)


class Condition(Protocol):
    """One thing that must hold."""

    def find(self, facts: Facts) -> Finding:
        """Return whether it holds for ``facts``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentMatches:
    """The argument at a JSON Pointer (RFC 6901) is a string that matches one of some globs.

    Numbers and booleans count as their JSON text; an absent argument fails; objects, lists and null cannot be told.
    """

    pointer: str
    one_of: tuple[Glob, ...]
    _mismatch: Finding = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Told ahead: most rules do not apply, and a call looks at many of them.
        object.__setattr__(self, "_mismatch", Finding(truth=Truth.FAILS, reason=str(self)))

    def find(self, facts: Facts) -> Finding:
        """Return whether the argument matches."""
        found, value = at_pointer(facts.arguments, self.pointer)
        if not found:
            return Finding(truth=Truth.FAILS, reason=f"{self}, and it is not given")
        text = _as_text(value)
        if text is None:
            return Finding(truth=Truth.UNKNOWN, reason=f"{self}, and it is no plain value")
        for glob in self.one_of:
            if glob.matches(text):
                return HOLDS
        return self._mismatch

    def __str__(self) -> str:
        """Return the condition in words."""
        return f"argument {self.pointer} has to match {' or '.join(glob.pattern for glob in self.one_of)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentAtMost:
    """The argument at a JSON Pointer is a number no greater than a limit; what is no number cannot be told."""

    pointer: str
    limit: int

    def find(self, facts: Facts) -> Finding:
        """Return whether the argument is small enough."""
        found, value = at_pointer(facts.arguments, self.pointer)
        reason = f"argument {self.pointer} has to be at most {self.limit}"
        if not found:
            return Finding(truth=Truth.FAILS, reason=f"{reason}, and it is not given")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return Finding(truth=Truth.UNKNOWN, reason=f"{reason}, and it is no number")
        return HOLDS if value <= self.limit else Finding(truth=Truth.FAILS, reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class RatePerMinute:
    """The rule ``rule`` let fewer than ``limit`` calls pass within the last 60 seconds."""

    rule: str
    limit: int

    def find(self, facts: Facts) -> Finding:
        """Return whether there is room for one more."""
        if facts.calls_last_minute.get(self.rule, 0) < self.limit:
            return HOLDS
        return Finding(
            truth=Truth.FAILS,
            code="rate_exceeded",
            reason=f"{self.limit} calls within the last minute are the most that it allows",
            retry_after_s=RATE_WINDOW_S,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeWindow:
    """It is one of some weekdays, from ``start_minute`` on and before ``end_minute``, at a fixed offset from UTC.

    A window that ends before it begins runs over midnight and belongs to the day on which it began.
    """

    start_minute: int = 0
    end_minute: int = MINUTES_PER_DAY
    weekdays: frozenset[int] = frozenset(range(7))
    """0 is Monday."""
    utc_offset_minutes: int = 0

    def find(self, facts: Facts) -> Finding:
        """Return whether it is the time."""
        local = facts.at.astimezone(timezone(timedelta(minutes=self.utc_offset_minutes)))
        minute = local.hour * 60 + local.minute
        today = local.weekday()
        if self.start_minute < self.end_minute:
            holds = today in self.weekdays and self.start_minute <= minute < self.end_minute
        else:
            yesterday = (today - 1) % 7
            late = today in self.weekdays and minute >= self.start_minute
            holds = late or (yesterday in self.weekdays and minute < self.end_minute)
        if holds:
            return HOLDS
        return Finding(truth=Truth.FAILS, code="outside_time_window", reason=f"it holds {self} only")

    def __str__(self) -> str:
        """Return the window in words."""
        days = "" if len(self.weekdays) == len(_DAYS) else " on " + ", ".join(_DAYS[d] for d in sorted(self.weekdays))
        return f"from {_clock(self.start_minute)} to {_clock(self.end_minute)}{days} ({_offset(self)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class WithinBudget:
    """The agent has spent less than some limits."""

    limits: Limits

    def find(self, facts: Facts) -> Finding:
        """Return whether something is left of each limit."""
        over = exhausted(self.limits, facts.spent)
        if over is None:
            return HOLDS
        return Finding(truth=Truth.FAILS, code="budget_exceeded", reason=str(over))


@dataclass(frozen=True, slots=True, kw_only=True)
class Until:
    """It is earlier than a moment."""

    moment: datetime

    def find(self, facts: Facts) -> Finding:
        """Return whether the moment lies ahead."""
        if facts.at < self.moment:
            return HOLDS
        return Finding(truth=Truth.FAILS, code="expired", reason=f"it expired at {self.moment.isoformat()}")


def at_pointer(document: object, pointer: str) -> tuple[bool, object]:
    """Return whether there is something at ``pointer`` (RFC 6901) in ``document``, and what."""
    value = document
    for token in _tokens(pointer):
        if (type(value) is dict or isinstance(value, Mapping)) and token in value:
            value = value[token]
        elif isinstance(value, list) and token.isascii() and token.isdigit() and int(token) < len(value):
            value = value[int(token)]
        else:
            return False, None
    return True, value


@lru_cache(maxsize=4096)
def _tokens(pointer: str) -> tuple[str, ...]:
    return tuple(raw.replace("~1", "/").replace("~0", "~") for raw in pointer.split("/")[1:])


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def _as_text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return None


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _offset(window: TimeWindow) -> str:
    minutes = window.utc_offset_minutes
    return "UTC" if not minutes else f"UTC{'-' if minutes < 0 else '+'}{_clock(abs(minutes))}"
