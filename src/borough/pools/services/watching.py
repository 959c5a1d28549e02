"""Looking at a pool's machines: what the fleet has of each, and what the town knows of the worker in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from borough.core.clock import utc_now
from borough.core.errors import NotFound
from borough.core.ids import derived_id
from borough.fleet.operations import Operation, OperationState
from borough.fleet.orders import EnvDetail
from borough.fleet.services.environments import EnvironmentService
from borough.fleet.services.operations import OperationService
from borough.fleet.vms import Vm, VmState
from borough.pools.pools import Machine, Use
from borough.pools.settling import Found, Place, Serving
from borough.town.agents import TERMINAL, Agent, AgentState

LIFETIME = timedelta(hours=1)
"""How long a machine lives unless it is prolonged: what nobody looks after ends by itself."""
PROLONGED_BEFORE = timedelta(minutes=30)

_PLACES: Mapping[VmState, Place] = {
    VmState.CREATING: Place.MAKING,
    VmState.RUNNING: Place.READY,
    VmState.PAUSED: Place.SILENT,
    VmState.UNKNOWN: Place.SILENT,
    VmState.STOPPED: Place.BROKEN,
    VmState.FAILED: Place.BROKEN,
    VmState.DELETING: Place.BROKEN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What was found of a machine, and what there is of it in the fleet."""

    found: Found
    vm: Vm | None = None
    expires_soon: bool = False


def boot_id(machine: Machine) -> str:
    """Return the id of the operation that makes a machine, the same however often it is asked for."""
    return derived_id("pool boot", machine.id)


class Watch:
    """Finds out about machines; asks no host, for the fleet knows what its hosts said."""

    def __init__(self, environments: EnvironmentService, operations: OperationService) -> None:
        self._environments = environments
        self._operations = operations

    async def look(self, machine: Machine, agents: Mapping[str, Agent]) -> Looked:
        """Return what is found of a machine; ``agents`` are the town's by id."""
        operation = await self._operations.find(boot_id(machine))
        detail = await self._detail(machine)
        place, why = _place(machine, detail, operation)
        serving, said, agent = _serving(machine, agents)
        found = Found(
            place=place,
            serving=serving,
            why=said or why,
            busy=agent is not None and agent.current_task is not None,
            idle_since=None if agent is None else agent.last_active_at,
        )
        if detail is None:
            return Looked(found=found)
        mine = place is not Place.GOING and machine.use is not Use.TAKEN
        expires_soon = detail.environment.expires_at - utc_now() < PROLONGED_BEFORE
        vm = detail.vms[0] if detail.vms else None
        return Looked(found=found, vm=vm, expires_soon=expires_soon and mine)

    async def _detail(self, machine: Machine) -> EnvDetail | None:
        try:
            return await self._environments.detail(machine.env_id)
        except NotFound:
            return None


def _place(machine: Machine, detail: EnvDetail | None, operation: Operation | None) -> tuple[Place, str]:
    """Return what the fleet has of a machine, and its words for it where it is not as it should be."""
    if detail is None or detail.environment.deleting:
        return _absent(machine, operation, going=detail is not None)
    if not detail.vms:
        return Place.MAKING, ""
    vm = detail.vms[0]
    place = _PLACES[vm.state]
    if place is Place.SILENT and machine.use is Use.BOOTING:
        return Place.MAKING, vm.error or ""
    return place, vm.error or (f"it is {vm.state.value}" if place is Place.BROKEN else "")


def _absent(machine: Machine, operation: Operation | None, *, going: bool) -> tuple[Place, str]:
    """Return how a machine stands that is not there or is going; how its making ended says why."""
    gone = Place.GOING if going else Place.GONE
    if machine.use in (Use.ENDING, Use.TAKEN):
        return gone, ""
    if operation is None:
        return (gone if going else Place.UNASKED), ""
    if operation.state is OperationState.RUNNING and not going:
        return Place.MAKING, ""
    failed = operation.state is OperationState.FAILED
    return (Place.BROKEN if failed else gone), "; ".join(operation.errors.values())


def _serving(machine: Machine, agents: Mapping[str, Agent]) -> tuple[Serving, str, Agent | None]:
    if machine.agent_id is None:
        return Serving.NOBODY, "", None
    agent = agents.get(machine.agent_id)
    if agent is None:
        return Serving.LEFT, "the town has forgotten its agent", None
    if agent.incarnation != machine.incarnation:
        return Serving.LEFT, "its agent was started again elsewhere", None
    if agent.state is AgentState.STARTING:
        return Serving.SILENT, "", agent
    if agent.state not in TERMINAL:
        return Serving.PRESENT, "", agent
    failed = agent.state is AgentState.ERROR and agent.rounds_completed == 0
    return (Serving.FAILED if failed else Serving.LEFT), agent.reason or agent.state.value, agent
