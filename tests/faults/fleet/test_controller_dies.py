"""The controller is killed at every step of a create and of a delete: the next one brings each to its end.

Every point at which the doomed controller can be killed is tried, one after another, until a run comes through. After
each, a controller with its loops takes over; the client repeats its request under the same ``Idempotency-Key``.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import apsw
import pytest

from borough.bootstrap.fleet import STORE
from tests.e2e.fleet_programs import free_port
from tests.faults.fleet.doomed import Doomed, Order, doomed_programs, serves
from tests.faults.fleet.truth import WITHIN_S, check, check_host, machines, settled
from tests.services.fleet_house import (
    RunningController,
    RunningHost,
    running_controller,
    running_host,
    settings_of_controller,
    settings_of_host,
)
from tests.services.plain_engine import plain_image

pytestmark = pytest.mark.anyio
LEAST_POINTS = 8
"""Fewer would mean that they are not found."""


def a_vm(image: str = "base") -> dict[str, Any]:
    return {"image": image, "engine": "bubblewrap", "cpu": 1, "mem": 64, "disk": 1000, "ports": [22]}


GOOD, BAD = a_vm(), a_vm("fleeting")
"""The second's image is on the host when it is planned, and gone when it is made."""


@dataclass
class House:
    """A host, and controllers that come and go over the folders of one."""

    folder: Path
    host: RunningHost
    doomed: Doomed

    async def prepare(self) -> None:
        """Leave the folder of a controller that knows the host, for others to be copied from."""
        async with running_controller(settings_of_controller(self.folder / "first")) as fleet:
            status, answer = await fleet.ask("POST", "/api/hosts", json={"addr": self.host.addr})
            assert status == 201, answer

    def copied(self, name: str) -> Path:
        folder = self.folder / name
        shutil.copytree(self.folder / "first", folder)
        return folder

    async def send(self, order: Order, method: str, path: str, body: Any, key: str) -> int:
        """Start the doomed controller, send it a request, and return its exit code; 0 when it answered."""
        ended = await self.doomed.start(order)
        url = f"http://127.0.0.1:{order.port}"
        async with aiohttp.ClientSession(headers={"idempotency-key": key}) as client:
            await serves(url, ended)
            with suppress(aiohttp.ClientError):
                async with client.request(method, url + path, json=body) as answer:
                    await answer.read()
                    self.doomed.kill()
                    await ended
                    return 0
        return await ended


def run_out(folder: Path) -> None:
    """Let the claims of a controller that was killed run out, as they do in a few seconds."""
    connection = apsw.Connection(str(folder / "ctl" / STORE))
    connection.execute("UPDATE replies SET expires_at_ms = 0 WHERE status IS NULL")
    connection.close()


@asynccontextmanager
async def house(tmp_path: Path) -> AsyncIterator[House]:
    settings = settings_of_host(tmp_path / "h", host_id="h1")
    plain_image(tmp_path / "h" / "images")
    plain_image(tmp_path / "h" / "images", "fleeting")
    async with running_host(settings) as host, doomed_programs() as doomed:
        made = House(folder=tmp_path, host=host, doomed=doomed)
        await made.prepare()
        shutil.rmtree(tmp_path / "h" / "images" / "fleeting")
        yield made


async def ask_until_final(fleet: RunningController, method: str, path: str, body: Any, key: str) -> tuple[int, Any]:
    async with asyncio.timeout(WITHIN_S):
        while True:
            status, answer = await fleet.ask(method, path, json=body, headers={"idempotency-key": key})
            if not (status == 409 and answer["code"] == "idempotency_key_in_use"):
                return status, answer
            await asyncio.sleep(0.05)


CREATES = {"made": (GOOD, GOOD), "half made": (GOOD, BAD), "not made": (BAD, BAD)}


@pytest.mark.parametrize("wanted", CREATES)
async def test_a_controller_killed_at_any_step_of_a_create(tmp_path: Path, wanted: str) -> None:
    body = {"id": "e1", "ssh_keys": [], "vms": list(CREATES[wanted])}
    async with house(tmp_path) as here:
        for die_at in count(1):
            folder = here.copied(f"c{die_at}")
            order = Order(
                program="controller", folder=str(folder), port=free_port(), die_at=die_at, armed_by="POST /api/envs"
            )
            key = f"once-{die_at}"
            code = await here.send(order, "POST", "/api/envs", body, key)
            run_out(folder)
            where = f"{wanted}: killed {order.told.read_text().splitlines()[-1]} (point {die_at})"
            try:
                async with running_controller(settings_of_controller(folder)) as fleet:
                    await after_create(fleet, here.host, body, key, good=CREATES[wanted].count(GOOD))
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(where) from error
            if code == 0:
                break
        assert die_at > LEAST_POINTS


async def after_create(
    fleet: RunningController, host: RunningHost, body: dict[str, Any], key: str, *, good: int
) -> None:
    await settled(fleet)
    await check(fleet, host)
    before = {vm["id"] for vm in await machines(fleet)}
    status, answer = await ask_until_final(fleet, "POST", "/api/envs", body, key)
    if good == 0:
        assert status in (422, 502), answer
    elif before:
        assert (status, len(answer["data"]["vms"])) == (201, good), answer
        assert {vm["id"] for vm in answer["data"]["vms"]} == before, "the same machines"
        assert bool(answer["data"].get("warnings")) == (good < len(body["vms"])), answer
    else:  # nothing was planned when it was killed, and by now the host says which images it has
        assert status == (201 if good == len(body["vms"]) else 422), answer
    await settled(fleet)
    await check(fleet, host)
    envs = (await fleet.ask("GET", "/api/envs"))[1]["data"]
    assert len(envs) == (status == 201)
    for vm in await machines(fleet):
        assert vm["state"] == "running", vm
    if envs:
        assert (await fleet.ask("DELETE", "/api/envs/e1"))[0] == 200
    await settled(fleet)
    await check(fleet, host)
    await check_host(host, set())


async def test_a_controller_killed_at_any_step_of_a_delete(tmp_path: Path) -> None:
    body = {"id": "e1", "ssh_keys": [], "vms": [GOOD, GOOD]}
    async with house(tmp_path) as here:
        for die_at in count(1):
            folder = here.copied(f"c{die_at}")
            async with running_controller(settings_of_controller(folder)) as fleet:
                assert (await fleet.ask("POST", "/api/envs", json=body))[0] == 201
            order = Order(
                program="controller", folder=str(folder), port=free_port(), die_at=die_at, armed_by="DELETE /api/envs"
            )
            code = await here.send(order, "DELETE", "/api/envs/e1", None, "once")
            where = f"killed {order.told.read_text().splitlines()[-1]} (point {die_at})"
            try:
                async with running_controller(settings_of_controller(folder)) as fleet:
                    await after_delete(fleet, here.host)
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(where) from error
            if code == 0:
                break
        assert die_at > LEAST_POINTS


async def after_delete(fleet: RunningController, host: RunningHost) -> None:
    await settled(fleet)
    await check(fleet, host)
    left = await machines(fleet)
    assert len(left) in (0, 2), left
    assert (await fleet.ask("DELETE", "/api/envs/e1"))[0] == (200 if left else 404)
    await settled(fleet)
    await check(fleet, host)
    await check_host(host, set())
