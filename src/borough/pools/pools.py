"""Pools and their machines: what is asked for, what is kept of each machine, and which moves are legal."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from borough.core.errors import Invalid
from borough.fleet.engines import Engine
from borough.fleet.vms import VmId, VmSpec, vm_spec
from borough.town.names import role_name

MOST_WORKERS = 1000
DEFAULT_IMAGE = "host"
DEFAULT_ENGINE = Engine.BUBBLEWRAP
DEFAULT_MAX = 4
DEFAULT_QUIET_S = 60
MOST_QUIET_S = 86_400
MOST_COMMAND_WORDS = 64


class Use(StrEnum):
    """What a machine of a pool is for just now."""

    BOOTING = "booting"
    """Asked for; it may not be there yet."""
    WARM = "warm"
    """It runs, and nothing has run in it."""
    STARTING = "starting"
    """Its worker is being started; from here on it is used."""
    WORKING = "working"
    """Its worker has reported."""
    DRAINING = "draining"
    """Its worker finishes what it has and leaves."""
    TAKEN = "taken"
    """Somebody else has it for good, and ends it."""
    ENDING = "ending"
    """It is being deleted."""


MOVES: Mapping[Use, frozenset[Use]] = {
    Use.BOOTING: frozenset({Use.WARM, Use.ENDING}),
    Use.WARM: frozenset({Use.STARTING, Use.TAKEN, Use.ENDING}),
    Use.STARTING: frozenset({Use.WORKING, Use.DRAINING, Use.ENDING}),
    Use.WORKING: frozenset({Use.DRAINING, Use.ENDING}),
    Use.DRAINING: frozenset({Use.ENDING}),
    Use.TAKEN: frozenset(),
    Use.ENDING: frozenset(),
}
"""A used machine never becomes a fresh one."""

WITH_WORKER = frozenset({Use.STARTING, Use.WORKING, Use.DRAINING})
FRESH = frozenset({Use.BOOTING, Use.WARM})


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """What is asked for of a pool."""

    image: str = DEFAULT_IMAGE
    engine: Engine = DEFAULT_ENGINE
    manifest: str | None = None
    """The text of the manifest that bounds what its machines may reach and how strong their walls are."""
    command: tuple[str, ...] = ()
    """The agent CLI inside; empty: the town's default."""
    minimum: int = 0
    maximum: int = DEFAULT_MAX
    """The most workers at once."""
    warm: int = 0
    """How many machines beyond the workers are kept ready."""
    quiet_s: int = DEFAULT_QUIET_S
    """How long a worker has had nothing to do before its machine may go."""
    cpu: int = 1
    memory_mib: int = 512
    disk_mib: int = 2048

    @property
    def machine(self) -> tuple[object, ...]:
        """Return what a machine is made by: where two settings agree in it, machines of one do for the other."""
        size = (self.cpu, self.memory_mib, self.disk_mib)
        return (self.image, self.engine, self.manifest, self.command, *size)

    def spec(self, *, egress: tuple[str, ...]) -> VmSpec:
        """Return the machine as the fleet is asked for it; raises ``Invalid`` as ``vm_spec`` does."""
        return vm_spec(
            image=self.image,
            engine=self.engine,
            cpu=self.cpu,
            mem_mib=self.memory_mib,
            disk_mib=self.disk_mib,
            deny_outgoing=bool(egress),
            egress_allowlist=egress,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why nothing is booted for a while."""

    reason: str
    count: int
    """How many boots in a row came to nothing."""
    at: datetime
    until: datetime
    no_room: bool = False
    """There was no host with room for it: nothing is wrong with the machines themselves."""
    booted: bool = False
    """The machine was there, and then it failed: only a worker that reports shows that this is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that was done with a pool, and why."""

    at: datetime
    before: int
    """Workers before it …"""
    after: int
    """… and as many as there are to be after it."""
    reason: str
    machine: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A pool as it is kept."""

    role: str
    settings: PoolSettings
    generation: int = 1
    """Rises whenever machines are to be made otherwise; those of an older one are replaced."""
    leaving: bool = False
    """Somebody asked for its end: workers finish, machines go, then the row does."""
    created_at: datetime
    changed_at: datetime
    trouble: Trouble | None = None
    last_step: Step | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine of a pool as it is kept. The row is there before the fleet is asked for anything."""

    id: str
    role: str
    generation: int
    use: Use
    since: datetime
    """Since when it is used so."""
    created_at: datetime
    env_id: str
    vm_id: VmId
    agent_name: str | None = None
    agent_id: str | None = None
    incarnation: int | None = None
    entered: bool = False
    """Whether its worker was started in it, as far as is known."""
    taken_by: str | None = None
    """For whom it was taken out of the pool."""
    reason: str = ""
    """Why it is used so."""


def check_settings(role: str, settings: PoolSettings) -> PoolSettings:
    """Return ``settings`` if a pool of ``role`` can have them.

    Raises:
        Invalid: the role is none (``invalid_role``), or they contradict each other (``invalid_pool``), or no machine
            can be so (as ``vm_spec``).
    """
    role_name(role)
    told = _contradiction(settings)
    if told is not None:
        raise Invalid(told, code="invalid_pool", resolution="see 'borough pool set --help'")
    settings.spec(egress=())
    return settings


def may_move(old: Use, new: Use) -> bool:
    """Tell whether a machine that is used as ``old`` may be used as ``new``."""
    return new in MOVES[old]


def _contradiction(settings: PoolSettings) -> str | None:
    if not 0 <= settings.minimum <= settings.maximum <= MOST_WORKERS:
        return f"min and max are numbers from 0 to {MOST_WORKERS}, min no more than max"
    if not 0 <= settings.warm <= MOST_WORKERS:
        return f"warm is a number from 0 to {MOST_WORKERS}"
    if not 0 <= settings.quiet_s <= MOST_QUIET_S:
        return f"quiet_s is a number from 0 to {MOST_QUIET_S}"
    if len(settings.command) > MOST_COMMAND_WORDS or any(not word or "\0" in word for word in settings.command):
        return f"command is a list of at most {MOST_COMMAND_WORDS} words"
    return None
