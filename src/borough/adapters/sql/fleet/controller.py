"""The controller's rows: hosts, environments, machines, operations, and the events that tell of every change."""

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, Self

import apsw

from borough.adapters.sql.engine import Database
from borough.adapters.sql.fleet import history
from borough.adapters.sql.fleet.picture import Change, FleetPicture, NumberedVm
from borough.adapters.sql.fleet.rows import places, row, rows, stored
from borough.adapters.sql.fleet.values import ENVIRONMENT, HOST, VM, environment_row, host_row, load, vm_row
from borough.adapters.sql.mirror import Mirror
from borough.core.clock import to_ms, utc_now
from borough.core.errors import Conflict, NotFound
from borough.core.events import Event
from borough.core.paging import Page, PageRequest
from borough.fleet.environments import Environment
from borough.fleet.hosts import Host, HostReport, HostState
from borough.fleet.operations import Operation
from borough.fleet.placement import NotPlaced, Plan
from borough.fleet.ports.fleet import EnvFilter, Totals, View
from borough.fleet.vms import Vm, VmId

_ADD_HOST: Final = f"INSERT INTO hosts ({HOST}) VALUES ({places(HOST)})"
_SET_HOST: Final = f"UPDATE hosts SET ({HOST}) = ({places(HOST)}) WHERE id = ?"
_ADD_ENVIRONMENT: Final = f"INSERT INTO environments ({ENVIRONMENT}) VALUES ({places(ENVIRONMENT)})"
_SET_ENVIRONMENT: Final = f"UPDATE environments SET ({ENVIRONMENT}) = ({places(ENVIRONMENT)}) WHERE id = ?"
_ADD_VM: Final = f"INSERT INTO vms ({VM}) VALUES ({places(VM)}) RETURNING number"
_SET_VM: Final = f"UPDATE vms SET ({VM}) = ({places(VM)}) WHERE id = ?"


