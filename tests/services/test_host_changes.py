"""Machines that end unasked: noticed by their processes, told to who listens, and never where the end was asked for."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from borough.adapters import process
from borough.adapters.engines.endings import EngineEndings
from borough.adapters.process import ProcessRef
from borough.bootstrap.fleet import FleetController
from borough.bootstrap.host import OpenHost
from borough.controllers.fleet import controllers
from borough.controllers.loops import Controller
from borough.core.clock import utc_now
from borough.fleet.engines import Engine
from borough.fleet.ports.host_agent import CreateOrder
from borough.fleet.vms import Vm, VmId, VmState
from tests.conftest import eventually
from tests.contracts.fleet_kit import a_spec, fresh_vm_id
from tests.services.fleet_house import (
    end_machines,
    opened_host,
    running_controller,
    running_host,
    settings_of_controller,
    settings_of_host,
)
from tests.services.plain_engine import PlainEngine

pytestmark = pytest.mark.anyio

NEVER = timedelta(hours=1)
QUICK = timedelta(seconds=0.05)


def an_order() -> CreateOrder:
    return CreateOrder(vm_id=fresh_vm_id(), env_id="e1", spec=a_spec(engine=Engine.BUBBLEWRAP, mem_mib=64))


def watched(host: OpenHost) -> frozenset[VmId]:
    endings = host.daemon._machines.changes._endings
    assert isinstance(endings, EngineEndings)
    return endings.watched


def pidfds() -> int:
    """Return how many pidfds this process has open."""
    count = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing itself
            count += "[pidfd]" in str(each.readlink())
    return count


async def killed(engine: PlainEngine, vm_id: VmId) -> None:
    ref = await engine.last_process(vm_id)
    assert ref is not None
    os.kill(ref.pid, signal.SIGKILL)


async def in_state(host: OpenHost, vm_id: VmId, state: VmState) -> None:
    async def there() -> bool:
        return (await host.daemon.machine(vm_id)).state is state

    await eventually(there)


async def test_a_machine_that_is_killed_has_failed_at_once_and_may_be_started(tmp_path: Path) -> None:
    """No loop of the host runs here: nothing looks."""
    order = an_order()
    async with opened_host(settings_of_host(tmp_path)) as (host, engine):
        await host.daemon.create(order)
        await killed(engine, order.vm_id)
        await in_state(host, order.vm_id, VmState.FAILED)
        vm = await host.daemon.machine(order.vm_id)
        assert (vm.desired, vm.error) == (VmState.RUNNING, "it was killed")
        assert (await host.daemon.start(order.vm_id)).state is VmState.RUNNING
        await killed(engine, order.vm_id)
        await in_state(host, order.vm_id, VmState.FAILED)
        await end_machines(engine)


async def test_a_machine_that_an_earlier_daemon_started_is_watched_too(tmp_path: Path) -> None:
    runs, paused = an_order(), an_order()
    async with opened_host(settings_of_host(tmp_path)) as (host, _):
        for order in (runs, paused):
            await host.daemon.create(order)
        await host.daemon.pause(paused.vm_id)
    assert pidfds() == 0, "none is left open by a daemon that has ended"
    async with opened_host(settings_of_host(tmp_path)) as (host, engine):
        assert watched(host) == {runs.vm_id, paused.vm_id}
        for order in (runs, paused):
            await killed(engine, order.vm_id)
            await in_state(host, order.vm_id, VmState.FAILED)
        await end_machines(engine)


async def test_what_is_asked_for_is_no_death_and_leaves_no_descriptor(tmp_path: Path) -> None:
    async with opened_host(settings_of_host(tmp_path)) as (host, engine):
        changes = host.daemon.changes()
        async with aclosing(changes) as told:
            assert await anext(told) is None
            one, other = an_order(), an_order()
            for order in (one, other):
                await host.daemon.create(order)
            await host.daemon.snapshot(one.vm_id, "good")
            for _ in range(3):
                assert (await host.daemon.stop(one.vm_id)).state is VmState.STOPPED
                assert (await host.daemon.start(one.vm_id)).state is VmState.RUNNING
                assert (await host.daemon.pause(one.vm_id)).state is VmState.PAUSED
                assert (await host.daemon.start(one.vm_id)).state is VmState.RUNNING
                assert (await host.daemon.restore(one.vm_id, "good")).state is VmState.RUNNING
            await host.daemon.stop(one.vm_id)
            await host.daemon.destroy(one.vm_id)

            async def all_noticed() -> bool:
                return watched(host) == {other.vm_id} and not host.daemon._machines.changes._settling

            await eventually(all_noticed)
            assert pidfds() == 1
            await killed(engine, other.vm_id)
            async with asyncio.timeout(10):
                assert await anext(told) == other.vm_id, "the first of which anything is told"
        await host.daemon.destroy(other.vm_id)
    assert pidfds() == 0


async def test_nobody_judges_a_machine_with_which_something_is_being_done(tmp_path: Path) -> None:
    order = an_order()
    async with opened_host(settings_of_host(tmp_path)) as (host, engine):
        await host.daemon.create(order)
        async with host.daemon._machines.alone(order.vm_id):
            await killed(engine, order.vm_id)

            async def noticed() -> bool:
                return bool(host.daemon._machines.changes._settling)

            await eventually(noticed)
            assert (await host.daemon.machine(order.vm_id)).state is VmState.RUNNING
        await in_state(host, order.vm_id, VmState.FAILED)
        await end_machines(engine)


def listening_only(fleet: FleetController) -> tuple[Controller, ...]:
    """The controller's loops, none of which looks at a host again."""
    services = fleet.services
    loops = controllers(
        services.fleet, services.hosts, services.environments, services.machines, fleet.listening,
        heartbeat=NEVER, clock=QUICK, retry=NEVER,
    )  # fmt: skip
    return tuple(loop for loop in loops if loop.name == "listen to hosts")


