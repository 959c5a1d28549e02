"""The fleet's stores to open and open again, and values to put into them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from borough.adapters.sql.engine import Database
from borough.adapters.sql.fleet.controller import SqlFleet
from borough.adapters.sql.fleet.machines import HostLimits, SqlMachineStore
from borough.adapters.sql.fleet.tables import CONTROLLER, HOST
from borough.core.ids import new_id
from borough.fleet.engines import Capability, Engine, Offer
from borough.fleet.environments import Environment
from borough.fleet.hosts import Host, HostReport, HostState
from borough.fleet.operations import Operation, OperationKind
from borough.fleet.placement import NotPlaced, Plan, place
from borough.fleet.ports.fleet import View
from borough.fleet.ports.machine_store import MachineRow, MachineStep
from borough.fleet.resources import Resource
from borough.fleet.services.operations import new_operation
from borough.fleet.storage import Storage
from borough.fleet.vms import Vm, VmId, VmSpec, VmState, vm_id_of, vm_spec

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ROOM = Resource(cpu_total=8, mem_total=8192, disk_total=100_000)
MOST = 1_000


def a_report(host_id: str = "h1", *, room: Resource = ROOM, **other: Any) -> HostReport:
    offers = (
        Offer(engine=Engine.QEMU, version="9", capabilities=frozenset({Capability.EXEC, Capability.DENY_OUTGOING})),
        Offer(engine=Engine.BUBBLEWRAP, capabilities=frozenset({Capability.EXEC})),
    )
    report = HostReport(host_id=host_id, resource=room, offers=offers, storage=Storage.FILE, images=("base",))
    return replace(report, **other)


def a_host(host_id: str = "h1", *, room: Resource = ROOM, **other: Any) -> Host:
    host = Host(
        id=host_id,
        addr=f"{host_id}.example:9100",
        report=a_report(host_id, room=room),
        state=HostState.ONLINE,
        registered_at=NOON,
        heard_at=NOON,
    )
    return replace(host, **other)


def a_spec(**other: Any) -> VmSpec:
    return vm_spec(**{"image": "base", "engine": Engine.QEMU, "cpu": 1, "mem_mib": 512, "disk_mib": 1000, **other})


def an_environment(env_id: str = "e1", **other: Any) -> Environment:
    return replace(Environment(id=env_id, owner="bob", created_at=NOON, expires_at=NOON + timedelta(hours=6)), **other)


def fresh_vm_id() -> VmId:
    return vm_id_of(new_id())


def a_vm(env_id: str, host_id: str, spec: VmSpec) -> Vm:
    return Vm(
        id=fresh_vm_id(),
        env_id=env_id,
        host_id=host_id,
        spec=spec,
        state=VmState.CREATING,
        desired=VmState.RUNNING,
        created_at=NOON,
        since=NOON,
    )


def a_row(vm_id: VmId | None = None, **other: Any) -> MachineRow:
    vm = replace(a_vm("e1", "", a_spec(**other)), id=vm_id or fresh_vm_id())
    return MachineRow(vm=vm, step=MachineStep.ACCEPTED)


async def planned(fleet: SqlFleet, env_id: str, specs: Sequence[VmSpec]) -> Plan | NotPlaced:
    """Plan an environment as the service does."""

    def decide(view: View) -> Plan | NotPlaced:
        return place(specs, view.hosts, tenants=view.tenants)

    def machines(plan: Plan) -> list[Vm]:
        return [a_vm(env_id, each.host_id, each.spec) for each in plan.placed]

    return await fleet.plan(an_environment(env_id), decide, machines, an_operation(env_id))


def an_operation(subject: str = "e1", kind: OperationKind = OperationKind.CREATE) -> Operation:
    return new_operation(new_id(), kind, subject, total=1)


class ControllerFile:
    """The controller's file, opened."""

    database: Database
    fleet: SqlFleet

    def __init__(self, path: Path) -> None:
        self.path = path

    async def open(self) -> SqlFleet:
        self.database = await Database.open(self.path, CONTROLLER)
        self.fleet = await SqlFleet.open(self.database)
        return self.fleet

    async def close(self) -> None:
        await self.database.close()

    async def reopen(self) -> SqlFleet:
        await self.close()
        return await self.open()


class HostFile:
    """A host's file, opened."""

    database: Database
    store: SqlMachineStore

    def __init__(self, path: Path, limits: HostLimits | None = None) -> None:
        self.path = path
        self.limits = limits or HostLimits(resource=ROOM, most_vms=MOST)
        self.busy: set[int] = set()

    async def open(self) -> SqlMachineStore:
        self.database = await Database.open(self.path, HOST)
        self.store = await SqlMachineStore.open(
            self.database, self.limits, port_is_free=lambda port: port not in self.busy
        )
        await self.store.host_id("h1", "fresh")
        return self.store

    async def close(self) -> None:
        await self.database.close()

    async def reopen(self) -> SqlMachineStore:
        await self.close()
        return await self.open()
