"""The fleet's events for whoever has to read each of them."""

from borough.adapters.sql.fleet.happenings import HistoryRows
from borough.core.events import Event


class OutgoingEvents:
    """The events of one file."""

    def __init__(self, rows: HistoryRows) -> None:
        self._rows = rows

    async def after(self, event_id: str, *, limit: int) -> tuple[Event, ...]:
        """Return events after one ('' is before the first), oldest first."""
        return await self._rows.events(after=event_id, limit=limit)

    async def bounds(self) -> tuple[str, str] | None:
        """Return the ids before the first event that is kept and of the newest; ``None`` where there is none."""
        before_first, newest = await self._rows.event_bounds()
        return None if before_first == newest else (before_first, newest)

    async def forget_read(self, up_to: str) -> None:
        """Drop the oldest events beyond what is kept, none of them after ``up_to``."""
        await self._rows.forget_read_events(up_to=up_to)
