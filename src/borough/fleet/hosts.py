"""Hosts: machines with a host daemon. What is known of one is what it said last, and when that was."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from borough.core.errors import Invalid
from borough.fleet.engines import Engine, Offer
from borough.fleet.resources import Resource
from borough.fleet.storage import Storage

MOST_HOSTS = 50
MOST_VMS = 1000
"""In the fleet; both are defaults."""
GRACE = timedelta(seconds=45)
"""How long a host may be silent before it counts as offline: three heartbeats."""
_MOST_PORT = 65_535
RESERVE_MIN_MIB = 1024
RESERVE_SHARE = 10
"""A tenth of the memory, and at least a GiB, is for whoever sits at the machine."""
MOST_PSI_AVG10 = 20.0


class HostState(StrEnum):
    """Whether a host answers."""

    ONLINE = "online"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """How a host feels: parts per hundred of the last ten seconds in which work waited (proc(5), PSI)."""

    memory_some_avg10: float = 0.0
    cpu_some_avg10: float = 0.0
    io_some_avg10: float = 0.0
    memory_available_mib: int | None = None
    disk_free_mib: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReport:
    """What a host says of itself."""

    host_id: str
    resource: Resource
    offers: tuple[Offer, ...]
    storage: Storage
    images: tuple[str, ...] = ()
    image_digests: Mapping[str, str] = field(default_factory=dict)
    image_engines: Mapping[str, frozenset[Engine]] = field(default_factory=dict)
    """Which engines start from which image; hosts that are older do not tell."""
    own_images: frozenset[str] = frozenset()
    """Those that are made of the host itself, and cannot be brought to another."""
    pressure: Pressure = field(default_factory=Pressure)
    warnings: tuple[str, ...] = ()

    @property
    def engines(self) -> tuple[Engine, ...]:
        """Return the engines in the order in which the host tells them."""
        return tuple(offer.engine for offer in self.offers)

    def starts(self, engine: Engine, image: str) -> bool:
        """Tell whether an engine can start from an image of the host, as far as that is known."""
        engines = self.image_engines.get(image)
        return not engines or engine in engines


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host as the fleet keeps it."""

    id: str
    addr: str
    report: HostReport
    state: HostState
    registered_at: datetime
    heard_at: datetime
    labels: Mapping[str, str] = field(default_factory=dict)
    cordoned: bool = False
    """Nothing new is placed on it."""
    draining: bool = False
    """What is on it is to leave."""
    kept_for: str | None = None
    """The environment that waits for its room, when somebody else asks; never kept in a row."""
    error: str | None = None
    """What the last attempt to reach it said."""
    revision: int = 0

    def offer(self, engine: Engine) -> Offer | None:
        """Return what the host has of an engine."""
        for offer in self.report.offers:
            if offer.engine is engine:
                return offer
        return None


def check_address(addr: str) -> str:
    """Return ``host:port`` if it is one: no scheme, no path, no credentials.

    Raises:
        Invalid: it is not (``invalid_address``).
    """
    host, colon, port = addr.rpartition(":")
    plain = host.strip("[]")
    good = bool(colon and plain) and not set(plain) & set("/@?# \\") and plain.isprintable() and plain.isascii()
    if not good or not port.isdecimal() or not port.isascii() or not 0 < int(port) <= _MOST_PORT:
        raise Invalid(
            f"{addr[:80]!r} is not the address of a host",
            code="invalid_address",
            resolution="write it as host:port, as in 10.0.0.2:9100",
        )
    return addr


def reserve_mib(total_mib: int) -> int:
    """Return how much memory is kept back for the host itself."""
    return max(RESERVE_MIN_MIB, total_mib * RESERVE_SHARE // 100)


def strain(pressure: Pressure, *, mem_total_mib: int) -> str | None:
    """Return why the host must not take more now, or ``None``."""
    if pressure.memory_some_avg10 > MOST_PSI_AVG10:
        return f"work waits for memory {pressure.memory_some_avg10:g} % of the time, {MOST_PSI_AVG10:g} are the most"
    reserve = reserve_mib(mem_total_mib)
    if pressure.memory_available_mib is not None and pressure.memory_available_mib < reserve:
        return f"{pressure.memory_available_mib} MiB of memory are available, {reserve} are kept for the host itself"
    return None


def is_silent(host: Host, *, at: datetime, grace: timedelta = GRACE) -> bool:
    """Tell whether a host has not been heard for too long."""
    return at - host.heard_at > grace