class SqlFleet:
    """The port ``Fleet``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._mirror: Mirror[FleetPicture, Change] = Mirror(load, self._wake)
        self._waiters: set[asyncio.Event] = set()

    @classmethod
    async def open(cls, database: Database) -> Self:
        """Return the fleet of a file that was opened with ``tables.CONTROLLER``."""
        fleet = cls(database)
        await fleet._mirror.open(database)
        return fleet

    # -- hosts ---------------------------------------------------------------------------------------------------------

    async def add_host(self, host: Host, *, most: int) -> Host:
        """Register a host, or the same one at the same address again."""

        def step(connection: apsw.Connection) -> Host:
            known = self._writing.hosts.get(host.id)
            _check_binding(host, self._writing.hosts.values())
            if known is None and len(self._writing.hosts) >= most:
                raise Conflict(
                    f"there are {most} hosts already",
                    code="too_many_hosts",
                    resolution="remove one that is not needed, or raise the limit in the settings",
                )
            added = replace(
                host,
                registered_at=stored(host.registered_at),
                heard_at=stored(host.heard_at),
                labels=host.labels if known is None else known.labels,
                cordoned=known is not None and known.cordoned,
                draining=known is not None and known.draining,
                revision=0 if known is None else known.revision + 1,
            )
            if known is None:
                rows(connection, _ADD_HOST, host_row(added))
            else:
                rows(connection, _SET_HOST, (*host_row(added), host.id))
            self._mirror.change(Change("host", host.id, added))
            told = "host.registered", f"{host.id} at {host.addr} is registered"
            self._tell(connection, told, {"host_id": host.id})
            return self._writing.shown(host.id)

        return await self._database.write(step)

    async def host(self, host_id: str) -> Host:
        """Return one."""
        if host_id not in self._reading.hosts:
            raise _no_host(host_id)
        return self._reading.shown(host_id)

    async def hosts(self) -> tuple[Host, ...]:
        """Return all with what is promised counted, oldest first."""
        return tuple(self._reading.shown(host_id) for host_id in self._reading.hosts)

    async def heard(self, host_id: str, report: HostReport | None, *, at: datetime, error: str | None) -> Host:
        """Note what a host said, or (``None``) that it did not answer."""

        def heard(host: Host) -> Host:
            if report is None:
                return replace(host, error=error)
            return replace(host, report=report, heard_at=stored(at), state=HostState.ONLINE, error=error)

        return await self._change_host(host_id, heard)

    async def set_host_state(self, host_id: str, state: HostState, *, at: datetime) -> Host:
        """Change whether a host counts as there."""
        return await self._change_host(host_id, lambda host: replace(host, state=state), at=at)

    async def change_host(
        self, host_id: str, *, cordoned: bool | None, draining: bool | None, labels: Mapping[str, str] | None
    ) -> Host:
        """Change what people say of a host."""

        def changed(host: Host) -> Host:
            return replace(
                host,
                cordoned=host.cordoned if cordoned is None else cordoned,
                draining=host.draining if draining is None else draining,
                labels=host.labels if labels is None else dict(labels),
            )

        return await self._change_host(host_id, changed)

    async def remove_host(self, host_id: str, *, with_machines: bool) -> tuple[Vm, ...]:
        """Forget a host, and with it its machines where that is wanted."""

        def step(connection: apsw.Connection) -> tuple[Vm, ...]:
            if host_id not in self._writing.hosts:
                return ()
            machines = self._writing.machines_of_host(host_id)
            if machines and not with_machines:
                raise Conflict(
                    f"{host_id} has {len(machines)} machines",
                    code="host_in_use",
                    resolution="delete their environments first; a host that is dead is detached",
                )
            for vm in machines:
                self._drop_vm(connection, vm, "vm.detached", f"{vm.id} is forgotten with its host {host_id}")
            rows(connection, "DELETE FROM hosts WHERE id = ?", (host_id,))
            self._mirror.change(Change("host", host_id, None))
            self._tell(connection, ("host.removed", f"{host_id} is removed"), {"host_id": host_id})
            return machines

        return await self._database.write(step)

    async def _change_host(self, host_id: str, change: Callable[[Host], Host], *, at: datetime | None = None) -> Host:
        def step(connection: apsw.Connection) -> Host:
            known = self._writing.hosts.get(host_id)
            if known is None:
                raise _no_host(host_id)
            changed = change(known)
            if changed != known:
                changed = replace(changed, revision=known.revision + 1)
                rows(connection, _SET_HOST, (*host_row(changed), host_id))
                self._mirror.change(Change("host", host_id, changed))
                told = _told_of_host(known, changed)
                if told is not None:
                    self._tell(connection, told, {"host_id": host_id}, at)
            return self._writing.shown(host_id)

        return await self._database.write(step)

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
            if isinstance(decision, NotPlaced):
                return decision
            kept = replace(
                environment, created_at=stored(environment.created_at), expires_at=stored(environment.expires_at)
            )
            rows(connection, _ADD_ENVIRONMENT, environment_row(kept))
            self._mirror.change(Change("environment", kept.id, kept))
            for vm, placed in zip(machines(decision), decision.placed, strict=True):
                self._add_vm(connection, _stored_vm(vm), placed.why)
            told = "env.created", f"{kept.id} is created with {len(decision.placed)} machines"
            self._tell(connection, told, {"env_id": kept.id, "owner": kept.owner})
            self._save_operation(connection, operation)
            return decision

        return await self._database.write(step)

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

        return await self._database.write(step)

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

        return await self._database.write(step)

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
            rows(connection, "DELETE FROM environments WHERE id = ?", (env_id,))
            self._mirror.change(Change("environment", env_id, None))
            self._tell(connection, ("env.removed", f"{env_id} is gone"), {"env_id": env_id})

        await self._database.write(step)

    # -- machines ------------------------------------------------------------------------------------------------------

    async def vm(self, vm_id: VmId) -> Vm:
        """Return one."""
        found = self._reading.vms.get(vm_id)
        if found is None:
            raise _no_vm(vm_id)
        return found.vm

    async def vms(self, page: PageRequest) -> Page[Vm]:
        """Return machines by id."""
        picture = self._reading
        shown, after = _page(sorted(picture.vms), page)
        return Page(items=tuple(picture.vms[VmId(vm_id)].vm for vm_id in shown), after=after)

    async def vms_of(self, host_id: str) -> tuple[Vm, ...]:
        """Return the machines of a host."""
        return self._reading.machines_of_host(host_id)

    async def change_vm(self, vm: Vm, *, revision: int, event: str | None) -> Vm:
        """Write a changed machine."""

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
                self._tell(connection, (event, told), _subjects(changed) | moved)
            return changed

        return await self._database.write(step)

    async def remove_vm(self, vm_id: VmId) -> None:
        """Forget a machine, once its host has confirmed that nothing of it is left."""

        def step(connection: apsw.Connection) -> None:
            known = self._writing.vms.get(vm_id)
            if known is not None:
                self._drop_vm(connection, known.vm, "vm.removed", f"{vm_id} is gone")

        await self._database.write(step)

    def _add_vm(self, connection: apsw.Connection, vm: Vm, why: str) -> None:
        number = rows(connection, _ADD_VM, vm_row(vm))[0][0]
        self._mirror.change(Change("vm", vm.id, NumberedVm(number, vm)))
        told = "vm.planned", f"{vm.id} goes to {vm.host_id}: {why}"
        self._tell(connection, told, _subjects(vm) | {"new_state": vm.state.value})

    def _drop_vm(self, connection: apsw.Connection, vm: Vm, event: str, message: str) -> None:
        rows(connection, "DELETE FROM vms WHERE id = ?", (vm.id,))
        self._mirror.change(Change("vm", vm.id, None))
        self._tell(connection, (event, message), _subjects(vm) | {"old_state": vm.state.value})

    # -- operations, sums and events -----------------------------------------------------------------------------------

    async def save_operation(self, operation: Operation) -> None:
        """Write an operation as it stands."""
        await self._database.write(lambda connection: self._save_operation(connection, operation))

    async def operation(self, operation_id: str) -> Operation:
        """Return one."""
        return await self._database.read(lambda connection: history.operation(connection, operation_id))

    async def operations(self, *, running: bool, page: PageRequest) -> Page[Operation]:
        """Return operations, newest first; those under way oldest first."""
        return await self._database.read(lambda connection: history.operations(connection, page, running=running))

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

    async def events(self, *, after: str, limit: int) -> tuple[Event, ...]:
        """Return what happened after an event, oldest first."""
        number = history.event_number(after)
        return await self._database.read(lambda connection: history.events_after(connection, number, limit))

    async def event_bounds(self) -> tuple[str, str]:
        """Return the ids before the first event that is kept and of the newest."""
        newest = self._reading.newest_event
        oldest = await self._database.read(history.oldest_event)
        return str(newest if oldest is None else oldest - 1), str(newest)

    async def event_comes(self, *, after: str) -> None:
        """Return as soon as there is an event after that one."""
        number = history.event_number(after)
        woken = asyncio.Event()
        self._waiters.add(woken)
        try:
            while self._reading.newest_event <= number:
                await woken.wait()
                woken.clear()
        finally:
            self._waiters.discard(woken)

    def _save_operation(self, connection: apsw.Connection, operation: Operation) -> None:
        if history.save_operation(connection, operation):
            about = {"operation_id": operation.id, "subject": operation.subject}
            self._tell(connection, history.told_of(operation), about)

    def _tell(
        self,
        connection: apsw.Connection,
        told: tuple[str, str],
        subjects: Mapping[str, str],
        at: datetime | None = None,
    ) -> None:
        """Write an event of a type and a message."""
        number = history.tell(connection, *told, subjects, at or utc_now())
        self._mirror.change(Change("event", "", number))

    def _wake(self) -> None:
        for woken in self._waiters:
            woken.set()

    @property
    def _writing(self) -> FleetPicture:
        return self._mirror.writing

    @property
    def _reading(self) -> FleetPicture:
        return self._mirror.reading


def _check_binding(host: Host, known: Iterable[Host]) -> None:
    """Refuse a host that would take another's place."""
    for other in known:
        if (other.id == host.id) != (other.addr == host.addr):
            raise Conflict(
                f"{host.id} at {host.addr} does not go with {other.id} at {other.addr}, which is registered",
                code="host_bound",
                reason="an id belongs to one address, and an address to one host",
                resolution=f"remove or detach {other.id} first, or give the host an id of its own (--host-id)",
            )


