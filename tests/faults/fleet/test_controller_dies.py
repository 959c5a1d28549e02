"""The controller is killed at every step of a create and of a delete: the next one brings each to its end.

Every point at which the doomed controller can be killed is tried, one after another, until a run comes through. After
each, a controller with its loops takes over; the client repeats its request under the same ``Idempotency-Key``.
"""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import apsw
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from borough.bootstrap.fleet import STORE
from tests.conftest import eventually
from tests.e2e.fleet_programs import free_port
from tests.faults.fleet.doomed import Doomed, Order, doomed_programs, serves
from tests.faults.fleet.truth import WITHIN_S, check, check_host, machines, settled, turn
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
SOAK = "BOROUGH_SOAK_S" in os.environ
LEAST_POINTS = 8
"""Fewer would mean that they are not found."""


def a_vm(image: str = "base") -> dict[str, Any]:
    return {"image": image, "engine": "bubblewrap", "cpu": 1, "mem": 64, "disk": 1000, "ports": [22]}


GOOD, BAD = a_vm(), a_vm("fleeting")
"""The second's image is on the host when it is planned, and gone when it is made."""


@dataclass
class Arrivals:
    """Counts what reaches the host to be done, and kills the controller when the wanted one does, before it is."""

    doomed: Doomed | None = None
    die_at: int = 0
    count: int = 0

    def around(self, app: ASGIApp) -> ASGIApp:
        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and scope["method"] in ("POST", "DELETE"):
                self.count += 1
                if self.count == self.die_at and self.doomed is not None:
                    self.doomed.kill()
            await app(scope, receive, send)

        return counted

    def expect(self, die_at: int) -> None:
        self.count, self.die_at = 0, die_at


@dataclass
class House:
    """A host, and controllers that come and go over the folders of one."""

    folder: Path
    host: RunningHost
    doomed: Doomed
    arrivals: Arrivals

    async def prepare(self) -> None:
        """Leave the folder of a controller that knows the host, for others to be copied from."""
        async with running_controller(settings_of_controller(self.folder / "first")) as fleet:
            status, answer = await fleet.ask("POST", "/api/hosts", json={"addr": self.host.addr})
            assert status == 201, answer

    def copied(self, name: str) -> Path:
        folder = self.folder / name
        shutil.copytree(self.folder / "first", folder)
        return folder

    async def send(self, order: Order, method: str, path: str, body: Any, key: str) -> bool:
        """Start the doomed controller and send it a request; return whether it came through and answered."""
        ended = await self.doomed.start(order)
        url = f"http://127.0.0.1:{order.port}"
        await serves(url, ended)
        answered = False
        async with aiohttp.ClientSession(headers={"idempotency-key": key}) as client:
            with suppress(aiohttp.ClientError):
                async with client.request(method, url + path, json=body) as answer:
                    await answer.read()
                    answered = True
        self.doomed.kill()
        await ended
        return answered

    async def die_again(self, folder: Path, die_at: int) -> bool:
        """Have a controller take over and die in the middle of that; return whether it came through, or none was."""
        if not die_at:
            return True
        order = an_order(folder, die_at, "")
        order.told.unlink()
        ended = await self.doomed.start(order)
        url = f"http://127.0.0.1:{order.port}"
        await serves(url, ended)
        async with aiohttp.ClientSession() as client:
            with suppress(aiohttp.ClientError):
                while not ended.done():
                    async with client.get(f"{url}/api/operations") as answer:
                        if all(each["state"] != "running" for each in (await answer.json())["data"]):
                            break
        self.doomed.kill()
        await ended
        return len(order.told.read_text().splitlines()) < die_at


def an_order(folder: Path, die_at: int, armed_by: str) -> Order:
    return Order(program="controller", folder=str(folder), port=free_port(), die_at=die_at, armed_by=armed_by)


@contextmanager
def told(what: str, order: Order, die_at: int, die_again: int) -> Iterator[None]:
    """Let a failure say where the controller was killed."""
    try:
        yield
    except (AssertionError, TimeoutError) as error:
        where = order.told.read_text().splitlines()[-1:]
        raise AssertionError(f"{what}: killed {where} (point {die_at}, then {die_again})") from error


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
    arrivals = Arrivals()
    async with running_host(settings, wrapped=arrivals.around) as host, doomed_programs() as doomed:
        arrivals.doomed = doomed
        made = House(folder=tmp_path, host=host, doomed=doomed, arrivals=arrivals)
        await made.prepare()
        shutil.rmtree(tmp_path / "h" / "images" / "fleeting")
        yield made


CREATES = {"half made": (GOOD, BAD), "not made": (BAD, BAD), "made": (GOOD, GOOD)}
IN_CI = ("half made", "not made")
"""The steps of "made" are among them. It is for the soak, as is a second death while the first is recovered from."""


def deaths() -> Iterator[int]:
    """Return at which points of its start the second controller is killed too; 0: it is not."""
    return count(1) if SOAK else iter((0,))


