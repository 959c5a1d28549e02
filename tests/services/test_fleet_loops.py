"""What goes on by itself: hosts are heard, environments end, what clings is tried again, hosts come back to life."""

import asyncio
import io
import json
import os
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from borough.bootstrap.fleet import FleetController
from borough.config.fleet import Listening
from borough.controllers.fleet import controllers
from borough.controllers.loops import Controller
from borough.fleet.engines import Engine
from borough.fleet.hosts import HostState
from borough.fleet.images import Image
from borough.fleet.ports.host_agent import CreateOrder
from borough.fleet.ports.machine_store import MachineStep
from borough.fleet.vms import VmState
from tests.conftest import eventually
from tests.contracts.fleet_kit import a_spec, fresh_vm_id
from tests.services.fleet_house import (
    RunningController,
    RunningHost,
    end_machines,
    opened_host,
    running_controller,
    running_host,
    settings_of_controller,
    settings_of_host,
)
from tests.services.plain_engine import failed

pytestmark = pytest.mark.anyio
VM = {"image": "base", "engine": "bubblewrap", "cpu": 1, "mem": 64, "disk": 1000}
QUICK = timedelta(seconds=0.05)


def quick(fleet: FleetController) -> tuple[Controller, ...]:
    services = fleet.services
    return controllers(
        services.fleet,
        services.hosts,
        services.environments,
        services.machines,
        fleet.listening,
        heartbeat=QUICK,
        clock=QUICK,
        retry=QUICK,
    )


@asynccontextmanager
async def controller(tmp_path: Path) -> AsyncIterator[RunningController]:
    async with running_controller(settings_of_controller(tmp_path), loops=quick) as running:
        yield running


async def created(fleet: RunningController, env_id: str, *vms: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"id": env_id, "ssh_keys": [], "vms": list(vms), **more}
    status, answer = await fleet.ask("POST", "/api/envs", json=body)
    assert status == 201, answer
    made: dict[str, Any] = answer["data"]
    return made


async def env_state(fleet: RunningController, env_id: str) -> str:
    status, answer = await fleet.ask("GET", f"/api/envs/{env_id}")
    return str(answer["data"]["env"]["state"]) if status == 200 else "gone"


async def event_types(fleet: RunningController) -> list[str]:
    return [event["type"] for event in (await fleet.ask("GET", "/api/events?limit=1000"))[1]["data"]]


async def test_an_environment_ends_by_itself_with_a_warning_before(tmp_path: Path) -> None:
    async with running_host(settings_of_host(tmp_path / "h")) as host, controller(tmp_path) as fleet:
        await fleet.ask("POST", "/api/hosts", json={"addr": host.addr})
        await created(fleet, "e1", VM, lifetime=1)
        await created(fleet, "e2", VM, lifetime=1, on_expiry="stop")

        async def ended() -> bool:
            return (await env_state(fleet, "e1"), await env_state(fleet, "e2")) == ("gone", "stopped")

        await eventually(ended)
        types = await event_types(fleet)
        assert types.count("env.expiring") == 2
        assert types.index("env.expiring") < types.index("env.deleting")
        assert len(await host.engine.machines()) == 1
        assert (await fleet.ask("POST", "/api/envs/e2/start"))[0] == 200
        changed = await fleet.ask("PATCH", "/api/envs/e2", json={"lifetime": 3600})
        assert changed[1]["data"]["env"]["state"] == "active"


async def test_what_clings_is_tried_until_it_is_gone(tmp_path: Path) -> None:
    async with running_host(settings_of_host(tmp_path / "h")) as host, controller(tmp_path) as fleet:
        await fleet.ask("POST", "/api/hosts", json={"addr": host.addr})
        await created(fleet, "e1", VM, VM)
        host.engine.trouble.errors["destroy"] = [failed("it clings")] * 3
        assert (await fleet.ask("DELETE", "/api/envs/e1"))[0] == 502

        async def gone() -> bool:
            return await env_state(fleet, "e1") == "gone"

        await eventually(gone)
        assert await host.engine.machines() == []


