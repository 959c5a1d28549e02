"""What happened in the fleet, and what happens from here on."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from borough.core.events import Event
from borough.fleet.ports.fleet import Fleet

REPLAY_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events; empty means any."""

    type: str | None = None
    subjects: Mapping[str, str] = field(default_factory=dict)
    """What they are about: ``env_id``, ``vm_id``, ``host_id``, ``operation_id``."""

    def admits(self, event: Event) -> bool:
        """Tell whether ``event`` is wanted; a type stands for all that begin with it and a dot."""
        kind = self.type is None or event.type == self.type or event.type.startswith(f"{self.type}.")
        return kind and all(event.subjects.get(name) == value for name, value in self.subjects.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Events after ``after`` are no longer kept: whoever follows has missed some."""

    after: str
    resumes_at: str


class EventService:
    """Reads the fleet's events."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def after(self, wanted: EventFilter, *, after: str, limit: int) -> tuple[tuple[Event, ...], str]:
        """Return events after one ('' is before the first), and the id up to which was looked."""
        looked = await self._fleet.events(after=after, limit=limit)
        return tuple(filter(wanted.admits, looked)), looked[-1].id if looked else after

    async def follow(self, wanted: EventFilter, *, after: str | None) -> AsyncIterator[Event | Gap]:
        """Yield what happened after ``after`` (``None``: from now on), then everything as it happens.

        Where events no longer reach back to ``after``, a ``Gap`` comes first.
        """
        before_first, newest = await self._fleet.event_bounds()
        last = newest if after is None else after
        if after is not None and int(after or 0) < int(before_first):
            yield Gap(after=after, resumes_at=before_first)
            last = before_first
        while True:
            found = await self._fleet.events(after=last, limit=REPLAY_PAGE)
            for event in found:
                last = event.id
                if wanted.admits(event):
                    yield event
            if not found:
                await self._fleet.event_comes(after=last)
