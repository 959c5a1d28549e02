"""A host daemon, put together."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from socket import socket
from typing import Final
from uuid import uuid4

import structlog

from borough.adapters.egress.judging import Judge, ServerPlace
from borough.adapters.egress.listening import PROXY_PORT, listen_in
from borough.adapters.egress.verdicts import EgressVerdict
from borough.adapters.engines.bubblewrap_machines.driver import BubblewrapMachines
from borough.adapters.engines.docker.driver import DockerMachines
from borough.adapters.engines.endings import EngineEndings
from borough.adapters.host.certificate import HostCertificate, host_certificate
from borough.adapters.host.door import HostDoor
from borough.adapters.host.signs import LinuxSigns, nameservers, port_is_free, total_memory_mib, usable_cpus
from borough.adapters.images.host_root import HostRoot
from borough.adapters.network.gateway import GatewayProxy, proxy_of
from borough.adapters.network.host import LinuxNetwork, NetworkSettings
from borough.adapters.network.inside import InsideProxies
from borough.adapters.network.ways import ContainerWays
from borough.adapters.process import ProcessRef
from borough.adapters.sql.engine import Database
from borough.adapters.sql.fleet.access import SqlControllers
from borough.adapters.sql.fleet.machines import HostLimits, SqlMachineStore
from borough.adapters.sql.fleet.tables import HOST
from borough.adapters.storage.files import FileStore
from borough.adapters.storage.quotas import Quotas, find_quotas
from borough.adapters.storage.zvol import ZvolStore
from borough.bootstrap.engines import CLOSED_BRIDGE, OWN_ROOTS, WAY_PREFIX, Surroundings, drivers_of
from borough.config.files import write_new
from borough.config.fleet import HostSettings
from borough.controllers.fleet import host_controllers
from borough.controllers.loops import Controller
from borough.core.ids import new_id
from borough.fleet.engines import Engine
from borough.fleet.host_image import HOST_IMAGE
from borough.fleet.ports.disks import DiskStore
from borough.fleet.ports.engines import EngineDriver
from borough.fleet.ports.network import HostNetwork
from borough.fleet.resources import Resource
from borough.fleet.services.host import HostDaemon
from borough.fleet.services.host_changes import HostChanges
from borough.fleet.services.host_engines import HostEngines
from borough.fleet.services.host_machines import HostMachines
from borough.fleet.storage import Storage
from borough.fleet.vms import VmId
from borough.http.host.services import HostServices

log = structlog.get_logger(__name__)

STORE = "agent.db"
MARKER = "marker"
HOST_ID_LENGTH = 8
EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - what is published is meant to be reached, unless the daemon is not


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
    certificate: HostCertificate | None
    """What it serves with; ``None``: plain HTTP."""
    disks: DiskStore
    controllers: tuple[Controller, ...]


@asynccontextmanager
async def local_parts(settings: HostSettings, marker: str) -> AsyncIterator[HostParts]:
    """Yield the parts that this machine has."""
    drivers: dict[Engine, EngineDriver] = {}

    async def connect(vm_id: VmId, port: int) -> socket:
        """Return a connection into a machine whose ports this program publishes itself."""
        driver = drivers[Engine.BUBBLEWRAP]
        if not isinstance(driver, BubblewrapMachines):
            raise OSError("this engine's machines cannot be reached from here")
        return await driver.connect(vm_id, port)

    async def process_of(vm_id: VmId) -> ProcessRef | None:
        """Return a process in a machine whose way out this program is."""
        driver = drivers[Engine.BUBBLEWRAP]
        return await driver.process(vm_id) if isinstance(driver, BubblewrapMachines) else None

    async def way_of(vm_id: VmId) -> tuple[str, IPv4Address] | None:
        """Return bridge and gateway of a container that has a network of its own."""
        driver = drivers[Engine.DOCKER]
        return await driver.way_of(vm_id) if isinstance(driver, DockerMachines) else None

    judge = Judge(
        server=None if settings.server is None else ServerPlace(host=settings.server[0], port=settings.server[1])
    )
    network = LinuxNetwork(
        _network(settings, marker),
        connect=connect,
        gateway=GatewayProxy(judge=judge, on_verdict=_told),
        inside=InsideProxies(
            process_of, lambda vm: proxy_of(vm, judge=judge, on_verdict=_told), listen=partial(_listen, drivers)
        ),
        ways=ContainerWays(way_of, lambda vm: proxy_of(vm, judge=judge, on_verdict=_told)),
    )
    why_not = await network.open()
    if why_not is not None:
        log.warning("network.user_mode", reason=why_not)
    quotas = await asyncio.to_thread(_quotas, settings)
    here = Surroundings(
        marker=marker,
        bridged=why_not is None,
        has_proxy=True,
        publish_on=_publish_on(settings),
        closes=network.closes,
        unlimited=quotas if isinstance(quotas, str) else None,
        nameservers=nameservers(),
    )
    drivers.update(drivers_of(settings, here))
    own, lacking = await asyncio.to_thread(_own_image, settings)
    try:
        yield HostParts(
            disks=_disks(settings, marker, own, quotas), network=network, drivers=drivers,
            warnings=(*network.warnings, *lacking),
        )  # fmt: skip
    finally:
        # Bridge, links and rules stay: machines run on without this daemon and are found again.
        await network.let_go()
        for driver in drivers.values():
            if isinstance(driver, DockerMachines):
                await driver.close()


async def _listen(drivers: Mapping[Engine, EngineDriver], vm_id: VmId) -> socket:
    """Return the listener of the way out of a machine that has no link, inside it."""
    driver = drivers[Engine.BUBBLEWRAP]
    if not isinstance(driver, BubblewrapMachines):
        raise OSError("nothing can listen in this engine's machines")
    listener = await driver.listen(vm_id, PROXY_PORT)
    if listener is None:
        ref = await driver.process(vm_id)
        listener = await listen_in(0 if ref is None else ref.pid)
    return listener


async def _told(vm_id: VmId, verdict: EgressVerdict) -> None:
    """Note what a machine was let out to, or refused."""
    what = "egress.allowed" if verdict.allowed else "egress.refused"
    log.info(
        what, vm=vm_id, host=verdict.host, port=verdict.port, reason=verdict.reason, connections=verdict.connections
    )


def _network(settings: HostSettings, marker: str) -> NetworkSettings:
    return NetworkSettings(
        marker=marker,
        bridge=settings.bridge,
        privileged=settings.change_network,
        publish_on=_publish_on(settings),
        closed_bridges=(CLOSED_BRIDGE,),
        way_prefix=WAY_PREFIX,
    )


def _publish_on(settings: HostSettings) -> str:
    """Return an address of IPv4: the one that is listened at if it is one, loopback for any other loopback."""
    if not settings.listening.is_loopback:
        return EVERYWHERE
    host = settings.listening.host
    return host if host.startswith("127.") else "127.0.0.1"


@asynccontextmanager
async def open_host(settings: HostSettings, *, parts: Parts = local_parts) -> AsyncIterator[OpenHost]:
    """Open the host's file, put its services together, and bring every machine in order with its row.

    Raises:
        Conflict: another process has the file (``store_in_use``).
        Invalid: its certificate or token is not as it was written (``damaged_file``, ``unsafe_file``).
        Unavailable: it cannot be read or written (``store_unavailable``), or the network cannot be made to be right
            (``network_failed``).
    """
    database = await Database.open(settings.data_dir / STORE, HOST)
    try:
        store = await SqlMachineStore.open(database, _limits(settings), port_is_free=port_is_free)
        host_id = await store.host_id(settings.host_id, new_id()[:HOST_ID_LENGTH])
        certificate = host_certificate(settings.data_dir) if settings.listening.tls else None
        fingerprint = None if certificate is None else certificate.fingerprint
        door = await HostDoor.open(settings.data_dir, SqlControllers(database), fingerprint=fingerprint)
        marker = _marker(settings.data_dir)
        async with parts(settings, marker) as made:
            engines = HostEngines(made.drivers)
            changes = HostChanges(EngineEndings(made.drivers))
            machines = HostMachines(store, made.disks, made.network, engines, changes=changes, marker=marker)
            daemon = HostDaemon(
                host_id,
                machines,
                store,
                made.disks,
                engines=engines,
                signs=LinuxSigns(settings.data_dir),
                storage=settings.storage,
                warnings=made.warnings,
            )
            try:
                await daemon.open()
                yield OpenHost(
                    host_id=host_id,
                    daemon=daemon,
                    services=HostServices(
                        strict=settings.strict, started_monotonic=time.monotonic(), host=daemon, door=door
                    ),
                    door=door,
                    certificate=certificate,
                    disks=made.disks,
                    controllers=host_controllers(daemon.reconcile),
                )
            finally:
                await changes.close()
                await engines.close()
    finally:
        await database.close()


def _marker(folder: Path) -> str:
    """Return what everything that this host makes carries: random and kept, not the host's name.

    Two daemons on one machine that were given the same name must not take each other's machines for orphans.
    """
    path = folder / MARKER
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        marker = uuid4().hex
        write_new(path, f"{marker}\n", mode=0o600)
        return marker


def _limits(settings: HostSettings) -> HostLimits:
    resource = Resource(
        cpu_total=settings.cpu_total or usable_cpus(),
        mem_total=settings.mem_total_mib or total_memory_mib(),
        disk_total=settings.disk_total_mib,
    )
    return HostLimits(resource=resource, most_vms=settings.most_vms, ports=settings.ports)


def _own_image(settings: HostSettings) -> tuple[HostRoot | None, tuple[str, ...]]:
    """Make the image that is this host itself, where that is wanted; return it, and what it lacks."""
    if not settings.host_image or settings.storage is Storage.ZVOL:
        return None, ()
    own = HostRoot(settings.data_dir.absolute() / OWN_ROOTS)
    try:
        own.make()
    except OSError as failure:
        return None, (f"there is no image {HOST_IMAGE}: {failure}",)
    lacking = [
        f"{path} is not shown in machines of the image {HOST_IMAGE}: {why}" for path, why in own.left_out.items()
    ]
    return own, tuple(lacking)


def _quotas(settings: HostSettings) -> Quotas | str:
    """Return what limits layers on this host, or why nothing does."""
    if settings.storage is Storage.ZVOL:
        return "its layer is an ordinary folder"
    runtime = Path(settings.runtime_dir).absolute()
    runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
    found = find_quotas(runtime)
    return f"its layer is an ordinary folder: {found}" if isinstance(found, str) else found


def _disks(settings: HostSettings, marker: str, own: HostRoot | None, quotas: Quotas | str) -> DiskStore:
    if settings.storage is Storage.ZVOL:
        return ZvolStore(images=settings.image_dir, runtime=settings.runtime_dir, marker=marker)
    return FileStore(
        images=Path(settings.image_dir).absolute(), runtime=Path(settings.runtime_dir).absolute(), own=own,
        quotas=None if isinstance(quotas, str) else quotas,
    )  # fmt: skip
