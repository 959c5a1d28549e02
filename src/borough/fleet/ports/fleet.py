"""What the controller keeps: hosts, environments, machines, operations. A plan and its promises are one step."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from borough.core.events import Event
from borough.core.paging import Page, PageRequest
from borough.fleet.environments import Environment
from borough.fleet.hosts import Host, HostReport, HostState
from borough.fleet.images import Image
from borough.fleet.operations import Operation
from borough.fleet.placement import NotPlaced, Plan
from borough.fleet.trust import HostTrust
from borough.fleet.vms import Vm, VmId
from borough.fleet.waiting import Waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The fleet as a plan sees it: hosts with everything that is promised counted, and who is where."""

    hosts: tuple[Host, ...]
    tenants: Mapping[str, frozenset[str]]
    vm_count: int
    waiting: tuple[Waiting, ...] = ()
    """Environments that wait for room, in the order of asking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over the fleet."""

    hosts: int = 0
    hosts_online: int = 0
    total_vms: int = 0
    total_envs: int = 0
    cpu_total: int = 0
    cpu_used: int = 0
    mem_total: int = 0
    mem_used: int = 0
    disk_total: int = 0
    disk_used: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvFilter:
    """Which environments; ``None`` or empty means any."""

    owner: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


class ImageStock(Protocol):
    """The controller's own images, from which hosts get those that they lack."""

    async def images(self) -> Sequence[Image]:
        """Return what is there, by name."""

    def content(self, name: str) -> AsyncIterator[bytes]:
        """Yield an image as it travels; raises ``NotFound`` (``image_not_found``)."""


