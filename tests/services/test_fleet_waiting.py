"""Environments that wait for room, on a running controller: in turn, not for ever, and over a restart."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import eventually
from tests.services.fleet_house import (
    RunningController,
    running_controller,
    running_host,
    settings_of_controller,
    settings_of_host,
)

pytestmark = pytest.mark.anyio


def vm(mem: int, cpu: int = 1) -> dict[str, Any]:
    return {"image": "base", "engine": "bubblewrap", "cpu": cpu, "mem": mem, "disk": 1000}


@asynccontextmanager
async def controller(folder: Path) -> AsyncIterator[RunningController]:
    async with running_controller(settings_of_controller(folder)) as running:
        yield running


async def create(
    fleet: RunningController, env_id: str, *vms: dict[str, Any], expected: int = 201, query: str = "", **more: Any
) -> Any:
    body = {"id": env_id, "ssh_keys": [], "vms": list(vms), **more}
    status, answer = await fleet.ask("POST", f"/api/envs{query}", json=body)
    assert status == expected, answer
    return answer["data"] if status < 300 else answer


async def state(fleet: RunningController, env_id: str) -> str:
    status, answer = await fleet.ask("GET", f"/api/envs/{env_id}")
    return str(answer["data"]["env"]["state"]) if status == 200 else "gone"


async def operation(fleet: RunningController, id_: str) -> Any:
    return (await fleet.ask("GET", f"/api/operations/{id_}"))[1]["data"]


async def until(fleet: RunningController, env_id: str, wanted: str) -> None:
    async def there() -> bool:
        return await state(fleet, env_id) == wanted

    await eventually(there)


async def test_room_that_frees_goes_to_who_asked_first_and_the_small_do_not_pass_the_large(tmp_path: Path) -> None:
    async with running_host(settings_of_host(tmp_path / "h")) as host, controller(tmp_path) as fleet:
        await fleet.ask("POST", "/api/hosts", json={"addr": host.addr})
        for name in ("one", "two"):
            await create(fleet, name, vm(3500))
        big = await create(fleet, "big", vm(7000), expected=202, query="?async=1", wait_for_capacity=600)
        assert big["state"] == "running"
        assert big["warnings"][0].startswith("waits for room: no host has enough resources")
        assert "too little is free" in big["warnings"][1]
        small = await create(fleet, "small", vm(64), expected=202, query="?async=1", wait_for_capacity=600)
        assert "waited for by big" in str(small["warnings"])
        refused = await create(fleet, "now", vm(64), expected=422)
        assert "waited for by big, which asked before" in str(refused)
        assert [await state(fleet, each) for each in ("big", "small")] == ["waiting", "waiting"]
        assert (await fleet.ask("GET", "/api/envs/big"))[1]["data"]["vms"] == []

        assert (await fleet.ask("DELETE", "/api/envs/one"))[0] == 200
        assert await state(fleet, "small") == "waiting", "there would be room for it, and it is not its turn"
        assert (await fleet.ask("DELETE", "/api/envs/two"))[0] == 200
        await until(fleet, "big", "active")
        await until(fleet, "small", "active")
        done = await operation(fleet, big["id"])
        assert (done["state"], done["done"], done.get("warnings")) == ("succeeded", 1, None)
        types = [each["type"] for each in (await fleet.ask("GET", "/api/events?limit=1000"))[1]["data"]]
        assert (types.count("env.waiting"), types.count("env.placed")) == (2, 2)
        await create(fleet, "now", vm(64))


async def test_a_wait_ends_with_its_time_and_with_the_environment(tmp_path: Path) -> None:
    async with running_host(settings_of_host(tmp_path / "h")) as host, controller(tmp_path) as fleet:
        await fleet.ask("POST", "/api/hosts", json={"addr": host.addr})
        short = await create(fleet, "short", vm(9000), vm(9000), expected=502, wait_for_capacity=1)
        assert short["code"] == "operation_failed"
        assert "there was no room in time: no host has enough resources" in short["error"]
        assert await state(fleet, "short") == "gone"

        long = await create(fleet, "long", vm(9000), expected=202, query="?async=1", wait_for_capacity=600)
        assert (await fleet.ask("DELETE", "/api/envs/long"))[0] == 200

        async def failed() -> bool:
            found = await operation(fleet, long["id"])
            return bool(found["state"] == "failed") and "was deleted while it waited" in str(found["errors"])

        await eventually(failed)
        assert await state(fleet, "long") == "gone"
        await create(fleet, "after", vm(64))
        await create(fleet, "zero", vm(64), expected=422, wait_for_capacity=0)


async def test_who_waits_goes_on_waiting_after_a_restart(tmp_path: Path) -> None:
    async with running_host(settings_of_host(tmp_path / "h")) as host:
        async with controller(tmp_path) as fleet:
            await fleet.ask("POST", "/api/hosts", json={"addr": host.addr})
            await create(fleet, "one", vm(7000))
            asked = [
                await create(fleet, name, vm(mem), expected=202, query="?async=1", wait_for_capacity=600)
                for name, mem in (("first", 8000), ("second", 64))
            ]
        async with controller(tmp_path) as again:
            assert [await state(again, each) for each in ("first", "second")] == ["waiting", "waiting"]
            assert (await again.ask("DELETE", "/api/envs/one"))[0] == 200
            await until(again, "first", "active")
            await until(again, "second", "active")
            for each in asked:
                assert (await operation(again, each["id"]))["state"] == "succeeded"
            detail = (await again.ask("GET", "/api/envs/first"))[1]["data"]
            left = detail["env"]["expires_at"] - detail["vms"][0]["created_at"]
            assert abs(left - 21_600) <= 1, "its lifetime counts from when it was placed"