async def test_a_host_that_falls_silent_makes_its_machines_unknown_and_comes_back(tmp_path: Path) -> None:
    settings = settings_of_host(tmp_path / "h", host_id="h1")
    async with controller(tmp_path) as fleet:
        services = fleet.opened.services
        services.hosts._grace = timedelta(seconds=0.2)
        async with running_host(settings, keep=True) as host:
            addr = host.addr
            await fleet.ask("POST", "/api/hosts", json={"addr": addr})
            made = await created(fleet, "e1", VM)
            kept = json.loads((await _process_of(host.engine, made["env"]["vm_ids"][0])).read_text())

        async def offline() -> bool:
            return (await services.hosts.get("h1")).state is HostState.OFFLINE

        await eventually(offline)

        async def unknown() -> bool:
            return (await services.machines.get(made["env"]["vm_ids"][0])).state is VmState.UNKNOWN

        await eventually(unknown)
        vm = (await fleet.ask("GET", f"/api/vms/{made['env']['vm_ids'][0]}"))[1]["data"]
        assert "does not answer" in vm["error"]
        assert (await fleet.ask("GET", "/api/status"))[1]["data"]["hosts_online"] == 0
        refused = (await fleet.ask("POST", "/api/envs", json={"id": "e2", "ssh_keys": [], "vms": [VM]}))[1]
        assert "no online hosts" in refused["error"]
        port = int(addr.rpartition(":")[2])
        again = settings_of_host(tmp_path / "h", host_id="h1", listening=_at(port))
        async with running_host(again) as host:

            async def running() -> bool:
                return (await services.machines.get(made["env"]["vm_ids"][0])).state is VmState.RUNNING

            await eventually(running)
            assert (await services.hosts.get("h1")).state is HostState.ONLINE
            still = json.loads((await _process_of(host.engine, made["env"]["vm_ids"][0])).read_text())
            assert still == kept, "the same process, found again"


async def _process_of(engine: Any, vm_id: str) -> Path:
    path: Path = engine._folder / vm_id / "process"
    return path


def _at(port: int) -> Any:
    return Listening(host="127.0.0.1", port=port)


async def test_a_machine_that_ends_by_itself_is_told(tmp_path: Path) -> None:
    async with running_host(settings_of_host(tmp_path / "h")) as host, controller(tmp_path) as fleet:
        await fleet.ask("POST", "/api/hosts", json={"addr": host.addr})
        made = await created(fleet, "e1", VM)
        vm_id = made["env"]["vm_ids"][0]
        await host.engine._end(vm_id)
        await host.opened.daemon.reconcile()

        async def told() -> bool:
            return await env_state(fleet, "e1") == "failed"

        await eventually(told)
        vm = (await fleet.ask("GET", f"/api/vms/{vm_id}"))[1]["data"]
        assert vm["error"] == "it was killed"
        assert (await fleet.ask("POST", "/api/envs/e1/start"))[0] == 200
        assert await env_state(fleet, "e1") == "active"


async def test_a_dead_host_is_detached_and_its_machines_named(tmp_path: Path) -> None:
    async with controller(tmp_path) as fleet:
        async with running_host(settings_of_host(tmp_path / "h", host_id="h1")) as host:
            await fleet.ask("POST", "/api/hosts", json={"addr": host.addr})
            made = await created(fleet, "e1", VM)
        fleet.opened.services.hosts._grace = timedelta(0)

        async def detached() -> bool:
            status, answer = await fleet.ask("POST", "/api/hosts/h1/detach")
            return status == 200 and [vm["id"] for vm in answer["data"]] == made["env"]["vm_ids"]

        await eventually(detached)
        assert (await fleet.ask("DELETE", "/api/envs/e1"))[0] == 200


async def test_what_was_under_way_goes_on_when_the_controller_is_started_again(tmp_path: Path) -> None:
    async with running_host(settings_of_host(tmp_path / "h")) as host:
        stalled = host.engine.trouble.stalls["create"] = asyncio.Event()
        async with running_controller(settings_of_controller(tmp_path)) as fleet:
            await fleet.ask("POST", "/api/hosts", json={"addr": host.addr})
            body = {"id": "e1", "ssh_keys": [], "vms": [VM, VM]}
            begun = (await fleet.ask("POST", "/api/envs?async=1", json=body))[1]["data"]
        stalled.set()
        async with running_controller(settings_of_controller(tmp_path)) as fleet:
            path = f"/api/operations/{begun['id']}?wait=30"
            assert (await fleet.ask("GET", path))[1]["data"]["state"] == "succeeded"
            assert await env_state(fleet, "e1") == "active"
            assert len(await host.engine.machines()) == 2


async def test_an_image_is_brought_from_host_to_host(tmp_path: Path) -> None:
    one, two = settings_of_host(tmp_path / "1", host_id="h1"), settings_of_host(tmp_path / "2", host_id="h2")
    async with running_host(one) as first, running_host(two) as second, controller(tmp_path) as fleet:
        (tmp_path / "1" / "images" / "small.raw").write_bytes(b"\0" * 4096)
        for host in (first, second):
            await fleet.ask("POST", "/api/hosts", json={"addr": host.addr})
        status, answer = await fleet.ask("POST", "/api/hosts/h2/images", json={"name": "small.raw"})
        assert (status, answer["data"]["host_id"]) == (201, "h2")
        assert (tmp_path / "2" / "images" / "small.raw").read_bytes() == b"\0" * 4096
        status, answer = await fleet.ask("POST", "/api/hosts/h2/images", json={"name": "absent"})
        assert (status, answer["code"]) == (404, "image_not_found")


