"""The same with real boxes: a host of bubblewrap is killed at each step of a create; the kernel has nothing left.

Boxes take their time: this is part of the soak. In CI the same steps are taken with machines that are processes.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fleet_programs import Api, free_port, root_folder
from tests.faults.fleet.doomed import Doomed, Order, doomed_programs, serves
from tests.faults.fleet.truth import is_lost, machines, settled
from tests.services.fleet_house import RunningController, running_controller, settings_of_controller

pytestmark = pytest.mark.anyio
VM = {"image": "base", "engine": "bubblewrap", "cpu": 1, "mem": 64, "disk": 1000, "ports": [22]}
BODY = {"id": "e1", "ssh_keys": [], "vms": [VM]}
__test__ = "BOROUGH_SOAK_S" in os.environ  # it takes minutes
LEAST_POINTS = 20


@dataclass
class House:
    """A controller, and host daemons that come and go over one folder at one address."""

    folder: Path
    port: int
    fleet: RunningController
    doomed: Doomed

    async def start(self, die_at: int = 0, armed_by: str = "POST /never") -> tuple[Order, "asyncio.Task[int]"]:
        order = Order(
            program="bubblewrap host", folder=str(self.folder), port=self.port, die_at=die_at, armed_by=armed_by,
            host_id="h1",
        )  # fmt: skip
        order.told.unlink(missing_ok=True)
        ended = await self.doomed.start(order)
        await serves(f"http://127.0.0.1:{self.port}", ended)
        return order, ended

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        _, ended = await self.start()
        try:
            yield
        finally:
            self.doomed.kill()
            await ended

    async def die(self, die_at: int, armed_by: str, method: str, path: str, body: Any = None) -> str | None:
        """Have a daemon serve the controller until it dies; return where that was, or ``None`` if it came through."""
        order, ended = await self.start(die_at, armed_by)
        await self.fleet.ask(method, path, json=body)
        self.doomed.kill()
        await ended
        reached = order.told.read_text().splitlines()
        return reached[-1] if len(reached) == die_at else None

    async def on_host(self) -> set[str]:
        api = Api(f"127.0.0.1:{self.port}", key=None)
        return {vm["id"] for vm in await asyncio.to_thread(api.data, "GET", "/api/vms")}

    async def check_empty(self) -> None:
        """Check that neither the host nor the kernel has anything of a machine."""
        assert await self.on_host() == set()
        # Firecracker's own folder is there, with an empty one for its machines.
        left = {str(path.relative_to(self.folder / "runtime")) for path in (self.folder / "runtime").rglob("*")}
        assert left <= {".firecracker", ".firecracker/machines"}
        assert left_in_the_kernel(self.folder / "runtime", but=self.doomed.pid) == []


def left_in_the_kernel(runtime: Path, *, but: int) -> Sequence[str]:
    """Return mounts under a folder, and processes that work there."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(runtime) in line]
    processes = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) not in (os.getpid(), but):
            try:
                words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            except OSError:  # it has ended
                continue
            if str(runtime).encode() in words:
                processes.append(f"{process.name} {words[:200]!r}")
    return mounts + processes


@asynccontextmanager
async def house(tmp_path: Path) -> AsyncIterator[House]:
    root_folder(tmp_path / "h" / "images" / "base")
    async with running_controller(settings_of_controller(tmp_path)) as fleet, doomed_programs() as doomed:
        made = House(folder=tmp_path / "h", port=free_port(), fleet=fleet, doomed=doomed)
        async with made.serving():
            status, answer = await fleet.ask("POST", "/api/hosts", json={"addr": f"127.0.0.1:{made.port}"})
            assert status == 201, answer
        yield made


async def test_a_host_of_boxes_killed_at_any_step_of_a_create(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        for die_at in count(1):
            where = await here.die(die_at, "POST /api/vms", "POST", "/api/envs", BODY)
            try:
                async with here.serving():
                    await settled(here.fleet)
                    (vm,) = await machines(here.fleet)
                    assert vm["state"] == "running" or is_lost(vm)
                    assert await here.on_host() == (set() if is_lost(vm) else {vm["id"]})
                    assert (await here.fleet.ask("DELETE", "/api/envs/e1"))[0] == 200
                    await here.check_empty()
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"killed {where} (point {die_at})") from error
            if where is None:
                break
        assert die_at > LEAST_POINTS


async def test_a_host_of_boxes_killed_at_any_step_of_a_delete(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        for die_at in count(1):
            async with here.serving():
                assert (await here.fleet.ask("POST", "/api/envs", json=BODY))[0] == 201
            where = await here.die(die_at, "DELETE /api/vms", "DELETE", "/api/envs/e1")
            try:
                async with here.serving():
                    await settled(here.fleet)
                    assert await machines(here.fleet) == []
                    await here.check_empty()
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"killed {where} (point {die_at})") from error
            if where is None:
                break
        assert die_at > LEAST_POINTS