def _is_wanted(environment: Environment, wanted: EnvFilter) -> bool:
    return (wanted.owner is None or environment.owner == wanted.owner) and all(
        environment.labels.get(key) == value for key, value in wanted.labels.items()
    )


def _page(ids: Sequence[str], page: PageRequest) -> tuple[Sequence[str], str | None]:
    begin = bisect_right(ids, page.after) if page.after else 0
    shown = ids[begin : begin + page.limit]
    return shown, shown[-1] if begin + len(shown) < len(ids) else None


def _told_of_host(before: Host, now: Host) -> tuple[str, str] | None:
    if before.state is not now.state:
        return f"host.{now.state.value}", f"{now.id} is {now.state.value}" + (f": {now.error}" if now.error else "")
    said = (before.cordoned, before.draining, before.labels)
    if said != (now.cordoned, now.draining, now.labels):
        how = "draining" if now.draining else "cordoned" if now.cordoned else "in service"
        return "host.changed", f"{now.id} is {how}"
    return None


def _stored_vm(vm: Vm) -> Vm:
    return replace(vm, created_at=stored(vm.created_at), since=None if vm.since is None else stored(vm.since))


def _subjects(vm: Vm) -> dict[str, str]:
    return {"vm_id": vm.id, "env_id": vm.env_id, "host_id": vm.host_id}


def _no_host(host_id: str) -> NotFound:
    return NotFound(f"there is no host {host_id[:80]!r}", code="host_not_found", resolution="list them: tt host list")


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
