"""``Readings`` on Valkey."""

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from borough.adapters.valkey.link import Link
from borough.adapters.valkey.town import records
from borough.adapters.valkey.town.asking import look
from borough.town.agents import AgentState
from borough.town.scaling import AgentReading, Snapshot
from borough.town.tasks import TaskState


class ValkeyReadings:
    """Implements ``borough.town.ports.readings.Readings``."""

    def __init__(self, link: Link, *, durability: Callable[[], Awaitable[str]]) -> None:
        """``durability`` asks the server for its setting, which no function may read."""
        self._link = link
        self._durability = durability

    async def snapshot(self) -> Snapshot:
        """See the port."""
        at, backlog, assigned, urgent, in_flight, delayed, dead, completed, agents, active, is_open, ticks = await look(
            self._link, "town_snapshot"
        )
        return Snapshot(
            at=records.moment(at),
            backlog=backlog,
            assigned=assigned,
            urgent=urgent,
            in_flight=in_flight,
            delayed=delayed,
            dead_letters=dead,
            completed_total=completed,
            agents=tuple(map(_reading, agents)),
            missions_active=active,
            mission_open=bool(is_open),
            mission_last_tick=max(filter(None, map(_tick, ticks)), default=None),
        )

    async def waiting(self) -> Mapping[str | None, int]:
        """See the port."""
        flat = await look(self._link, "town_waiting")
        return {records.text(flat[at]) or None: flat[at + 1] for at in range(0, len(flat), 2)}

    async def counts(self) -> Mapping[TaskState, int]:
        """See the port."""
        flat = await look(self._link, "town_counts")
        return {TaskState(records.text(flat[at])): flat[at + 1] for at in range(0, len(flat), 2)}

    async def ping(self) -> float:
        """See the port."""
        began = time.perf_counter()
        await look(self._link, "town_ping")
        return time.perf_counter() - began

    async def durability(self) -> str:
        """See the port."""
        return await self._durability()


def _reading(raw: Any) -> AgentReading:
    state, active, heartbeat, lease = raw
    return AgentReading(
        state=AgentState(records.text(state)),
        last_active_at=records.moment(active),
        last_heartbeat=records.moment(heartbeat),
        lease_expires_at=records.optional_moment(lease),
    )


def _tick(raw: bytes) -> datetime | None:
    """Missions are written by others: a time that cannot be read counts as none."""
    try:
        tick = datetime.fromisoformat(records.text(raw))
    except ValueError:
        return None
    return tick if tick.tzinfo else tick.replace(tzinfo=UTC)
