"""A host daemon, put together."""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from borough.adapters.host.door import HostDoor
from borough.adapters.host.signs import LinuxSigns, port_is_free, total_memory_mib, usable_cpus
from borough.adapters.network.host import LinuxNetwork, NetworkSettings
from borough.adapters.sql.engine import Database
from borough.adapters.sql.fleet.access import SqlControllers
from borough.adapters.sql.fleet.machines import HostLimits, SqlMachineStore
from borough.adapters.sql.fleet.tables import HOST
from borough.adapters.storage.files import FileStore
from borough.adapters.storage.zvol import ZvolStore
from borough.bootstrap.engines import drivers_of
from borough.config.fleet import HostSettings
from borough.controllers.fleet import host_controllers
from borough.controllers.loops import Controller
from borough.core.ids import new_id
from borough.fleet.engines import Engine
from borough.fleet.ports.machines import DiskStore, EngineDriver, HostNetwork
from borough.fleet.resources import Resource
from borough.fleet.services.host import HostDaemon
from borough.fleet.services.host_machines import HostMachines
from borough.fleet.storage import Storage
from borough.http.host.services import HostServices

log = structlog.get_logger(__name__)

STORE = "agent.db"
HOST_ID_LENGTH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class HostParts:
    """What of a host depends on what the machine has."""

    disks: DiskStore
    network: HostNetwork
    drivers: Mapping[Engine, EngineDriver]
    warnings: tuple[str, ...] = ()


Parts = Callable[[HostSettings, str], AbstractAsyncContextManager[HostParts]]
"""From settings and the host's marker to its parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenHost:
    """An open host: what serves it and what keeps it."""

    host_id: str
    daemon: HostDaemon
    services: HostServices
    door: HostDoor
    controllers: tuple[Controller, ...]


@asynccontextmanager
async def local_parts(settings: HostSettings, marker: str) -> AsyncIterator[HostParts]:
    """Yield the parts that this machine has."""
    network = LinuxNetwork(NetworkSettings(marker=marker, bridge=settings.bridge, privileged=settings.change_network))
    why_not = await network.open()
    if why_not is not None:
        log.warning("network.user_mode", reason=why_not)
    drivers = drivers_of(settings, marker)
    lacking = () if drivers else ("no engine is built in that this machine could run",)
    yield HostParts(
        disks=_disks(settings, marker), network=network, drivers=drivers, warnings=(*network.warnings, *lacking)
    )
    # Bridge, links and rules stay: machines run on without this daemon and are found again.


@asynccontextmanager
async def open_host(settings: HostSettings, *, parts: Parts = local_parts) -> AsyncIterator[OpenHost]:
    """Open the host's file, put its services together, and bring every machine in order with its row.

    Raises:
        Conflict: another process has the file (``store_in_use``).
        Unavailable: it cannot be read or written (``store_unavailable``), or the network cannot be made to be right
            (``network_failed``).
    """
    database = await Database.open(settings.data_dir / STORE, HOST)
    try:
        store = await SqlMachineStore.open(database, _limits(settings), port_is_free=port_is_free)
        host_id = await store.host_id(settings.host_id, new_id()[:HOST_ID_LENGTH])
        door = await HostDoor.open(settings.data_dir, SqlControllers(database))
        async with parts(settings, host_id) as made:
            machines = HostMachines(store, made.disks, made.network, made.drivers, marker=host_id)
            daemon = HostDaemon(
                host_id,
                machines,
                store,
                made.disks,
                drivers=made.drivers,
                signs=LinuxSigns(settings.data_dir),
                storage=settings.storage,
                warnings=made.warnings,
            )
            await daemon.open()
            services = HostServices(strict=settings.strict, started_monotonic=time.monotonic(), host=daemon, door=door)
            yield OpenHost(
                host_id=host_id,
                daemon=daemon,
                services=services,
                door=door,
                controllers=host_controllers(daemon.reconcile),
            )
    finally:
        await database.close()


def _limits(settings: HostSettings) -> HostLimits:
    resource = Resource(
        cpu_total=settings.cpu_total or usable_cpus(),
        mem_total=settings.mem_total_mib or total_memory_mib(),
        disk_total=settings.disk_total_mib,
    )
    return HostLimits(resource=resource, most_vms=settings.most_vms, ports=settings.ports)


def _disks(settings: HostSettings, marker: str) -> DiskStore:
    if settings.storage is Storage.ZVOL:
        return ZvolStore(images=settings.image_dir, runtime=settings.runtime_dir, marker=marker)
    return FileStore(images=Path(settings.image_dir), runtime=Path(settings.runtime_dir))
