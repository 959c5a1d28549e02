"""What the controller's stores share: the file, the picture of it, and the events that tell of every change."""

import asyncio
from collections.abc import Callable, Mapping
from contextvars import copy_context
from datetime import datetime
from typing import Final, Self, TypeVar

import apsw

from borough.adapters.sql.engine import Database
from borough.adapters.sql.fleet import history
from borough.adapters.sql.fleet.picture import Change, FleetPicture
from borough.adapters.sql.fleet.rows import rows
from borough.adapters.sql.fleet.values import load
from borough.adapters.sql.mirror import Mirror
from borough.core.acting import actor
from borough.core.clock import utc_now
from borough.fleet.vms import Vm

ITSELF: Final = "controller"
"""Who acts where nobody asked for it: a time is over, a host is silent, work is taken up again."""

Result = TypeVar("Result")


class FleetRows:
    """The controller's file, kept in memory too."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keeps_unread = False
        self._mirror: Mirror[FleetPicture, Change] = Mirror(load, self._wake)
        self._waiters: set[asyncio.Event] = set()

    @classmethod
    async def open(cls, database: Database) -> Self:
        """Return the rows of a file that was opened with ``tables.CONTROLLER``."""
        fleet = cls(database)
        await fleet._mirror.open(database)
        return fleet

    async def _write(self, step: Callable[[apsw.Connection], Result]) -> Result:
        """Run a step in the writer's thread, on behalf of whoever asks here."""
        context = copy_context()
        return await self._database.write(lambda connection: context.run(step, connection))

    def _drop_vm(self, connection: apsw.Connection, vm: Vm, event: str, message: str) -> None:
        rows(connection, "DELETE FROM vms WHERE id = ?", (vm.id,))
        self._mirror.change(Change("vm", vm.id, None))
        self._tell(connection, (event, message), subjects_of(vm) | {"old_state": vm.state.value})

    def _tell(
        self,
        connection: apsw.Connection,
        told: tuple[str, str],
        subjects: Mapping[str, str],
        at: datetime | None = None,
    ) -> None:
        """Write an event of a type and a message."""
        by = {"by": actor() or ITSELF}
        prune = not self._keeps_unread
        number = history.tell(connection, *told, {**by, **subjects}, at or utc_now(), prune=prune)
        self._mirror.change(Change("event", "", number))

    def _wake(self) -> None:
        for woken in self._waiters:
            woken.set()

    @property
    def _writing(self) -> FleetPicture:
        return self._mirror.writing

    @property
    def _reading(self) -> FleetPicture:
        return self._mirror.reading


def subjects_of(vm: Vm) -> dict[str, str]:
    """Return whom an event of a machine is about."""
    return {"vm_id": vm.id, "env_id": vm.env_id, "host_id": vm.host_id}