async def test_the_controller_knows_at_once_also_of_a_host_that_came_back(tmp_path: Path) -> None:
    vm = {"image": "base", "engine": "bubblewrap", "cpu": 1, "mem": 64, "disk": 1000}
    settings = settings_of_host(tmp_path / "host", host_id="h1")
    async with running_controller(settings_of_controller(tmp_path), loops=listening_only) as fleet:
        async with running_host(settings, keep=True) as host:
            assert (await fleet.ask("POST", "/api/hosts", json={"addr": host.addr}))[0] == 201
            body = {"id": "e1", "ssh_keys": [], "vms": [vm, vm]}
            made = (await fleet.ask("POST", "/api/envs", json=body))[1]["data"]["vms"]
            first, second = (VmId(each["id"]) for each in made)
            address = host.addr

            async def listens() -> bool:
                return bool(host.opened.daemon._machines.changes._listeners)

            await eventually(listens)
            await killed(host.engine, first)

            async def failed(vm_id: VmId) -> bool:
                told = (await fleet.ask("GET", f"/api/vms/{vm_id}"))[1]["data"]
                return bool(told["state"] == "failed" and told["error"] == "it was killed")

            await eventually(lambda: failed(first))
            assert (await fleet.ask("GET", "/api/envs/e1"))[1]["data"]["env"]["state"] == "failed"
        listening = replace(settings.listening, port=int(address.rpartition(":")[2]))
        again = replace(settings, listening=listening)
        async with running_host(again) as host:
            await eventually(listens)
            await killed(host.engine, second)
            await eventually(lambda: failed(second))


class OneProcess:
    """An engine whose machines are one process."""

    def __init__(self, ref: ProcessRef | None) -> None:
        self.ref = ref
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()

    async def last_process(self, _vm_id: VmId) -> ProcessRef | None:
        self.asked.set()
        await self.answers.wait()
        return self.ref


def a_vm() -> Vm:
    return Vm(
        id=fresh_vm_id(), env_id="e1", host_id="", spec=a_spec(engine=Engine.BUBBLEWRAP), state=VmState.RUNNING,
        desired=VmState.RUNNING, created_at=utc_now(),
    )  # fmt: skip


@asynccontextmanager
async def sleeping() -> AsyncIterator[process.Child]:
    child = process.start(["sleep", "86400"], env={})
    try:
        yield child
    finally:
        child.kill()
        child.wait(5)


async def test_one_that_ended_before_it_could_be_watched_is_told() -> None:
    told: list[VmId] = []
    async with sleeping() as child:
        engine = OneProcess(child.ref)
        endings = EngineEndings({Engine.BUBBLEWRAP: engine})
        child.kill()
        child.wait(5)
        vm = a_vm()
        await endings.watch(vm, told.append)

        async def is_told() -> bool:
            return told == [vm.id]

        await eventually(is_told)
        assert endings.watched == frozenset()
    endings.close()
    assert pidfds() == 0


async def test_no_more_are_watched_than_there_is_room_for_and_none_after_the_end() -> None:
    told: list[VmId] = []
    async with sleeping() as child:
        engine = OneProcess(child.ref)
        endings = EngineEndings({Engine.BUBBLEWRAP: engine}, most=2)
        machines = [a_vm() for _ in range(3)]
        for vm in machines:
            await endings.watch(vm, told.append)
        await endings.watch(machines[0], told.append)
        assert endings.watched == {machines[0].id, machines[1].id}
        assert pidfds() == 2
        endings.close()
        assert pidfds() == 0
        engine.asked.clear()
        engine.answers.clear()
        late = asyncio.create_task(endings.watch(machines[2], told.append))
        await engine.asked.wait()
        endings.close()
        engine.answers.set()
        await late
        assert endings.watched == frozenset()
        assert pidfds() == 0
    assert told == []
