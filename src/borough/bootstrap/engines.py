"""Which engines a host daemon has: the one table of their drivers."""

from collections.abc import Callable, Mapping
from typing import Final

from borough.config.fleet import HostSettings
from borough.fleet.engines import Engine
from borough.fleet.ports.machines import EngineDriver

Make = Callable[[HostSettings, str], EngineDriver]
"""From settings and the host's marker to a driver, which finds out by itself whether its engine is here."""

MAKERS: Final[Mapping[Engine, Make]] = {}
"""In the order in which a host tells its engines."""


def drivers_of(settings: HostSettings, marker: str) -> dict[Engine, EngineDriver]:
    """Return a driver for each engine that is built in."""
    return {engine: make(settings, marker) for engine, make in MAKERS.items()}
