"""``Events`` on Valkey."""

import json
import re
from collections.abc import Mapping

from borough.adapters.valkey.link import Link
from borough.adapters.valkey.town import records
from borough.adapters.valkey.town.asking import ask, look
from borough.core.clock import from_ms
from borough.core.errors import Invalid
from borough.core.events import Event
from borough.core.ids import new_id

EVENT_ID = re.compile(r"\d{1,18}(-\d{1,18})?", re.ASCII)


class ValkeyEvents:
    """Implements ``borough.town.ports.events.Events``."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def append(self, event_type: str, message: str, subjects: Mapping[str, str]) -> str:
        """See the port."""
        # The id lets the server recognise the call when a lost answer makes the link repeat it.
        told = json.dumps(dict(subjects), ensure_ascii=False)
        return records.text(await ask(self._link, "town_append_event", new_id(), event_type, message, told))

    async def after(self, event_id: str, *, limit: int) -> tuple[Event, ...]:
        """See the port. ``''`` stands before all events.

        Raises:
            Invalid: ``event_id`` is not one (``invalid_event_id``).
        """
        if event_id and not EVENT_ID.fullmatch(event_id):
            raise Invalid(
                "this is not the id of an event",
                code="invalid_event_id",
                resolution="resume from the id of the last event that was received, or without one",
            )
        return tuple(map(_readable, await look(self._link, "town_events_after", event_id, limit)))

    async def newest(self, *, limit: int, agent: str | None = None) -> tuple[Event, ...]:
        """See the port."""
        found = await look(self._link, "town_newest_events", agent, limit)
        return tuple(map(records.event, reversed(found)))

    async def bounds(self) -> tuple[str, str] | None:
        """See the port."""
        found = await look(self._link, "town_event_bounds")
        return None if found is None else (records.text(found[0]), records.text(found[1]))

    async def keep_until_read(self, *, keep: bool) -> None:
        """See the port."""
        await ask(self._link, "town_keep_events", keep)

    async def forget_read(self, up_to: str) -> int:
        """See the port."""
        return int(await ask(self._link, "town_forget_read_events", up_to))


def _readable(raw: records.Raw) -> Event:
    """Return an entry as an event. One that is none of ours must not stop whoever reads on."""
    try:
        return records.event(raw)
    except (KeyError, TypeError, ValueError) as error:
        event_id = records.text(raw[0])
        at = from_ms(int(event_id.partition("-")[0]))
        return Event(id=event_id, type="unreadable", at=at, message=f"an entry that is no event: {error!r}"[:500])
