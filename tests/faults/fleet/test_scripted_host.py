"""Hosts that stall, answer 500, lose what they answer, or lie: once they are themselves again, all is well."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from borough.adapters.host.connection import HostConnection
from borough.fleet.engines import Engine
from borough.fleet.ports.host_agent import CreateOrder
from tests.conftest import eventually
from tests.contracts.fleet_kit import a_spec, fresh_vm_id
from tests.faults.fleet import scripted
from tests.faults.fleet.scripted import ScriptedHost, Trick, lies
from tests.faults.fleet.truth import check, check_host, is_lost, machines, settled, turn
from tests.services.fleet_house import (
    RunningController,
    RunningHost,
    end_machines,
    running_controller,
    running_host,
    settings_of_controller,
    settings_of_host,
)

pytestmark = pytest.mark.anyio
VM = {"image": "base", "engine": "bubblewrap", "cpu": 1, "mem": 64, "disk": 1000, "ports": [22]}
ENV = {"id": "e1", "ssh_keys": [], "vms": [VM, VM]}
WORD = {"idempotency-key": "once"}
ALIEN = "0123abcd-ef0"


@dataclass
class House:
    host: RunningHost
    script: ScriptedHost
    fleet: RunningController

    async def create(self) -> tuple[int, Any]:
        return await self.fleet.ask("POST", "/api/envs", json=ENV, headers=WORD)

    async def at_peace(self) -> None:
        """Let the host be itself again, and check that nothing is left of what was."""
        self.script.tricks.clear()
        self.script.released.set()

        async def acted() -> bool:
            return self.script.playing == 0

        await eventually(acted)
        await settled(self.fleet)
        await check(self.fleet, self.host)

    async def emptied(self) -> None:
        status, answer = await self.fleet.ask("DELETE", "/api/envs/e1")
        assert status in (200, 404), answer
        await settled(self.fleet)
        await check(self.fleet, self.host)
        await check_host(self.host, set())
        assert await machines(self.fleet) == []


@asynccontextmanager
async def impatient_with(script: ScriptedHost) -> AsyncIterator[None]:
    """Let the controller wait for a host that stalls for a moment only, and for all others as it does."""
    asked = HostConnection.call

    async def ask(host: HostConnection, *args: Any, **more: Any) -> Any:
        return await asked(host, *args, **(more | ({"within_s": 0.3} if script.stalls else {})))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(HostConnection, "call", ask)
        yield


@asynccontextmanager
async def house(tmp_path: Path) -> AsyncIterator[House]:
    script = ScriptedHost()
    settings = settings_of_host(tmp_path / "h", host_id="h1")
    async with (
        impatient_with(script),
        running_host(settings, wrapped=script.around) as host,
        running_controller(settings_of_controller(tmp_path)) as fleet,
    ):
        status, answer = await fleet.ask("POST", "/api/hosts", json={"addr": host.addr})
        assert status == 201, answer
        yield House(host=host, script=script, fleet=fleet)


def of_vm(**change: Any) -> Callable[[Any], Any]:
    """Return what changes a host's answer about one machine."""
    return lambda data: {**data, "vm": {**data["vm"], **change}} if "vm" in data else {**data, **change}


def of_vms(**change: Any) -> Callable[[Any], Any]:
    """Return what changes a host's answer about all."""
    return lambda data: [{**vm, **change} for vm in data]


TROUBLE: dict[str, Trick] = {
    "stalls": scripted.stalls,
    "acts and stalls": scripted.acts_and_stalls,
    "fails": scripted.fails,
    "acts and fails": scripted.acts_and_fails,
    "acts behind a gateway": scripted.acts_behind_a_gateway,
    "loses the answer": scripted.loses_the_answer,
    "loses the request": scripted.loses_the_request,
    "acts and refuses": scripted.refuses,
    "acts and refuses the key": scripted.refuses_the_key,
    "agrees and does nothing": scripted.agrees_and_does_nothing,
}
LIES_OF_CREATE: dict[str, Trick] = {
    "another's id": lies(of_vm(id=ALIEN)),
    "an impossible state": lies(of_vm(state="flying")),
    "no address": lies(of_vm(ip="nowhere")),
    "an impossible date": lies(of_vm(created_at=10**30)),
    "that it is being made": lies(of_vm(state="creating")),
    "that it is being deleted": lies(of_vm(state="deleting")),
    "that it is stopped": lies(of_vm(state="stopped")),
    "nothing": lies(lambda _: None),
}