class Fleet(Protocol):
    """The controller's rows. Changes come with the event that tells of them, in the same step."""

    async def add_host(self, host: Host, *, most: int, trust: HostTrust | None = None, moved: bool = False) -> Host:
        """Register a host, or the same one at the same address again, or, ``moved``, at whatever address it was before;
        keep what was agreed on with it, if anything was.

        Raises:
            Conflict: the id belongs to another address, or the address to another id (``host_bound``), or there are too
                many (``too_many_hosts``).
        """

    async def host(self, host_id: str) -> Host:
        """Return one; raises ``NotFound`` (``host_not_found``)."""

    async def hosts(self) -> tuple[Host, ...]:
        """Return all with what is promised counted, oldest first."""

    async def heard(self, host_id: str, report: HostReport | None, *, at: datetime, error: str | None) -> Host:
        """Note what a host said, or (``None``) that it did not answer; raises ``NotFound`` (``host_not_found``) for one
        that was removed meanwhile.
        """

    async def set_host_state(self, host_id: str, state: HostState, *, at: datetime) -> Host:
        """Change whether a host counts as there."""

    async def change_host(
        self, host_id: str, *, cordoned: bool | None, draining: bool | None, labels: Mapping[str, str] | None
    ) -> Host:
        """Change what people say of a host."""

    async def remove_host(self, host_id: str, *, with_machines: bool) -> tuple[Vm, ...]:
        """Forget a host; raises ``Conflict`` (``host_in_use``) when it has machines, unless they are to be forgotten
        with it: then they are returned.
        """

    async def view(self) -> View:
        """Return the fleet as a plan would see it now."""

    async def plan(
        self,
        environment: Environment,
        decide: Callable[[View], Plan | NotPlaced],
        machines: Callable[[Plan], Sequence[Vm]],
        operation: Operation,
        *,
        waits: Callable[[NotPlaced], tuple[Waiting, Operation]] | None = None,
    ) -> Plan | NotPlaced:
        """Decide on the fleet as it is and, in the same step, write environment, machines and operation; without room
        nothing, or with ``waits`` the environment, what it waits with, and its operation.

        Raises:
            Conflict: there is an environment of that id (``env_exists``), or too many wait (``too_many_waiting``).
        """

    async def place_waiting(
        self,
        env_id: str,
        decide: Callable[[View, Waiting], Plan | NotPlaced],
        machines: Callable[[Waiting, Plan], Sequence[Vm]],
        *,
        at: datetime,
    ) -> Plan | NotPlaced | None:
        """Decide again on an environment that waits and, if there is room, write its machines in the same step.

        Returns ``None`` for one that does not wait any more: it was placed, deleted, or is being deleted.
        """

    async def waiting(self) -> tuple[Waiting, ...]:
        """Return what waits for room, in the order of asking."""

    async def environment(self, env_id: str) -> tuple[Environment, tuple[Vm, ...]]:
        """Return an environment with its machines; raises ``NotFound`` (``env_not_found``)."""

    async def environments(self, wanted: EnvFilter, page: PageRequest) -> Page[tuple[Environment, tuple[Vm, ...]]]:
        """Return environments by id."""

    async def change_environment(self, environment: Environment, *, revision: int, event: str) -> Environment:
        """Write a changed environment; raises ``Conflict`` (``stale_env``) when it changed meanwhile."""

    async def expiring(self, *, before: datetime) -> tuple[Environment, ...]:
        """Return environments whose time is over by then, those that are being deleted too, oldest first."""

    async def warn(self, environment: Environment) -> bool:
        """Tell (as an event) that an environment's time is nearly over, once for each end of it; return whether it was
        told now.
        """

    async def remove_environment(self, env_id: str) -> None:
        """Forget an environment; raises ``Conflict`` (``env_in_use``) while it has machines."""

    async def vm(self, vm_id: VmId) -> Vm:
        """Return one; raises ``NotFound`` (``vm_not_found``)."""

    async def beginning_with(
        self, word: str, *, limit: int
    ) -> tuple[tuple[Host, ...], tuple[Environment, ...], tuple[Vm, ...]]:
        """Return hosts, environments and machines whose id begins with a word, in any case: at most ``limit`` of each,
        by id. It costs no I/O.
        """

    async def vms(self, page: PageRequest) -> Page[Vm]:
        """Return machines by id."""

    async def troubled(self, page: PageRequest) -> Page[Vm]:
        """Return machines that failed, whose state is not known, or that do not go, by id. It costs what they cost."""

    async def vms_of(self, host_id: str) -> tuple[Vm, ...]:
        """Return the machines of a host."""

    async def change_vm(self, vm: Vm, *, revision: int, event: str | None, operation: Operation | None = None) -> Vm:
        """Write a changed machine; raises ``Conflict`` (``stale_vm``) when it changed meanwhile.

        ``operation`` is written in the same step: what stands as it does by this change.
        """

    async def was_planned(self, vm_id: VmId, host_id: str) -> bool:
        """Tell whether the record of what happened says that this fleet placed a machine on a host."""

    async def remove_vm(self, vm_id: VmId) -> None:
        """Forget a machine, once its host has confirmed that nothing of it is left; idempotent."""

    async def save_operation(self, operation: Operation) -> None:
        """Write an operation as it stands."""

    async def operation(self, operation_id: str) -> Operation:
        """Return one; raises ``NotFound`` (``operation_not_found``)."""

    async def operations(self, *, running: bool, page: PageRequest) -> Page[Operation]:
        """Return operations, newest first (``running``: only those under way, for the start after a crash)."""

    async def totals(self) -> Totals:
        """Return the sums; hosts that are offline have nothing that could be promised."""

    async def append_event(self, type_: str, message: str, subjects: Mapping[str, str]) -> None:
        """Write an event that belongs to no other change: something was refused, say."""

    async def events(self, *, after: str, limit: int) -> tuple[Event, ...]:
        """Return what happened after an event ('' is before the first), oldest first."""

    async def event_bounds(self) -> tuple[str, str]:
        """Return the ids before the first event that is kept and of the newest."""

    async def event_comes(self, *, after: str) -> None:
        """Return as soon as there is an event after that one."""
