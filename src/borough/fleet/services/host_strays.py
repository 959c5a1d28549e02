"""On a host: what carries its marker and belongs to no row is removed, whatever left it behind."""

import asyncio
from collections.abc import Sequence

import structlog

from borough.core.errors import BoroughError
from borough.fleet.engines import Engine
from borough.fleet.ports.disks import DiskStore
from borough.fleet.ports.machine_store import MachineStore
from borough.fleet.services.host_engines import HostEngines
from borough.fleet.services.host_links import MachineLinks
from borough.fleet.vms import VmId

log = structlog.get_logger(__name__)


class Strays:
    """Machines, disks and links of this host without a row."""

    def __init__(
        self,
        store: MachineStore,
        disks: DiskStore,
        engines: HostEngines,
        links: MachineLinks,
        *,
        entrance: asyncio.Lock,
    ) -> None:
        """``entrance`` is held by whoever writes a new row."""
        self._store = store
        self._disks = disks
        self._engines = engines
        self._links = links
        self._entrance = entrance
        self._silent: set[Engine] = set()
        """Engines that did not answer when they were asked last: told once, not at each turn."""

    async def remove(self) -> Sequence[str]:
        """Remove them; return what was removed.

        What is there is listed first and the rows are read afterwards: whatever is being made meanwhile has its row.
        An engine that does not answer (a container runtime that is not here) keeps nobody else's from being removed.
        """
        removed: list[str] = []
        for engine, driver in self._engines.drivers.items():
            try:
                found = await driver.machines()
            except BoroughError as error:
                if engine not in self._silent:
                    log.warning("engine.not_swept", engine=engine.value, error=error.message)
                self._silent.add(engine)
                continue
            self._silent.discard(engine)
            for vm_id in await self._unknown(found):
                await driver.destroy(vm_id)
                removed.append(f"{engine.value} {vm_id}")
        for vm_id in await self._unknown(await self._disks.disks()):
            await self._disks.remove(vm_id)
            removed.append(f"disk {vm_id}")
        async with self._entrance:
            await self._links.sweep(await self._known())
        return removed

    async def _unknown(self, found: Sequence[VmId]) -> Sequence[VmId]:
        known = await self._known()
        return [vm_id for vm_id in found if vm_id not in known]

    async def _known(self) -> frozenset[VmId]:
        return frozenset(row.vm.id for row in await self._store.all())