@pytest.mark.parametrize("wanted", CREATES if SOAK else IN_CI)
async def test_a_controller_killed_at_any_step_of_a_create(tmp_path: Path, wanted: str) -> None:
    body = {"id": "e1", "ssh_keys": [], "vms": list(CREATES[wanted])}
    async with house(tmp_path) as here:
        for die_at in count(1):
            for die_again in deaths():
                key = f"once-{die_at}-{die_again}"
                folder = here.copied(key)
                order = an_order(folder, die_at, "POST /api/envs")
                came_through = await here.send(order, "POST", "/api/envs", body, key)
                run_out(folder)
                recovered = await here.die_again(folder, die_again)
                with told(wanted, order, die_at, die_again):
                    async with running_controller(settings_of_controller(folder)) as fleet:
                        await after_create(fleet, here.host, body, key, good=CREATES[wanted].count(GOOD))
                shutil.rmtree(folder)
                if recovered:
                    break
            if came_through:
                break
        assert die_at > LEAST_POINTS


async def after_create(
    fleet: RunningController, host: RunningHost, body: dict[str, Any], key: str, *, good: int
) -> None:
    await settled(fleet)
    await check(fleet, host)
    before = {vm["id"] for vm in await machines(fleet)}
    status, answer = await fleet.ask("POST", "/api/envs", json=body, headers={"idempotency-key": key})
    # A claim of the dead server would answer 409 here.
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
            for die_again in deaths():
                folder = here.copied(f"once-{die_at}-{die_again}")
                async with running_controller(settings_of_controller(folder)) as fleet:
                    assert (await fleet.ask("POST", "/api/envs", json=body))[0] == 201
                order = an_order(folder, die_at, "DELETE /api/envs")
                came_through = await here.send(order, "DELETE", "/api/envs/e1", None, "once")
                recovered = await here.die_again(folder, die_again)
                with told("deleted", order, die_at, die_again):
                    async with running_controller(settings_of_controller(folder)) as fleet:
                        await after_delete(fleet, here.host)
                shutil.rmtree(folder)
                if recovered:
                    break
            if came_through:
                break
        assert die_at > LEAST_POINTS


@pytest.mark.parametrize(("word", "goal"), [("stop", "stopped"), ("pause", "paused")])
async def test_a_controller_killed_at_any_step_of_a_change_of_one_machine(tmp_path: Path, word: str, goal: str) -> None:
    """What was written down is asked of the host by the next controller; what was not has not happened."""
    body = {"id": "e1", "ssh_keys": [], "vms": [GOOD]}
    ends: list[str] = []

    async def is_as_wanted() -> bool:
        await turn(fleet)
        [vm] = await machines(fleet)
        return bool(vm["state"] == vm["desired"] and "error" not in vm)

    async with house(tmp_path) as here:
        for die_at in count(1):
            folder = here.copied(f"once-{die_at}")
            async with running_controller(settings_of_controller(folder)) as fleet:
                status, answer = await fleet.ask("POST", "/api/envs", json=body)
                assert status == 201, answer
            path = f"/api/vms/{answer['data']['vms'][0]['id']}/{word}"
            order = an_order(folder, die_at, f"POST {path}")
            came_through = await here.send(order, "POST", path, None, "once")
            run_out(folder)
            with told(word, order, die_at, 0):
                async with running_controller(settings_of_controller(folder)) as fleet:
                    await eventually(is_as_wanted, within_s=WITHIN_S)
                    await settled(fleet)
                    await check(fleet, here.host)
                    ends += [vm["state"] for vm in await machines(fleet)]
                    assert (await fleet.ask("DELETE", "/api/envs/e1"))[0] == 200
            shutil.rmtree(folder)
            if came_through:
                break
    assert set(ends) <= {"running", goal}
    first = ends.index(goal)
    assert first > 0, "before it was written down, nothing has happened"
    assert set(ends[first:]) == {goal}, "from then on it is gone on with, wherever the end came"


@pytest.mark.parametrize("wanted", CREATES)
async def test_a_controller_killed_while_a_host_does_what_it_was_asked(tmp_path: Path, wanted: str) -> None:
    """What dies between its question and the answer: the host goes on, and the next controller finds what it made."""
    body = {"id": "e1", "ssh_keys": [], "vms": list(CREATES[wanted])}
    async with house(tmp_path) as here:
        for die_at in count(1):
            key = f"once-{die_at}"
            folder = here.copied(key)
            order = an_order(folder, 0, "POST /api/envs")
            here.arrivals.expect(die_at)
            came_through = await here.send(order, "POST", "/api/envs", body, key)
            here.arrivals.expect(0)
            run_out(folder)
            with told(f"{wanted}, at the host", order, die_at, 0):
                async with running_controller(settings_of_controller(folder)) as fleet:
                    await after_create(fleet, here.host, body, key, good=CREATES[wanted].count(GOOD))
            if came_through:
                break
        assert die_at > len(body["vms"])


async def after_delete(fleet: RunningController, host: RunningHost) -> None:
    await settled(fleet)
    await check(fleet, host)
    left = await machines(fleet)
    assert len(left) in (0, 2), left
    assert (await fleet.ask("DELETE", "/api/envs/e1"))[0] == (200 if left else 404)
    await settled(fleet)
    await check(fleet, host)
    await check_host(host, set())
