"""What of the fleet needs a person: hosts that do not answer, machines that are not as they should be."""

from collections.abc import Awaitable, Callable
from typing import Final

from borough.core.paging import Page, PageRequest
from borough.fleet.hosts import Host, HostState
from borough.fleet.ports.fleet import Fleet
from borough.fleet.vms import Vm, VmState
from borough.overview.attention import Kind, Need, Settling, Urgency
from borough.overview.occurrences import Context, Subject
from borough.overview.services.slices import part

OpenedFleet = Callable[[], Awaitable[Fleet]]
"""Waits until there is a fleet, and raises ``Unavailable`` where that lasts."""


class SilentHosts:
    """Hosts that do not answer."""

    context: Final = Context.FLEET
    kind: Final = Kind.HOST

    def __init__(self, fleet: OpenedFleet) -> None:
        self._fleet = fleet

    async def page(self, page: PageRequest) -> Page[Need]:
        """Return some, those that have been silent for longest first."""
        hosts = await (await self._fleet()).hosts()
        return part([_silent(host) for host in hosts if host.state is HostState.OFFLINE], page)


class TroubledMachines:
    """Machines that failed, whose state nobody knows, or that do not go."""

    context: Final = Context.FLEET
    kind: Final = Kind.VM

    def __init__(self, fleet: OpenedFleet) -> None:
        self._fleet = fleet

    async def page(self, page: PageRequest) -> Page[Need]:
        """Return some, by id."""
        found = await (await self._fleet()).troubled(page)
        return Page(items=tuple(map(_troubled, found.items)), after=found.after)


def _silent(host: Host) -> Need:
    return Need(
        kind=Kind.HOST,
        title=f"the host {host.id} does not answer",
        why=host.error or "nothing was heard of it for too long",
        since=host.heard_at,
        urgency=Urgency.NOW,
        subject=Subject(kind="host", id=host.id, name=host.addr),
        safe_default="nothing is placed there; its machines stay as they were last known until it answers again",
        settled_by=(
            Settling(
                label="Place nothing on it when it comes back",
                method="POST",
                path=f"/api/hosts/{host.id}/cordon",
                command=f"tt host cordon {host.id}",
            ),
            Settling(
                label="It is dead: forget it, with its machines",
                method="POST",
                path=f"/api/hosts/{host.id}/detach",
                command=f"tt host detach {host.id}",
            ),
        ),
    )


def _troubled(vm: Vm) -> Need:
    again = Settling(label="Start it", method="POST", path=f"/api/vms/{vm.id}/start", command=f"tt vm start {vm.id}")
    gone = Settling(
        label="Destroy its environment",
        method="DELETE",
        path=f"/api/envs/{vm.env_id}",
        command=f"tt env delete {vm.env_id}",
    )
    going = vm.state is VmState.DELETING
    return Need(
        kind=Kind.VM,
        title=f"the machine {vm.id} of {vm.env_id} {_HOW[vm.state]}",
        why=vm.error or "its host has not said why",
        since=vm.since or vm.created_at,
        urgency=Urgency.SOON,
        subject=Subject(kind="vm", id=vm.id, name=vm.env_id),
        safe_default="its deletion is tried again until its host confirms it" if going else _KEPT,
        settled_by=(gone,) if going else (again, gone),
    )


_KEPT: Final = "it keeps its place and its disk until its environment's time is over"
_HOW: Final = {
    VmState.FAILED: "has failed",
    VmState.UNKNOWN: "is in a state that nobody knows",
    VmState.DELETING: "does not go",
}
