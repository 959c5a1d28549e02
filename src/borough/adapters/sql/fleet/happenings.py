"""Operations and events of the fleet, and those who wait for the next."""

import asyncio
from collections.abc import Mapping

import apsw

from borough.adapters.sql.fleet import history
from borough.adapters.sql.fleet.base import FleetRows
from borough.core.events import Event
from borough.core.paging import Page, PageRequest
from borough.fleet.operations import Operation
from borough.fleet.vms import VmId


class HistoryRows(FleetRows):
    """The part of the port ``Fleet`` that is about operations and events."""

    async def save_operation(self, operation: Operation) -> None:
        """Write an operation as it stands."""
        await self._write(lambda connection: self._save_operation(connection, operation))

    async def operation(self, operation_id: str) -> Operation:
        """Return one."""
        return await self._database.read(lambda connection: history.operation(connection, operation_id))

    async def operations(self, *, running: bool, page: PageRequest) -> Page[Operation]:
        """Return operations, newest first; those under way oldest first."""
        return await self._database.read(lambda connection: history.operations(connection, page, running=running))

    async def append_event(self, type_: str, message: str, subjects: Mapping[str, str]) -> None:
        """Write an event that belongs to no other change."""
        await self._write(lambda connection: self._tell(connection, (type_, message), subjects))

    async def events(self, *, after: str, limit: int) -> tuple[Event, ...]:
        """Return what happened after an event, oldest first."""
        number = history.event_number(after)
        return await self._database.read(lambda connection: history.events_after(connection, number, limit))

    async def was_planned(self, vm_id: VmId, host_id: str) -> bool:
        """Tell whether an event that is kept says that this fleet placed a machine on a host."""
        return await self._database.read(lambda connection: history.was_planned(connection, vm_id, host_id))

    async def event_bounds(self) -> tuple[str, str]:
        """Return the ids before the first event that is kept and of the newest."""
        newest = self._reading.newest_event
        oldest = await self._database.read(history.oldest_event)
        return str(newest if oldest is None else oldest - 1), str(newest)

    async def store_id(self) -> str:
        """Return what tells this file from every other."""
        return await self._database.read(history.store_id)

    def keep_events_until_read(self) -> None:
        """From now on the oldest events go only by ``forget_read_events``."""
        self._keeps_unread = True

    async def forget_read_events(self, *, up_to: str) -> None:
        """Drop the oldest events beyond what is kept, none of them after ``up_to``."""
        last = min(self._reading.newest_event - history.EVENTS_KEPT, history.event_number(up_to))
        oldest = await self._database.read(history.oldest_event)
        if oldest is not None and oldest <= last:
            await self._write(lambda connection: history.forget(connection, last))

    async def event_comes(self, *, after: str) -> None:
        """Return as soon as there is an event after that one."""
        number = history.event_number(after)
        woken = asyncio.Event()
        self._waiters.add(woken)
        try:
            while self._reading.newest_event <= number:
                await woken.wait()
                woken.clear()
        finally:
            self._waiters.discard(woken)

    def _save_operation(self, connection: apsw.Connection, operation: Operation) -> None:
        if history.save_operation(connection, operation):
            about = {"operation_id": operation.id, "subject": operation.subject, "state": operation.state.value}
            self._tell(connection, history.told_of(operation), about)
