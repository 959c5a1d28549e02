"""The JSON of pools: one struct per body. Bodies refuse unknown members; ``null`` is present, never left out."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from borough.fleet.engines import Engine
from borough.http.town.wire import Strict, Timestamp
from borough.pools.pools import (
    DEFAULT_ENGINE,
    DEFAULT_IMAGE,
    DEFAULT_MAX,
    DEFAULT_QUIET_S,
    MOST_COMMAND_WORDS,
    MOST_QUIET_S,
    MOST_WORKERS,
    PoolSettings,
)

_USUAL = PoolSettings()
_MOST_SIZE = 16_777_216
Count = Annotated[int, Meta(ge=0, le=MOST_WORKERS)]
Amount = Annotated[int, Meta(ge=1, le=_MOST_SIZE)]


class PoolRequest(Strict, kw_only=True):
    """A pool as it is to be; what is left out is as usual, whatever it was before."""

    image: Annotated[str, Meta(min_length=1, max_length=512)] = DEFAULT_IMAGE
    engine: Engine = DEFAULT_ENGINE
    manifest: Annotated[str, Meta(min_length=1, max_length=262_144)] | None = None
    """YAML: what the machines may reach, and how strong their walls are at least."""
    command: Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(max_length=MOST_COMMAND_WORDS)] = msgspec.field(
        default_factory=list
    )
    """The agent CLI inside; one word may name one of the town's. Empty: the town's default."""
    min: Count = _USUAL.minimum
    max: Count = DEFAULT_MAX
    """The most workers at once."""
    warm: Count = _USUAL.warm
    """Ready machines beyond the workers."""
    quiet_s: Annotated[int, Meta(ge=0, le=MOST_QUIET_S)] = DEFAULT_QUIET_S
    """How long a worker has nothing to do before its machine goes."""
    cpu: Amount = _USUAL.cpu
    memory_mib: Amount = _USUAL.memory_mib
    disk_mib: Amount = _USUAL.disk_mib


class PoolMachineView(Struct, kw_only=True):
    vm_id: str
    env_id: str
    state: str | None
    """As the fleet has it; ``null``: it has not been looked at yet."""
    use: str
    """``booting``, ``warm``, ``starting``, ``working``, ``draining``, ``taken`` or ``ending``."""
    agent: str | None
    since: Timestamp
    reason: str


class PoolStepView(Struct, kw_only=True, rename={"from_": "from"}):
    at: Timestamp
    from_: int
    to: int
    """Workers after it; ``from`` before it."""
    reason: str


class PoolTroubleView(Struct, kw_only=True):
    reason: str
    count: int
    """How many boots in a row came to nothing."""
    next_try_at: Timestamp


class PoolView(Struct, kw_only=True):
    role: str
    state: str
    """``active``, or ``draining`` when it was deleted and its workers finish."""
    image: str
    engine: str
    manifest: str | None
    command: list[str]
    min: int
    max: int
    warm: int
    quiet_s: int
    cpu: int
    memory_mib: int
    disk_mib: int
    desired: int | None
    """How many workers it is to have; ``null`` until it has been looked at."""
    workers: int
    held: str | None
    """Why it is not as large as it is to be, and nothing is done about it just now."""
    trouble: PoolTroubleView | None
    machines: list[PoolMachineView]
    last_step: PoolStepView | None
    created_at: Timestamp
    changed_at: Timestamp


class PoolDetail(PoolView, kw_only=True):
    steps: list[PoolStepView]
    """The last steps, newest first."""


class PoolList(Struct, kw_only=True):
    pools: list[PoolView]
    count: int
    next_cursor: str | None
