"""Counting what happens too often to be recorded one by one: by key and minute, with a limit on the keys."""

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from borough.core.errors import Unavailable

MOST_KEYS = 1000
"""For each minute; what has no room is counted together."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted(Generic[Key]):
    """How often something happened within a minute, since it was last told."""

    minute: datetime
    key: Key | None
    """``None``: everything there was no room for."""
    count: int


@dataclass(slots=True)
class _Count:
    total: int = 0
    told: int = 0


class Tally(Generic[Key]):
    """Counts. What was taken and could not be recorded is given back."""

    def __init__(self, *, most_keys: int = MOST_KEYS, first_at_once: bool = False) -> None:
        """``first_at_once``: what is new within a minute is due at once, and the rest when the minute is over."""
        self._most_keys = most_keys
        self._first_at_once = first_at_once
        self._minutes: dict[datetime, dict[Key | None, _Count]] = {}

    def add(self, key: Key, *, at: datetime) -> None:
        """Count one more."""
        counts = self._minutes.setdefault(at.replace(second=0, microsecond=0), {})
        room = key in counts or len(counts) < self._most_keys
        counts.setdefault(key if room else None, _Count()).total += 1

    def take(self, *, at: datetime, everything: bool = False) -> list[Counted[Key]]:
        """Return what is due, oldest first, and count it as told; ``everything``: also what is not due yet."""
        present = at.replace(second=0, microsecond=0)
        due: list[Counted[Key]] = []
        for minute in sorted(self._minutes):
            counts = self._minutes[minute]
            over = everything or minute < present
            for key, count in counts.items():
                if count.total > count.told and (over or (self._first_at_once and not count.told)):
                    due.append(Counted(minute=minute, key=key, count=count.total - count.told))
                    count.told = count.total
            if minute < present:
                del self._minutes[minute]
        return due

    async def record_due(
        self, record: Callable[[Counted[Key]], Awaitable[object]], *, at: datetime, everything: bool
    ) -> int:
        """Record what is due, as ``take`` has it; return how many entries that were.

        Raises:
            Unavailable: one could not be recorded; it and those after it are kept.
        """
        due = self.take(at=at, everything=everything)
        for place, counted in enumerate(due):
            try:
                await record(counted)
            except Unavailable:
                for rest in due[place:]:
                    self.give_back(rest)
                raise
        return len(due)

    def give_back(self, counted: Counted[Key]) -> None:
        """Count again what could not be recorded."""
        counts = self._minutes.setdefault(counted.minute, {})
        counts.setdefault(counted.key, _Count()).total += counted.count
