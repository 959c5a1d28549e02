"""The controller's rows: hosts, environments, machines, operations, and the events that tell of every change."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from heapq import nsmallest
from typing import Final

import apsw

from borough.adapters.sql.fleet.base import subjects_of
from borough.adapters.sql.fleet.happenings import HistoryRows
from borough.adapters.sql.fleet.hosts import HostRows
from borough.adapters.sql.fleet.picture import Change, NumberedVm
from borough.adapters.sql.fleet.rows import places, row, rows, stored, text
from borough.adapters.sql.fleet.values import ENVIRONMENT, VM, environment_row, vm_row
from borough.core.clock import to_ms
from borough.core.errors import Conflict, NotFound
from borough.core.paging import Page, PageRequest
from borough.fleet.environments import Environment
from borough.fleet.hosts import Host, HostState
from borough.fleet.operations import Operation
from borough.fleet.placement import NotPlaced, Plan
from borough.fleet.ports.fleet import EnvFilter, Totals, View
from borough.fleet.vms import Vm, VmId
from borough.fleet.waiting import MOST_WAITING, Waiting

_ADD_ENVIRONMENT: Final = f"INSERT INTO environments ({ENVIRONMENT}) VALUES ({places(ENVIRONMENT)})"
_SET_ENVIRONMENT: Final = f"UPDATE environments SET ({ENVIRONMENT}) = ({places(ENVIRONMENT)}) WHERE id = ?"
_ADD_VM: Final = f"INSERT INTO vms ({VM}) VALUES ({places(VM)}) RETURNING number"
_ADD_WAITING: Final = "INSERT INTO waiting (env_id, document) VALUES (?, ?) RETURNING number"
_SET_VM: Final = f"UPDATE vms SET ({VM}) = ({places(VM)}) WHERE id = ?"


class SqlFleet(HostRows, HistoryRows):
    """The port ``Fleet``."""

    async def totals(self) -> Totals:
        """Return the sums; hosts that are offline have nothing that could be promised."""
        hosts = await self.hosts()
        online = [host.report.resource for host in hosts if host.state is HostState.ONLINE]
        return Totals(
            hosts=len(hosts),
            hosts_online=len(online),
            total_vms=len(self._reading.vms),
            total_envs=len(self._reading.environments),
            cpu_total=sum(each.cpu_total for each in online),
            cpu_used=sum(each.cpu_used for each in online),
            mem_total=sum(each.mem_total for each in online),
            mem_used=sum(each.mem_used for each in online),
            disk_total=sum(each.disk_total for each in online),
            disk_used=sum(each.disk_used for each in online),
        )

    # -- environments --------------------------------------------------------------------------------------------------

    async def view(self) -> View:
        """Return the fleet as a plan would see it now."""
        return self._reading.view()

    async def plan(
        self,
        environment: Environment,
        decide: Callable[[View], Plan | NotPlaced],
        machines: Callable[[Plan], Sequence[Vm]],
        operation: Operation,
        *,
        waits: Callable[[NotPlaced], tuple[Waiting, Operation]] | None = None,
    ) -> Plan | NotPlaced:
        """Decide on the fleet as it is and, in the same step, write environment, machines and operation."""

        def step(connection: apsw.Connection) -> Plan | NotPlaced:
            if environment.id in self._writing.environments:
                raise Conflict(
                    f"there is an environment {environment.id!r} already",
                    code="env_exists",
                    resolution="choose another name, or delete it first",
                )
            decision = decide(self._writing.view())
            if isinstance(decision, NotPlaced) and waits is None:
                return decision
            kept = replace(
                environment, created_at=stored(environment.created_at), expires_at=stored(environment.expires_at)
            )
            rows(connection, _ADD_ENVIRONMENT, environment_row(kept))
            self._mirror.change(Change("environment", kept.id, kept))
            about = {"env_id": kept.id, "owner": kept.owner}
            if isinstance(decision, Plan):
                self._add_vms(connection, decision, machines(decision))
                told = "env.created", f"{kept.id} is created with {len(decision.placed)} machines"
                self._tell(connection, told, about)
                self._save_operation(connection, operation)
            elif waits is not None:
                waiting, begun = waits(decision)
                self._add_waiting(connection, waiting)
                self._tell(connection, ("env.waiting", f"{kept.id} waits for room: {decision.reason}"), about)
                self._save_operation(connection, begun)
            return decision

        return await self._write(step)

    async def place_waiting(
        self,
        env_id: str,
        decide: Callable[[View, Waiting], Plan | NotPlaced],
        machines: Callable[[Waiting, Plan], Sequence[Vm]],
        *,
        at: datetime,
    ) -> Plan | NotPlaced | None:
        """Decide again on an environment that waits and, if there is room, write its machines in the same step."""

        def step(connection: apsw.Connection) -> Plan | NotPlaced | None:
            waiting = self._writing.waiting.get(env_id)
            environment = self._writing.environments.get(env_id)
            if waiting is None or environment is None or environment.deleting:
                return None
            decision = decide(self._writing.view(), waiting)
            if isinstance(decision, NotPlaced):
                return decision
            self._drop_waiting(connection, env_id)
            begins = replace(
                environment,
                expires_at=stored(at + timedelta(seconds=waiting.lifetime_s)),
                revision=environment.revision + 1,
            )
            rows(connection, _SET_ENVIRONMENT, (*environment_row(begins), env_id))
            self._mirror.change(Change("environment", env_id, begins))
            self._add_vms(connection, decision, machines(waiting, decision))
            told = "env.placed", f"there is room for {env_id} and its {len(decision.placed)} machines"
            self._tell(connection, told, {"env_id": env_id, "owner": environment.owner})
            return decision

        return await self._write(step)

    async def waiting(self) -> tuple[Waiting, ...]:
        """Return what waits for room, in the order of asking."""
        return self._reading.in_order_of_asking()

    async def environment(self, env_id: str) -> tuple[Environment, tuple[Vm, ...]]:
        """Return an environment with its machines."""
        found = self._reading.environments.get(env_id)
        if found is None:
            raise _no_environment(env_id)
        return found, self._reading.machines_of(env_id)

    async def environments(self, wanted: EnvFilter, page: PageRequest) -> Page[tuple[Environment, tuple[Vm, ...]]]:
        """Return environments by id."""
        picture = self._reading
        ids = sorted(each.id for each in picture.environments.values() if _is_wanted(each, wanted))
        shown, after = _page(ids, page)
        return Page(items=tuple((picture.environments[id_], picture.machines_of(id_)) for id_ in shown), after=after)

    async def change_environment(self, environment: Environment, *, revision: int, event: str) -> Environment:
        """Write a changed environment."""

        def step(connection: apsw.Connection) -> Environment:
            known = self._writing.environments.get(environment.id)
            if known is None:
                raise _no_environment(environment.id)
            if known.revision != revision:
                raise _stale("env", environment.id)
            changed = replace(
                environment,
                created_at=stored(environment.created_at),
                expires_at=stored(environment.expires_at),
                stopped_at=None if environment.stopped_at is None else stored(environment.stopped_at),
                revision=revision + 1,
            )
            rows(connection, _SET_ENVIRONMENT, (*environment_row(changed), changed.id))
            self._mirror.change(Change("environment", changed.id, changed))
            self._tell(connection, (event, f"{changed.id}: {event.removeprefix('env.')}"), {"env_id": changed.id})
            return changed

        return await self._write(step)

    async def expiring(self, *, before: datetime) -> tuple[Environment, ...]:
        """Return environments whose time is over by then, those that are being deleted too, oldest first."""
        due = [each for each in self._reading.environments.values() if each.deleting or each.expires_at <= before]
        return tuple(sorted(due, key=lambda each: (each.expires_at, each.id)))

    async def warn(self, environment: Environment) -> bool:
        """Tell that an environment's time is nearly over, once for each end of it."""
        until = to_ms(environment.expires_at)
        once = "UPDATE environments SET warned_of_ms = ?1 WHERE id = ?2 AND warned_of_ms IS NOT ?1 RETURNING id"

        def step(connection: apsw.Connection) -> bool:
            if row(connection, once, (until, environment.id)) is None:
                return False
            told = "env.expiring", f"{environment.id} ends at {environment.expires_at:%Y-%m-%d %H:%M:%S} UTC"
            self._tell(connection, told, {"env_id": environment.id, "owner": environment.owner})
            return True

        return await self._write(step)

    async def remove_environment(self, env_id: str) -> None:
        """Forget an environment that has no machines any more."""

        def step(connection: apsw.Connection) -> None:
            if env_id not in self._writing.environments:
                return
            left = self._writing.machines_of(env_id)
            if left:
                raise Conflict(
                    f"{env_id} has {len(left)} machines",
                    code="env_in_use",
                    reason="; ".join(f"{vm.id} is {vm.state.value}" for vm in left),
                    resolution="they leave when their hosts have confirmed; it is tried again by itself",
                )
            self._drop_waiting(connection, env_id)
            rows(connection, "DELETE FROM environments WHERE id = ?", (env_id,))
            self._mirror.change(Change("environment", env_id, None))
            self._tell(connection, ("env.removed", f"{env_id} is gone"), {"env_id": env_id})

        await self._write(step)

    # -- machines ------------------------------------------------------------------------------------------------------

    async def vm(self, vm_id: VmId) -> Vm:
        """Return one."""
        found = self._reading.vms.get(vm_id)
        if found is None:
            raise _no_vm(vm_id)
        return found.vm

    async def beginning_with(
        self, word: str, *, limit: int
    ) -> tuple[tuple[Host, ...], tuple[Environment, ...], tuple[Vm, ...]]:
        """Return hosts, environments and machines whose id begins with a word, in any case."""
        picture, wanted = self._reading, word.casefold()

        def begin(ids: Iterable[str]) -> list[str]:
            return nsmallest(limit, (id_ for id_ in ids if id_.casefold().startswith(wanted)))

        return (
            tuple(picture.shown(id_) for id_ in begin(picture.hosts)),
            tuple(picture.environments[id_] for id_ in begin(picture.environments)),
            tuple(picture.vms[VmId(id_)].vm for id_ in begin(picture.vms)),
        )

    async def vms(self, page: PageRequest) -> Page[Vm]:
        """Return machines by id."""
        picture = self._reading
        shown, after = _page(sorted(picture.vms), page)
        return Page(items=tuple(picture.vms[VmId(vm_id)].vm for vm_id in shown), after=after)

    async def troubled(self, page: PageRequest) -> Page[Vm]:
        """Return machines that failed, whose state is not known, or that do not go, by id."""
        picture = self._reading
        shown, after = _page(sorted(picture.troubled), page)
        return Page(items=tuple(picture.vms[VmId(vm_id)].vm for vm_id in shown), after=after)

    async def vms_of(self, host_id: str) -> tuple[Vm, ...]:
        """Return the machines of a host."""
        return self._reading.machines_of_host(host_id)

    async def change_vm(self, vm: Vm, *, revision: int, event: str | None, operation: Operation | None = None) -> Vm:
        """Write a changed machine, and an operation with it."""

        def step(connection: apsw.Connection) -> Vm:
            known = self._writing.vms.get(vm.id)
            if known is None:
                raise _no_vm(vm.id)
            if known.vm.revision != revision:
                raise _stale("vm", vm.id)
            changed = replace(_stored_vm(vm), revision=revision + 1)
            rows(connection, _SET_VM, (*vm_row(changed), vm.id))
            self._mirror.change(Change("vm", vm.id, NumberedVm(known.number, changed)))
            if event is not None:
                old = known.vm.state
                told = f"{vm.id} is {changed.state.value}" + (f": {changed.error}" if changed.error else "")
                moved = {"old_state": old.value, "new_state": changed.state.value, "desired": changed.desired.value}
                self._tell(connection, (event, told), subjects_of(changed) | moved)
            if operation is not None:
                self._save_operation(connection, operation)
            return changed

        return await self._write(step)

    async def remove_vm(self, vm_id: VmId) -> None:
        """Forget a machine, once its host has confirmed that nothing of it is left."""

        def step(connection: apsw.Connection) -> None:
            known = self._writing.vms.get(vm_id)
            if known is not None:
                self._drop_vm(connection, known.vm, "vm.removed", f"{vm_id} is gone")

        await self._write(step)

    def _add_waiting(self, connection: apsw.Connection, waiting: Waiting) -> None:
        if len(self._writing.waiting) >= MOST_WAITING:
            raise Conflict(
                f"{MOST_WAITING} environments wait for room already",
                code="too_many_waiting",
                resolution="ask again later, add a host, or delete environments that are not needed",
            )
        number = rows(connection, _ADD_WAITING, (waiting.env_id, text(waiting)))[0][0]
        self._mirror.change(Change("waiting", waiting.env_id, replace(waiting, number=number)))

    def _drop_waiting(self, connection: apsw.Connection, env_id: str) -> None:
        if env_id in self._writing.waiting:
            rows(connection, "DELETE FROM waiting WHERE env_id = ?", (env_id,))
            self._mirror.change(Change("waiting", env_id, None))

    def _add_vms(self, connection: apsw.Connection, plan: Plan, vms: Sequence[Vm]) -> None:
        for vm, placed in zip(vms, plan.placed, strict=True):
            self._add_vm(connection, _stored_vm(vm), placed.why)

    def _add_vm(self, connection: apsw.Connection, vm: Vm, why: str) -> None:
        number = rows(connection, _ADD_VM, vm_row(vm))[0][0]
        self._mirror.change(Change("vm", vm.id, NumberedVm(number, vm)))
        told = "vm.planned", f"{vm.id} goes to {vm.host_id}: {why}"
        self._tell(connection, told, subjects_of(vm) | {"new_state": vm.state.value})


def _is_wanted(environment: Environment, wanted: EnvFilter) -> bool:
    return (wanted.owner is None or environment.owner == wanted.owner) and all(
        environment.labels.get(key) == value for key, value in wanted.labels.items()
    )


def _page(ids: Sequence[str], page: PageRequest) -> tuple[Sequence[str], str | None]:
    begin = bisect_right(ids, page.after) if page.after else 0
    shown = ids[begin : begin + page.limit]
    return shown, shown[-1] if begin + len(shown) < len(ids) else None


def _stored_vm(vm: Vm) -> Vm:
    return replace(vm, created_at=stored(vm.created_at), since=None if vm.since is None else stored(vm.since))


def _no_environment(env_id: str) -> NotFound:
    return NotFound(
        f"there is no environment {env_id[:80]!r}", code="env_not_found", resolution="list them: tt env list"
    )


def _no_vm(vm_id: str) -> NotFound:
    return NotFound(f"there is no machine {vm_id[:80]!r}", code="vm_not_found", resolution="list them: tt vm list")


def _stale(what: str, id_: str) -> Conflict:
    return Conflict(
        f"{id_} has changed meanwhile", code=f"stale_{what}", resolution="read it again and repeat the request"
    )
