"""Which engines a host daemon looks for: the one table of their drivers."""

import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from borough.adapters.engines.bhyve.driver import BhyveMachines, BhyveSettings
from borough.adapters.engines.bubblewrap_machines.driver import BubblewrapMachines
from borough.adapters.engines.bubblewrap_machines.host import machine_settings
from borough.adapters.engines.docker.driver import DockerMachines
from borough.adapters.engines.firecracker.driver import FirecrackerMachines
from borough.adapters.engines.firecracker.running import FirecrackerSettings
from borough.adapters.engines.jail.driver import JailMachines, JailSettings
from borough.adapters.engines.qemu.driver import QemuMachines
from borough.adapters.engines.qemu.running import QemuSettings
from borough.config.fleet import HostSettings
from borough.fleet.engines import Engine
from borough.fleet.ports.engines import EngineDriver
from borough.fleet.storage import Storage

OWN_ROOTS: Final = "host-root"
"""In the data folder: what machines of the image ``host`` stand on."""
CLOSED_BRIDGE: Final = "ttd0"
"""The bridge of containers that may reach nothing outside."""
WAY_PREFIX: Final = "ttd-"
"""Begins the names of bridges of containers that may reach what is on their list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What an engine has to know of the host it is on."""

    marker: str
    """The host's own."""
    bridged: bool
    """Machines get links on the host's bridge; else ports are published by this program."""
    has_proxy: bool
    """Machines with an egress list have a way out by it."""
    publish_on: str
    """Where ports are published without a bridge."""
    closes: Callable[[str], Awaitable[bool]]
    """Tells whether the host's firewall lets nothing out of a bridge."""
    unlimited: str | None = None
    """Why layers of folders have no limit; ``None``: they have one."""
    nameservers: tuple[str, ...] = ()
    """Whom machines with a kernel of their own ask on the bridge."""


Make = Callable[[HostSettings, Surroundings], EngineDriver]
"""Returns a driver, which finds out by itself whether its engine is here."""


def _qemu(settings: HostSettings, here: Surroundings) -> EngineDriver:
    made = QemuSettings(
        state=_state(settings, "qemu"), marker=here.marker, publish_on=here.publish_on,
        nameservers=here.nameservers,
    )  # fmt: skip
    return QemuMachines(made, bridged=here.bridged, has_proxy=here.has_proxy)


def _firecracker(settings: HostSettings, here: Surroundings) -> EngineDriver:
    """Its folder lies beside the disks, which are linked into it: a link does not leave its file system."""
    folders = settings.storage is not Storage.ZVOL
    state = Path(settings.runtime_dir).absolute() / ".firecracker" if folders else _state(settings, "firecracker")
    made = FirecrackerSettings(state=state, marker=here.marker, nameservers=here.nameservers)
    return FirecrackerMachines(made, bridged=here.bridged, has_proxy=here.has_proxy)


def _bhyve(settings: HostSettings, here: Surroundings) -> EngineDriver:
    made = BhyveSettings(state=_state(settings, "bhyve"), marker=here.marker, nameservers=here.nameservers)
    return BhyveMachines(made, bridged=here.bridged)


def _jail(settings: HostSettings, here: Surroundings) -> EngineDriver:
    made = JailSettings(state=_state(settings, "jail"), marker=here.marker, bridge=settings.bridge)
    return JailMachines(made, bridged=here.bridged)


def _bubblewrap(settings: HostSettings, here: Surroundings) -> EngineDriver:
    own_roots = settings.data_dir / OWN_ROOTS if settings.host_image else None
    made = machine_settings(_state(settings, "bubblewrap"), marker=here.marker, own_roots=own_roots)
    return BubblewrapMachines(
        made, bridged=here.bridged, has_proxy=here.has_proxy, unlimited=here.unlimited
    )  # fmt: skip


def _docker(settings: HostSettings, here: Surroundings) -> EngineDriver:
    return DockerMachines(
        str(settings.docker_socket),
        marker=here.marker,
        closes=here.closes,
        closed_bridge=CLOSED_BRIDGE,
        way_prefix=WAY_PREFIX,
        has_proxy=here.has_proxy,
    )


_ON_LINUX: Final[Mapping[Engine, Make]] = {
    Engine.QEMU: _qemu,
    Engine.FIRECRACKER: _firecracker,
    Engine.DOCKER: _docker,
    Engine.BUBBLEWRAP: _bubblewrap,
}
_ON_FREEBSD: Final[Mapping[Engine, Make]] = {Engine.BHYVE: _bhyve, Engine.JAIL: _jail}


def makers_on(system: str) -> Mapping[Engine, Make]:
    """Return the engines that a system (``sys.platform``) could have, in the order in which a host tells them."""
    return _ON_FREEBSD if system.startswith("freebsd") else _ON_LINUX


def drivers_of(
    settings: HostSettings, here: Surroundings, *, system: str = sys.platform
) -> dict[Engine, EngineDriver]:  # fmt: skip
    """Return a driver for each engine that could be here."""
    return {engine: make(settings, here) for engine, make in makers_on(system).items()}


def _state(settings: HostSettings, name: str) -> Path:
    return settings.data_dir.absolute() / name
