"""What the fleet is asked for, and how what came of it stands: an environment with its machines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from borough.fleet.environments import Environment, EnvState, OnExpiry, state_of
from borough.fleet.fitness import Constraints
from borough.fleet.operations import Operation
from borough.fleet.vms import Vm, VmId, VmSpec
from borough.fleet.waiting import Waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvOrder:
    """An environment as it is asked for."""

    id: str
    owner: str
    specs: tuple[VmSpec, ...]
    lifetime_s: int | None = None
    on_expiry: OnExpiry = OnExpiry.DELETE
    labels: Mapping[str, str] = field(default_factory=dict)
    constraints: Constraints = field(default_factory=Constraints)
    private_network: bool = False
    wait_s: int | None = None
    """How long it may wait for room; ``None``: it is refused where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvDetail:
    """An environment with its machines."""

    environment: Environment
    state: EnvState
    vms: tuple[Vm, ...]
    warnings: tuple[str, ...] = ()
    operation: Operation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ids:
    """The ids of what a request makes, known before anything is made: repeated, it makes the same."""

    operation: str
    vms: tuple[VmId, ...]


def detail_of(environment: Environment, vms: tuple[Vm, ...], waiting: Sequence[Waiting]) -> EnvDetail:
    """Return an environment with its machines, and how it stands."""
    state = state_of(environment, [vm.state for vm in vms])
    if not environment.deleting and any(each.env_id == environment.id for each in waiting):
        state = EnvState.WAITING
    return EnvDetail(environment=environment, state=state, vms=vms)