def only_on(first: Path, name: str = "wanted") -> bytes:
    """Make an image that only one host has, larger than what is sent at once."""
    content = os.urandom(9_000_000)
    (first / "images").mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("etc/data")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    (first / "images" / name).write_bytes(packed.getvalue())
    return packed.getvalue()


@asynccontextmanager
async def two_hosts(tmp_path: Path) -> AsyncIterator[tuple[RunningHost, RunningHost, RunningController]]:
    """Yield two hosts, of which the first has the image and no room, and their controller."""
    one = settings_of_host(tmp_path / "1", host_id="h1", cpu_total=1)
    two = settings_of_host(tmp_path / "2", host_id="h2")
    async with running_host(one) as first, running_host(two) as second, controller(tmp_path) as fleet:
        for host in (first, second):
            assert (await fleet.ask("POST", "/api/hosts", json={"addr": host.addr}))[0] == 201
        yield first, second, fleet


async def test_an_image_that_the_chosen_host_lacks_is_brought_to_it_once(tmp_path: Path) -> None:
    content = only_on(tmp_path / "1")
    async with two_hosts(tmp_path) as (_, second, fleet):
        vm = {**VM, "image": "wanted", "cpu": 2}
        status, answer = await fleet.ask("POST", "/api/envs?dry_run=1", json={"id": "e1", "ssh_keys": [], "vms": [vm]})
        assert status == 200, answer
        assert "the image wanted is brought from h1" in answer["data"]["placed"][0]["why"]
        told: list[str] = []
        copied: list[str] = []
        _listen(fleet, second, told=told, copied=copied)
        made = await created(fleet, "e1", vm, vm)
        assert [each["host_id"] for each in made["vms"]] == ["h2", "h2"]
        assert await env_state(fleet, "e1") == "active", (await fleet.ask("GET", "/api/envs/e1"))[1]
        assert (tmp_path / "2" / "images" / "wanted").read_bytes() == content
        assert copied == ["wanted"], "two machines that want the same wait for one transfer"
        assert told[0] == "image wanted from h1 to h2: 0 of 9 MiB"
        assert len(told) > 1
        assert len(await second.engine.machines()) == 2


