"""What a controller with a thousand machines answers with, and how much memory that takes. No host is contacted."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from bench.figures import Figure, Section, milliseconds, percentile
from bench.fleet_programs import Program, controller, scratch
from bench.harness import memory_mib
from bench.http_load import drive
from bench.placement import a_fleet
from borough.adapters.sql.engine import Database
from borough.adapters.sql.fleet.controller import SqlFleet
from borough.adapters.sql.fleet.tables import CONTROLLER
from borough.bootstrap.fleet import STORE
from borough.core.clock import utc_now
from borough.core.ids import new_id
from borough.fleet.engines import Engine
from borough.fleet.environments import Environment
from borough.fleet.operations import OperationKind
from borough.fleet.placement import NotPlaced, Plan, place
from borough.fleet.ports.fleet import View
from borough.fleet.services.operations import new_operation
from borough.fleet.vms import Vm, VmState, vm_id_of, vm_spec

HOSTS, ENVIRONMENTS, EACH = 50, 100, 10
REQUESTS = 300
GOAL_S = 0.020
PATHS = ("/api/status", "/api/hosts", "/api/envs", "/api/envs?limit=100", "/api/vms", "/api/vms?limit=100")


async def planted(folder: Path) -> None:
    """Write a fleet of running machines into a controller's file."""
    folder.mkdir(parents=True, mode=0o700)
    database = await Database.open(folder / STORE, CONTROLLER)
    try:
        fleet = await SqlFleet.open(database)
        for number, host in enumerate(a_fleet(HOSTS, 0, seed=1)):
            room = replace(host.report.resource, cpu_total=100, mem_total=200_000, disk_total=1_000_000)
            report = replace(host.report, resource=room)
            await fleet.add_host(replace(host, addr=f"127.0.0.1:{number + 1}", report=report), most=HOSTS)
        for number in range(ENVIRONMENTS):
            await _environment(fleet, f"env-{number}")
    finally:
        await database.close()


async def _environment(fleet: SqlFleet, env_id: str) -> None:
    now = utc_now()
    spec = vm_spec(image="base", engine=Engine.QEMU, cpu=1, mem_mib=512, disk_mib=1_000, ports=(22, 80))
    environment = Environment(id=env_id, owner="bench", created_at=now, expires_at=now + timedelta(hours=6))

    def decide(view: View) -> Plan | NotPlaced:
        return place([spec] * EACH, view.hosts, tenants=view.tenants)

    def machines(plan: Plan) -> list[Vm]:
        return [
            Vm(
                id=vm_id_of(new_id()), env_id=env_id, host_id=each.host_id, spec=spec, state=VmState.RUNNING,
                desired=VmState.RUNNING, created_at=now, since=now,
            )
            for each in plan.placed
        ]  # fmt: skip

    operation = new_operation(new_id(), OperationKind.STOP, env_id, total=0)
    plan = await fleet.plan(environment, decide, machines, operation)
    assert isinstance(plan, Plan), plan


async def _asked(program: Program, path: str) -> list[float]:
    connection = await program.connect()
    try:
        run = await drive([connection], REQUESTS, lambda each, _: _get(each, path))
    finally:
        connection.close()
    return run.latencies_s


async def _get(connection: object, path: str) -> None:
    (await connection.get(path)).expect(200)  # type: ignore[attr-defined]  # a connection


async def measure() -> Section:
    figures = []
    with scratch() as folder:
        with controller(folder / "empty") as program:
            empty = memory_mib(program.process.pid)
        await planted(folder / "full" / "data")
        with controller(folder / "full") as program:
            for path in PATHS:
                took = await _asked(program, path)
                p50, p99 = percentile(took, 50), percentile(took, 99)
                goal = f"p50 ≤ {GOAL_S * 1000:.0f} ms"
                told = f"{milliseconds(p50)} / {milliseconds(p99)}"
                figures.append(Figure(what=f"`{path}`, p50 / p99", value=told, goal=goal, met=p50 <= GOAL_S))
            full = memory_mib(program.process.pid)
    figures.append(Figure(what="memory, no machines", value=f"{empty:.0f} MiB"))
    figures.append(Figure(what=f"memory, {ENVIRONMENTS * EACH:,} machines", value=f"{full:.0f} MiB"))
    return Section(
        name="controller",
        title="A controller with a thousand machines",
        how=f"{HOSTS} hosts that are rows only, {ENVIRONMENTS} environments of {EACH} machines; {REQUESTS} requests "
        "for each route over one connection. Memory is the proportional share.",
        figures=figures,
    )
