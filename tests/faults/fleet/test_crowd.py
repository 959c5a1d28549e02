"""Many who create at once on hosts too small for all: nothing is promised twice, by the controller or a host."""

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from borough.fleet.resources import Resource
from tests.faults.fleet.truth import check, check_host, machines, settled
from tests.services.fleet_house import (
    RunningController,
    RunningHost,
    running_controller,
    running_host,
    settings_of_controller,
    settings_of_host,
)

pytestmark = pytest.mark.anyio
CALLERS = 50
ROUNDS = 10 if "BOROUGH_SOAK_S" in os.environ else 1
ROOM = {"cpu_total": 3, "mem_total_mib": 2048, "disk_total_mib": 9000}
"""Of each host: processors are what runs out first."""
VM = {"image": "base", "engine": "bubblewrap", "cpu": 1, "mem": 64, "disk": 1000, "ports": [22]}
FIT = 6
"""How many machines both hosts take together."""


async def create(fleet: RunningController, number: int, count: int = 1) -> tuple[int, Any]:
    body = {"id": f"e{number}", "ssh_keys": [], "vms": [VM] * count}
    return await fleet.ask("POST", "/api/envs", json=body)


def never_too_much(resource: Resource) -> None:
    assert resource.cpu_used <= resource.cpu_total
    assert resource.mem_used <= resource.mem_total
    assert resource.disk_used <= resource.disk_total


async def watch(fleet: RunningController, hosts: list[RunningHost], over: asyncio.Event) -> int:
    """Look at all promises until told to stop; return how often."""
    looks = 0
    while not over.is_set():
        for host in await fleet.opened.services.hosts.all():
            never_too_much(host.report.resource)
        for host in hosts:
            never_too_much((await host.opened.daemon.report()).resource)
        looks += 1
        await asyncio.sleep(0.01)
    return looks


async def test_fifty_who_create_at_once_never_overcommit(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        hosts = [
            await stack.enter_async_context(running_host(settings_of_host(tmp_path / name, host_id=name, **ROOM)))
            for name in ("h1", "h2")
        ]
        fleet = await stack.enter_async_context(running_controller(settings_of_controller(tmp_path)))
        for host in hosts:
            assert (await fleet.ask("POST", "/api/hosts", json={"addr": host.addr}))[0] == 201
        for _ in range(ROUNDS):
            over = asyncio.Event()
            watching = asyncio.create_task(watch(fleet, hosts, over))
            answers = await asyncio.gather(*(create(fleet, number) for number in range(CALLERS)))
            over.set()
            assert await watching > 0
            made = [number for number, (status, _) in enumerate(answers) if status == 201]
            assert len(made) == FIT
            assert {status for status, _ in answers} == {201, 422}
            assert {answer["code"] for status, answer in answers if status == 422} == {"unschedulable"}
            await settled(fleet)
            await check(fleet, *hosts)
            assert [vm["state"] for vm in await machines(fleet)] == ["running"] * FIT
            ended = await asyncio.gather(*(fleet.ask("DELETE", f"/api/envs/e{number}") for number in made))
            assert [status for status, _ in ended] == [200] * FIT
            await settled(fleet)
            for host in hosts:
                await check_host(host, set())


async def test_what_comes_and_goes_at_once_never_overcommits(tmp_path: Path) -> None:
    async with (
        running_host(settings_of_host(tmp_path / "h1", host_id="h1", **ROOM)) as host,
        running_controller(settings_of_controller(tmp_path)) as fleet,
    ):
        assert (await fleet.ask("POST", "/api/hosts", json={"addr": host.addr}))[0] == 201
        over = asyncio.Event()
        watching = asyncio.create_task(watch(fleet, [host], over))

        async def come_and_go(number: int) -> int:
            status, _ = await create(fleet, number, count=1 + number % 2)
            gone, _ = await fleet.ask("DELETE", f"/api/envs/e{number}")
            assert gone == (200 if status == 201 else 404)
            return status

        statuses = await asyncio.gather(*(come_and_go(number) for number in range(CALLERS)))
        over.set()
        assert await watching > 0
        assert 201 in statuses
        await settled(fleet)
        await check(fleet, host)
        await check_host(host, set())
