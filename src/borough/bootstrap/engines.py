"""Which engines a host daemon has: the one table of their drivers."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from borough.adapters.engines.bubblewrap_machines.driver import BubblewrapMachines
from borough.adapters.engines.bubblewrap_machines.host import machine_settings
from borough.adapters.engines.docker.driver import DockerMachines
from borough.config.fleet import HostSettings
from borough.fleet.engines import Engine
from borough.fleet.ports.machines import EngineDriver

CLOSED_BRIDGE: Final = "ttd0"
"""The bridge of containers that may reach nothing outside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What an engine has to know of the host it is on."""

    marker: str
    """The host's own."""
    bridged: bool
    has_proxy: bool
    """Machines with an egress list have a way out by it."""
    """Machines get links on the host's bridge; else ports are published by this program."""
    closes: Callable[[str], Awaitable[bool]]
    """Tells whether the host's firewall lets nothing out of a bridge."""


Make = Callable[[HostSettings, Surroundings], EngineDriver]
"""Returns a driver, which finds out by itself whether its engine is here."""


def _bubblewrap(settings: HostSettings, here: Surroundings) -> EngineDriver:
    state = settings.data_dir.absolute() / "bubblewrap"
    return BubblewrapMachines(
        machine_settings(state, marker=here.marker), bridged=here.bridged, has_proxy=here.has_proxy
    )


def _docker(settings: HostSettings, here: Surroundings) -> EngineDriver:
    return DockerMachines(
        str(settings.docker_socket), marker=here.marker, closes=here.closes, closed_bridge=CLOSED_BRIDGE
    )


MAKERS: Final[Mapping[Engine, Make]] = {Engine.DOCKER: _docker, Engine.BUBBLEWRAP: _bubblewrap}
"""In the order in which a host tells its engines."""


def drivers_of(settings: HostSettings, here: Surroundings) -> dict[Engine, EngineDriver]:
    """Return a driver for each engine that is built in."""
    return {engine: make(settings, here) for engine, make in MAKERS.items()}
