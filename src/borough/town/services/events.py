"""Use cases of events: what happened lately, and what happens from here on."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from borough.core.errors import Invalid
from borough.core.events import Event
from borough.core.ids import TaskId
from borough.town.ports.agents import Agents
from borough.town.ports.events import EventFeed, Events

REPLAY_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events; ``None`` means any."""

    agent_id: str | None = None
    task_id: TaskId | None = None
    type: str | None = None

    def admits(self, event: Event) -> bool:
        """Tell whether ``event`` is wanted."""
        return (
            (self.agent_id is None or event.subjects.get("agent_id") == self.agent_id)
            and (self.task_id is None or event.subjects.get("task_id") == self.task_id)
            and (self.type is None or event.type == self.type)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Events between two ids are no longer kept: whoever follows has missed some."""

    after: str
    resumes_at: str


class EventService:
    """Reads the town's stream of events."""

    def __init__(self, events: Events, feed: EventFeed, agents: Agents) -> None:
        self._events = events
        self._feed = feed
        self._agents = agents

    async def wanted(self, *, agent: str | None, task_id: TaskId | None, type_: str | None) -> EventFilter:
        """Return a filter, the agent reference resolved once."""
        agent_id = None if agent is None else (await self._agents.get(agent)).id
        return EventFilter(agent_id=agent_id, task_id=task_id, type=type_)

    async def newest(self, wanted: EventFilter, *, limit: int) -> tuple[Event, ...]:
        """Return the newest events that are wanted, oldest first; a filter looks at the newest 10,000."""
        if wanted == EventFilter():
            return await self._events.newest(limit=limit)
        if wanted.agent_id is not None and wanted.task_id is None and wanted.type is None:
            return await self._events.newest(limit=limit, agent=wanted.agent_id)
        found = [event for event in await self._events.newest(limit=10_000) if wanted.admits(event)]
        return tuple(found[-limit:])

    async def follow(self, wanted: EventFilter, *, after: str | None) -> AsyncIterator[Event | Gap]:
        """Yield what happened after ``after`` (``None``: from now on), then everything as it happens.

        Where the stream no longer reaches back to ``after``, a ``Gap`` comes first.
        """
        async with self._feed.subscribe() as live:
            last = after
            if after is not None:
                bounds = await self._events.bounds()
                if bounds is not None and event_order(after) < event_order(bounds[0]):
                    yield Gap(after=after, resumes_at=bounds[0])
                async for event in self._replay(after):
                    last = event.id
                    if wanted.admits(event):
                        yield event
            # The subscription began before the replay: what both have is told once.
            async for event in live:
                if last is not None and event_order(event.id) <= event_order(last):
                    continue
                if wanted.admits(event):
                    yield event

    async def _replay(self, after: str) -> AsyncIterator[Event]:
        while page := await self._events.after(after, limit=REPLAY_PAGE):
            for event in page:
                yield event
            after = page[-1].id


def event_order(event_id: str) -> tuple[int, int]:
    """Return what ids of events sort by.

    Raises:
        Invalid: it is no such id (``invalid_last_event_id``).
    """
    milliseconds, _, sequence = event_id.partition("-")
    try:
        return int(milliseconds), int(sequence or 0)
    except ValueError:
        raise Invalid(
            f"{event_id[:64]!r} is no id of an event",
            code="invalid_last_event_id",
            resolution="send the id of the last event that was read, or no such header",
        ) from None
