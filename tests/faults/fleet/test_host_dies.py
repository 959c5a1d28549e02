"""A host daemon is killed at every step of a create, a delete, a stop and a start: the next one brings each to its end.

The daemon is the real one, with real disks and leases, over an engine whose machines are processes. Every change that
it makes to its store, to files and to processes is a point at which it is killed, one after another.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from borough.config.fleet import HostSettings
from tests.conftest import eventually
from tests.e2e.fleet_programs import free_port
from tests.faults.fleet.doomed import Doomed, Order, doomed_programs, listening, serves
from tests.faults.fleet.truth import WITHIN_S, check, check_host, machines, settled, turn
from tests.services.fleet_house import (
    RunningController,
    running_controller,
    running_host,
    settings_of_controller,
    settings_of_host,
)

pytestmark = pytest.mark.anyio
VM = {"image": "base", "engine": "bubblewrap", "cpu": 1, "mem": 64, "disk": 1000, "ports": [22, 80]}
LEAST_POINTS = 20
"""Fewer would mean that they are not found."""
LEAST_OF_A_CHANGE = 6


@dataclass
class House:
    """A controller, and host daemons that come and go over one folder at one address."""

    folder: Path
    port: int
    fleet: RunningController
    doomed: Doomed

    @property
    def settings(self) -> HostSettings:
        return settings_of_host(self.folder, listening=listening(self.port), host_id="h1")

    async def die(self, die_at: int, armed_by: str, method: str, path: str, body: Any = None) -> str | None:
        """Have a daemon serve the controller until it dies; return where that was, or ``None`` if it came through."""
        order = Order(
            program="host", folder=str(self.folder), port=self.port, die_at=die_at, armed_by=armed_by, host_id="h1"
        )
        order.told.unlink(missing_ok=True)
        ended = await self.doomed.start(order)
        await serves(f"http://127.0.0.1:{self.port}", ended)
        await self.fleet.ask(method, path, json=body)
        self.doomed.kill()  # where nothing more was asked of it
        await ended
        reached = order.told.read_text().splitlines()
        return reached[-1] if len(reached) == die_at else None


@asynccontextmanager
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with running_controller(settings_of_controller(tmp_path)) as fleet, doomed_programs() as doomed:
        made = House(folder=tmp_path / "h", port=free_port(), fleet=fleet, doomed=doomed)
        async with running_host(made.settings) as host:
            status, answer = await fleet.ask("POST", "/api/hosts", json={"addr": host.addr})
            assert status == 201, answer
        yield made


async def test_a_host_killed_at_any_step_of_a_create(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        for die_at in count(1):
            body = {"id": "e1", "ssh_keys": [], "vms": [VM]}
            where = await here.die(die_at, "POST /api/vms", "POST", "/api/envs", body)
            try:
                await after_create(here)
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"killed {where} (point {die_at})") from error
            if where is None:
                break
        assert die_at > LEAST_POINTS


async def after_create(here: House) -> None:
    async with running_host(here.settings, keep=True) as host:
        await settled(here.fleet)
        await check(here.fleet, host)
        (vm,) = await machines(here.fleet)
        assert vm["state"] in ("running", "failed")
        assert (await here.fleet.ask("DELETE", "/api/envs/e1"))[0] == 200
        await settled(here.fleet)
        await check(here.fleet, host)
        await check_host(host, set())


async def test_a_host_killed_at_any_step_of_a_delete(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        for die_at in count(1):
            async with running_host(here.settings, keep=True):
                body = {"id": "e1", "ssh_keys": [], "vms": [VM]}
                assert (await here.fleet.ask("POST", "/api/envs", json=body))[0] == 201
            where = await here.die(die_at, "DELETE /api/vms", "DELETE", "/api/envs/e1")
            try:
                async with running_host(here.settings, keep=True) as host:
                    await settled(here.fleet)
                    await check(here.fleet, host)
                    await check_host(host, set())
                    assert await machines(here.fleet) == []
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"killed {where} (point {die_at})") from error
            if where is None:
                break
        assert die_at > LEAST_POINTS


@pytest.mark.parametrize(("word", "goal"), [("stop", "stopped"), ("start", "running"), ("pause", "paused")])
async def test_a_host_killed_at_any_step_of_a_change_goes_on_with_it(tmp_path: Path, word: str, goal: str) -> None:
    """Where the change was not written down yet, its controller asks for it again."""
    before = "stopped" if word == "start" else "running"

    async def has_become() -> bool:
        await turn(here.fleet)
        (vm,) = await machines(here.fleet)
        return (vm["state"], vm.get("error")) == (goal, None)

    async with house(tmp_path) as here:
        async with running_host(here.settings, keep=True):
            body = {"id": "e1", "ssh_keys": [], "vms": [VM]}
            assert (await here.fleet.ask("POST", "/api/envs", json=body))[0] == 201
        for die_at in count(1):
            async with running_host(here.settings, keep=True):
                await settled(here.fleet)
                (vm,) = await machines(here.fleet)
                if vm["state"] != before:
                    back = "stop" if before == "stopped" else "start"
                    assert (await here.fleet.ask("POST", f"/api/vms/{vm['id']}/{back}"))[0] == 200
            where = await here.die(die_at, f"POST /api/vms/{vm['id']}/{word}", "POST", f"/api/vms/{vm['id']}/{word}")
            try:
                async with running_host(here.settings, keep=True) as host:
                    await eventually(has_become, within_s=WITHIN_S)
                    await settled(here.fleet)
                    await check(here.fleet, host)
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"killed {where} (point {die_at})") from error
            if where is None:
                break
        assert die_at > LEAST_OF_A_CHANGE
        async with running_host(here.settings, keep=True) as host:
            assert (await here.fleet.ask("DELETE", "/api/envs/e1"))[0] == 200
            await settled(here.fleet)
            await check_host(host, set())