@pytest.mark.parametrize("trick", [*TROUBLE, *LIES_OF_CREATE])
async def test_a_host_that_misbehaves_when_machines_are_made(tmp_path: Path, trick: str) -> None:
    async with house(tmp_path) as here:
        here.script.tricks["POST /api/vms"] = (TROUBLE | LIES_OF_CREATE)[trick]
        status, answer = await here.create()
        assert here.script.played >= 2
        assert status in (201, 502), answer
        assert "internal" not in str(answer), answer
        await here.at_peace()
        left = await machines(here.fleet)
        assert all(vm["state"] == "running" or is_lost(vm) for vm in left), left
        if left:  # the same request, repeated, finds the same machines
            again, found = await here.create()
            assert (again, {vm["id"] for vm in found["data"]["vms"]}) == (201, {vm["id"] for vm in left})
        else:  # it came to nothing, and may be asked for again
            again, found = await here.create()
            assert (again, len(found["data"]["vms"])) == (201, 2), found
        await here.at_peace()
        await here.emptied()


@pytest.mark.parametrize("trick", TROUBLE)
async def test_a_host_that_misbehaves_when_machines_are_deleted(tmp_path: Path, trick: str) -> None:
    async with house(tmp_path) as here:
        assert (await here.create())[0] == 201
        here.script.tricks["DELETE /api/vms"] = TROUBLE[trick]
        status, answer = await here.fleet.ask("DELETE", "/api/envs/e1")
        assert here.script.played >= 2
        assert status in (200, 502), answer
        if status != 200:  # it is still seen, and says why
            found = (await here.fleet.ask("GET", "/api/envs/e1"))[1]["data"]
            assert found["env"]["state"] == "deleting"
            assert all(vm["error"] for vm in found["vms"])
        await turn(here.fleet)
        await here.at_peace()
        await here.emptied()


LIES: dict[str, tuple[str, Trick]] = {
    "it has nothing": ("GET /api/vms", lies(lambda _: [])),
    "it has another's": ("GET /api/vms", lies(of_vms(id=ALIEN))),
    "all are being made": ("GET /api/vms", lies(of_vms(state="creating"))),
    "all are being deleted": ("GET /api/vms", lies(of_vms(state="deleting"))),
    "all are stopped": ("GET /api/vms", lies(of_vms(state="stopped"))),
    "all are somewhere": ("GET /api/vms", lies(of_vms(ip="nowhere"))),
    "it is another": ("GET /api/info", lies(lambda data: {**data, "host_id": "h2"})),
    "it is nobody": ("GET /api/info", lies(lambda data: {**data, "host_id": ""})),
    "its storage is of a new kind": ("GET /api/info", lies(lambda data: {**data, "storage": "clay"})),
    "it is endless": ("GET /api/info", lies(lambda data: {**data, "resource": {"cpu_total": -1}})),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_host_that_lies_of_what_it_has(tmp_path: Path, lie: str) -> None:
    async with house(tmp_path) as here:
        assert (await here.create())[0] == 201
        before = {vm["id"] for vm in await machines(here.fleet)}
        asked, trick = LIES[lie]
        here.script.tricks[asked] = trick
        here.fleet.opened.services.hosts._grace = timedelta(0)
        for _ in range(3):
            await turn(here.fleet)
        assert here.script.played >= 3
        assert set(await here.host.engine.machines()) == before, "nobody has asked for their end"
        await here.at_peace()
        assert {vm["id"]: vm["state"] for vm in await machines(here.fleet)} == dict.fromkeys(before, "running")
        await here.emptied()


async def test_an_order_that_comes_after_the_end_was_confirmed_makes_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        here.script.tricks["POST /api/vms"] = scripted.stalls
        status, answer = await here.create()
        assert (status, here.script.played) == (201, 2)
        assert all("does not answer" in warning for warning in answer["data"]["warnings"])
        assert (await here.fleet.ask("DELETE", "/api/envs/e1"))[0] == 200
        here.script.released.set()
        await here.at_peace()
        await here.emptied()


async def test_what_this_fleet_never_placed_is_left_alone(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        order = CreateOrder(
            vm_id=fresh_vm_id(), env_id="theirs", spec=a_spec(engine=Engine.BUBBLEWRAP, mem_mib=64, disk_mib=1000)
        )
        await here.host.opened.daemon.create(order)
        assert (await here.create())[0] == 201
        for _ in range(3):
            await turn(here.fleet)
        assert order.vm_id in await here.host.engine.machines()
        assert order.vm_id not in {vm["id"] for vm in await machines(here.fleet)}
        await here.host.opened.daemon.destroy(order.vm_id)
        await here.emptied()
        await end_machines(here.host.engine)


async def test_what_was_left_on_a_host_that_was_given_up_is_removed_when_it_is_registered_again(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        assert (await here.create())[0] == 201
        here.script.tricks["GET /api/info"] = scripted.fails
        here.fleet.opened.services.hosts._grace = timedelta(0)
        await turn(here.fleet)
        assert (await here.fleet.ask("POST", "/api/hosts/h1/detach"))[0] == 200
        here.script.tricks.clear()
        assert len(await here.host.engine.machines()) == 2
        assert (await here.fleet.ask("POST", "/api/hosts", json={"addr": here.host.addr}))[0] == 201
        await turn(here.fleet)
        await check_host(here.host, set())
        assert (await here.fleet.ask("DELETE", "/api/envs/e1"))[0] == 200