def _listen(fleet: RunningController, second: RunningHost, *, told: list[str], copied: list[str]) -> None:
    """Note what is told of the transfer where callers of the operation read it, and what the second host takes in."""
    put = second.opened.daemon.put_image

    async def counted(image: Image, parts: AsyncIterator[bytes]) -> Image:
        copied.append(image.name)
        return await put(image, _heard(parts))

    async def _heard(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for part in parts:
            [running] = fleet.opened.services.operations._running
            doing = (await fleet.opened.services.operations.wait(running, timeout_s=0)).doing
            if doing is not None and doing not in told:
                told.append(doing)
            yield part

    second.opened.daemon.put_image = counted  # type: ignore[method-assign]  # it calls the true one


async def test_what_a_first_attempt_leaves_for_a_moment_is_not_taken_for_the_machines_end(tmp_path: Path) -> None:
    only_on(tmp_path / "1")
    async with two_hosts(tmp_path) as (_, second, fleet):
        undone = second.engine.trouble.stalls["destroy"] = asyncio.Event()
        making = asyncio.create_task(created(fleet, "e1", {**VM, "image": "wanted", "cpu": 2}))

        async def being_undone() -> bool:
            return [vm.state for vm in await second.opened.daemon.machines()] == [VmState.DELETING]

        await eventually(being_undone)
        await fleet.opened.services.hosts.listen()
        undone.set()
        made = await making
        assert [vm["state"] for vm in made["vms"]] == ["running"]
        assert await env_state(fleet, "e1") == "active"


async def test_an_image_of_the_controllers_own_is_brought_from_it_first(tmp_path: Path) -> None:
    only_on(tmp_path / "1")
    content = only_on(tmp_path / "ctl")
    async with two_hosts(tmp_path) as (_, second, fleet):
        vm = {**VM, "image": "wanted", "cpu": 2}
        status, answer = await fleet.ask("POST", "/api/envs?dry_run=1", json={"id": "e1", "ssh_keys": [], "vms": [vm]})
        assert status == 200, answer
        assert answer["data"]["placed"][0]["why"].endswith("the image wanted is brought from the controller")
        await created(fleet, "e1", vm)
        assert (tmp_path / "2" / "images" / "wanted").read_bytes() == content
        assert len(await second.engine.machines()) == 1


async def test_an_image_that_cannot_be_brought_is_told_with_both_hosts_and_leaves_nothing(tmp_path: Path) -> None:
    only_on(tmp_path / "1")
    async with two_hosts(tmp_path) as (first, second, fleet):

        async def broken(name: str) -> AsyncIterator[bytes]:
            yield b"half of it"
            raise OSError(5, f"the disk under {name} is failing")

        first.opened.daemon._disks.content = broken  # type: ignore[method-assign]  # a disk that fails
        vm = {**VM, "image": "wanted", "cpu": 2}
        status, answer = await fleet.ask("POST", "/api/envs", json={"id": "e1", "ssh_keys": [], "vms": [vm]})
        assert status >= 500, answer
        assert "the image wanted could not be brought from h1 to h2" in json.dumps(answer)
        assert await env_state(fleet, "e1") == "gone"
        assert sorted(path.name for path in (tmp_path / "2" / "images").glob("[!.]*")) == ["base"]
        assert not list((tmp_path / "2" / "images").glob(".incoming-*"))
        report = await second.opened.daemon.report()
        assert (report.resource.vm_count, report.resource.disk_used) == (0, 0)


# -- the host by itself ------------------------------------------------------------------------------------------------


def an_order() -> CreateOrder:
    return CreateOrder(vm_id=fresh_vm_id(), env_id="e1", spec=a_spec(engine=Engine.BUBBLEWRAP, mem_mib=64))


async def test_machines_outlive_their_daemon_and_are_found_again(tmp_path: Path) -> None:
    order = an_order()
    async with opened_host(settings_of_host(tmp_path)) as (host, engine):
        await host.daemon.create(order)
        before = json.loads((await _process_of(engine, order.vm_id)).read_text())
    async with opened_host(settings_of_host(tmp_path)) as (host, engine):
        assert (await host.daemon.machine(order.vm_id)).state is VmState.RUNNING
        assert json.loads((await _process_of(engine, order.vm_id)).read_text()) == before
        await host.daemon.destroy(order.vm_id)
        assert await engine.machines() == []


async def test_what_was_being_made_when_the_daemon_ended_is_undone(tmp_path: Path) -> None:
    order = an_order()
    async with opened_host(settings_of_host(tmp_path)) as (host, engine):
        store = host.daemon._store
        engine.trouble.stalls["create"] = asyncio.Event()
        making = asyncio.create_task(host.daemon.create(order))

        async def has_a_disk() -> bool:
            return any((tmp_path / "runtime").glob("clone-*"))

        await eventually(has_a_disk)
        making.cancel()
        for task in host.daemon._machines._working:
            task.cancel()
        await asyncio.gather(making, *host.daemon._machines._working, return_exceptions=True)
        assert (await store.get(order.vm_id)).step is MachineStep.ACCEPTED
    async with opened_host(settings_of_host(tmp_path)) as (host, engine):
        assert await host.daemon.machines() == []
        assert await engine.machines() == []
        assert list((tmp_path / "runtime").glob("clone-*")) == []
        assert (await host.daemon.report()).resource.disk_used == 0


async def test_what_belongs_to_no_row_is_swept_and_what_is_being_made_is_not(tmp_path: Path) -> None:
    async with opened_host(settings_of_host(tmp_path)) as (host, engine):
        stray = an_order()
        await host.daemon.create(stray)
        await host.daemon._store.forget(stray.vm_id)
        stalled = engine.trouble.stalls["created"] = asyncio.Event()
        order = an_order()
        making = asyncio.create_task(host.daemon.create(order))

        async def there() -> bool:
            return order.vm_id in await engine.machines()

        await eventually(there)
        removed = await host.daemon._machines.strays.remove()
        assert [each for each in removed if stray.vm_id in each]
        assert not [each for each in removed if order.vm_id in each]
        stalled.set()
        assert (await making).state is VmState.RUNNING
        assert await engine.machines() == [order.vm_id]
        await end_machines(engine)


async def test_after_a_start_of_the_host_its_machines_are_started_from_their_disks(tmp_path: Path) -> None:
    order = an_order()
    async with opened_host(settings_of_host(tmp_path)) as (host, engine):
        await host.daemon.create(order)
        await engine._end(order.vm_id)
        await host.daemon._store.booted("before the power went")
    async with opened_host(settings_of_host(tmp_path)) as (host, engine):
        assert (await host.daemon.machine(order.vm_id)).state is VmState.RUNNING
        await end_machines(engine)
