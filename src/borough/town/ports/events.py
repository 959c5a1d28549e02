"""The town's stream of events, and what waits for them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from borough.core.events import Event
from borough.core.ids import AgentId


class Events(Protocol):
    """The town's stream of events; ids rise."""

    async def append(self, event_type: str, message: str, subjects: Mapping[str, str]) -> str:
        """Write an event that belongs to no other change (a refused login, say); return its id."""

    async def after(self, event_id: str, *, limit: int) -> tuple[Event, ...]:
        """Return events after ``event_id``, oldest first."""

    async def newest(self, *, limit: int, agent: str | None = None) -> tuple[Event, ...]:
        """Return the newest events, oldest first; of one agent's own stream if ``agent`` is given."""

    async def bounds(self) -> tuple[str, str] | None:
        """Return the ids of the first and last event that are kept, or ``None`` when there are none."""

    async def keep_until_read(self, *, keep: bool) -> None:
        """Say whether somebody has to read every event: the oldest go only by ``forget_read`` then."""

    async def forget_read(self, up_to: str) -> int:
        """Drop the oldest events beyond what is kept, none of them after ``up_to``; return how many went.

        Where many are unread, none goes: it is asked again.
        """


class Bell(Protocol):
    """Rings when there may be something to do; a spurious ring is allowed, a missed one ends by timeout."""

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a ring; return whether it came in time."""

    def pass_on(self) -> None:
        """Ring for the next in line: this waiter was rung but is gone."""


class EventFeed(Protocol):
    """Events as they happen, fanned out inside this process from one connection."""

    def subscribe(self, *, capacity: int = 1000) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Yield every event from now on. A reader that falls ``capacity`` behind is cut off: its iterator ends."""

    def work_arrives(self, *, timeout_s: float) -> AbstractAsyncContextManager[Bell]:
        """Stand in line for new work; the one who waits longest is woken first."""

    def agent_changes(self, agent_id: AgentId) -> AbstractAsyncContextManager[Bell]:
        """Be woken when something happens to this agent or to the task in its hand."""
