"""The controller's rows in memory, with what is promised of each host always counted.

The sums of a host change with each of its machines and are never added up anew, so that a plan costs what its hosts
cost and not what all machines do.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

from borough.fleet.environments import Environment
from borough.fleet.hosts import Host
from borough.fleet.ports.fleet import View
from borough.fleet.vms import Vm, VmId, is_troubled
from borough.fleet.waiting import Waiting


@dataclass(frozen=True, slots=True)
class NumberedVm:
    """A machine with its place in the order of all."""

    number: int
    vm: Vm


@dataclass(frozen=True, slots=True)
class Change:
    """One row and what it is from now on (``None``: it is gone)."""

    table: Literal["host", "environment", "vm", "event", "waiting"]
    id: str
    now: Host | Environment | NumberedVm | Waiting | int | None


class _Tally:
    """What is promised of one host, and to whose machines."""

    __slots__ = ("cpu", "disk_mib", "environments", "machines", "mem_mib", "tenants")

    def __init__(self) -> None:
        self.cpu = self.mem_mib = self.disk_mib = 0
        self.machines: dict[VmId, None] = {}
        self.environments: Counter[str] = Counter()
        self.tenants: frozenset[str] = frozenset()

    def add(self, vm: Vm) -> None:
        self.machines[vm.id] = None
        self.environments[vm.env_id] += 1
        if self.environments[vm.env_id] == 1:
            self.tenants = frozenset(self.environments)
        self._count(vm, 1)

    def drop(self, vm: Vm) -> None:
        del self.machines[vm.id]
        self.environments[vm.env_id] -= 1
        if not self.environments[vm.env_id]:
            del self.environments[vm.env_id]
            self.tenants = frozenset(self.environments)
        self._count(vm, -1)

    def _count(self, vm: Vm, sign: int) -> None:
        size = vm.spec.size
        self.disk_mib += sign * size.disk_mib
        if vm.runs:
            self.cpu += sign * size.cpu
            self.mem_mib += sign * size.mem_mib


class FleetPicture:
    """Hosts, environments and machines, as ``Mirror`` keeps them."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self.environments: dict[str, Environment] = {}
        self.vms: dict[VmId, NumberedVm] = {}
        self.waiting: dict[str, Waiting] = {}
        self.newest_event = 0
        self.troubled: set[VmId] = set()
        """Machines that are not as they should be."""
        self._of_environment: dict[str, dict[VmId, None]] = {}
        self._tallies: dict[str, _Tally] = {}
        self._shown: dict[str, Host] = {}

    def apply(self, change: Change) -> Change:
        """Make ``change``; return the one that undoes it."""
        match change.now:
            case Host() as host:
                before: object = self.hosts.get(host.id)
                self.hosts[host.id] = host
                self._shown.pop(host.id, None)
            case Environment() as environment:
                before = self.environments.get(environment.id)
                self.environments[environment.id] = environment
            case NumberedVm() as numbered:
                before = self._drop_vm(VmId(change.id))
                self._add_vm(numbered)
            case Waiting() as waiting:
                before = self.waiting.get(waiting.env_id)
                self.waiting[waiting.env_id] = waiting
            case int() as newest:
                before, self.newest_event = self.newest_event, newest
            case _:
                before = self._drop(change)
        return Change(change.table, change.id, before)  # type: ignore[arg-type]  # what the table held

    def machines_of_host(self, host_id: str) -> tuple[Vm, ...]:
        """Return the machines of a host, oldest first."""
        tally = self._tallies.get(host_id)
        return self._in_order(tally.machines) if tally is not None else ()

    def machines_of(self, env_id: str) -> tuple[Vm, ...]:
        """Return the machines of an environment in the order in which they were asked for."""
        return self._in_order(self._of_environment.get(env_id, {}))

    def shown(self, host_id: str) -> Host:
        """Return a host with what is promised of it."""
        found = self._shown.get(host_id)
        if found is None:
            found = self._shown[host_id] = _with_promises(self.hosts[host_id], self._tallies.get(host_id))
        return found

    def view(self) -> View:
        """Return the fleet as a plan sees it."""
        return View(
            hosts=tuple(self.shown(host_id) for host_id in self.hosts),
            tenants={host_id: tally.tenants for host_id, tally in self._tallies.items()},
            vm_count=len(self.vms),
            waiting=self.in_order_of_asking(),
        )

    def in_order_of_asking(self) -> tuple[Waiting, ...]:
        """Return what waits for room."""
        return tuple(sorted(self.waiting.values(), key=lambda each: each.number))

    def _drop(self, change: Change) -> object:
        if change.table == "host":
            self._shown.pop(change.id, None)
            return self.hosts.pop(change.id, None)
        if change.table == "environment":
            return self.environments.pop(change.id, None)
        if change.table == "waiting":
            return self.waiting.pop(change.id, None)
        return self._drop_vm(VmId(change.id))

    def _add_vm(self, numbered: NumberedVm) -> None:
        vm = numbered.vm
        self.vms[vm.id] = numbered
        if is_troubled(vm):
            self.troubled.add(vm.id)
        self._of_environment.setdefault(vm.env_id, {})[vm.id] = None
        self._tallies.setdefault(vm.host_id, _Tally()).add(vm)
        self._shown.pop(vm.host_id, None)

    def _drop_vm(self, vm_id: VmId) -> NumberedVm | None:
        numbered = self.vms.pop(vm_id, None)
        if numbered is None:
            return None
        vm = numbered.vm
        self.troubled.discard(vm_id)
        together = self._of_environment[vm.env_id]
        del together[vm_id]
        if not together:
            del self._of_environment[vm.env_id]
        tally = self._tallies[vm.host_id]
        tally.drop(vm)
        if not tally.machines:
            del self._tallies[vm.host_id]
        self._shown.pop(vm.host_id, None)
        return numbered

    def _in_order(self, ids: dict[VmId, None]) -> tuple[Vm, ...]:
        numbered = sorted((self.vms[vm_id] for vm_id in ids), key=lambda each: each.number)
        return tuple(each.vm for each in numbered)


def _with_promises(host: Host, tally: _Tally | None) -> Host:
    tally = tally or _Tally()
    resource = replace(
        host.report.resource,
        cpu_used=tally.cpu,
        mem_used=tally.mem_mib,
        disk_used=tally.disk_mib,
        vm_count=len(tally.machines),
    )
    return replace(host, report=replace(host.report, resource=resource))
