"""Hosts that are drained: what is left, what the caller chose, and that it goes on after a restart."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import eventually
from tests.services.fleet_house import (
    RunningController,
    RunningHost,
    running_controller,
    running_host,
    settings_of_controller,
    settings_of_host,
)
from tests.services.plain_engine import failed

pytestmark = pytest.mark.anyio
VM = {"image": "base", "engine": "bubblewrap", "cpu": 1, "mem": 64, "disk": 1000}


@asynccontextmanager
async def fleet_of(folder: Path) -> AsyncIterator[tuple[RunningController, RunningHost]]:
    async with (
        running_host(settings_of_host(folder / "h", host_id="h1")) as host,
        running_controller(settings_of_controller(folder)) as controller,
    ):
        await ask(controller, "POST", "/api/hosts", {"addr": host.addr}, expected=201)
        yield controller, host


async def ask(fleet: RunningController, method: str, path: str, json: Any = None, *, expected: int = 200) -> Any:
    status, answer = await fleet.ask(method, path, json=json)
    assert status == expected, answer
    return answer.get("data")


async def create(fleet: RunningController, env_id: str, count: int = 1) -> list[str]:
    body = {"id": env_id, "ssh_keys": [], "vms": [VM] * count}
    return [vm["id"] for vm in (await ask(fleet, "POST", "/api/envs", body, expected=201))["vms"]]


async def drain(fleet: RunningController, **chosen: Any) -> Any:
    return await ask(fleet, "POST", "/api/hosts/h1/drain?async=1", chosen or None, expected=202)


async def operation(fleet: RunningController, id_: str) -> Any:
    return await ask(fleet, "GET", f"/api/operations/{id_}")


async def ended(fleet: RunningController, id_: str) -> Any:
    async def over() -> bool:
        return bool((await operation(fleet, id_))["state"] != "running")

    await eventually(over)
    return await operation(fleet, id_)


async def test_a_drain_waits_for_what_leaves_by_itself_and_says_what_is_left(tmp_path: Path) -> None:
    async with fleet_of(tmp_path) as (fleet, _):
        [first], [second] = await create(fleet, "one"), await create(fleet, "two")
        begun = await drain(fleet)
        assert (begun["kind"], begun["subject"], begun["state"], begun["total"]) == ("drain", "h1", "running", 2)
        assert [line.partition(";")[0] for line in begun["warnings"]] == [
            f"{first} of one is running", f"{second} of two is running",
        ]  # fmt: skip
        assert "its environment is deleted at" in begun["warnings"][0]
        assert (await drain(fleet))["id"] == begun["id"], "asked again it is the same"
        told = await ask(fleet, "POST", "/api/hosts/h1/drain")
        assert (told["operation_id"], len(told["vms"])) == (begun["id"], 2)
        status, answer = await fleet.ask("POST", "/api/envs", json={"id": "three", "ssh_keys": [], "vms": [VM]})
        assert (status, "being drained" in str(answer)) == (422, True)

        await ask(fleet, "DELETE", "/api/envs/one")

        async def one_left() -> bool:
            now = await operation(fleet, begun["id"])
            return bool(now["done"] == 1) and len(now["warnings"]) == 1

        await eventually(one_left)
        await ask(fleet, "DELETE", "/api/envs/two")
        done = await ended(fleet, begun["id"])
        assert (done["state"], done["done"], done["total"], done["errors"]) == ("succeeded", 2, 2, {})
        await ask(fleet, "DELETE", "/api/hosts/h1")


async def test_machines_are_stopped_or_deleted_only_where_that_was_chosen(tmp_path: Path) -> None:
    async with fleet_of(tmp_path) as (fleet, host):
        machines = await create(fleet, "one", 2)
        host.engine.trouble.errors["stop"] = [failed("it clings")]
        stopped = await ended(fleet, (await drain(fleet, machines="stop"))["id"])
        assert stopped["state"] == "succeeded", "what failed was tried again"
        for vm_id in machines:
            assert (await ask(fleet, "GET", f"/api/vms/{vm_id}"))["state"] == "stopped"
        deleted = await ended(fleet, (await drain(fleet, machines="delete"))["id"])
        assert (deleted["state"], deleted["done"]) == ("succeeded", 2)
        assert not await host.engine.machines()
        await ask(fleet, "GET", "/api/envs/one", expected=404)


async def test_a_drain_ends_with_its_time_and_when_it_is_called_off(tmp_path: Path) -> None:
    async with fleet_of(tmp_path) as (fleet, _):
        [vm_id] = await create(fleet, "one")
        late = await ended(fleet, (await drain(fleet, timeout=1))["id"])
        assert late["state"] == "failed"
        assert late["errors"] == {vm_id: f"the time is over: {vm_id} of one is running"}
        assert (await ask(fleet, "GET", "/api/hosts/h1"))["draining"] is True, "it goes on taking nothing new"
        again = await drain(fleet)
        await ask(fleet, "POST", "/api/hosts/h1/uncordon")
        assert "called off" in (await ended(fleet, again["id"]))["errors"][vm_id]
        await ask(fleet, "POST", "/api/hosts/h9/drain", expected=404)
        await ask(fleet, "POST", "/api/hosts/h1/drain", {"machines": "carry"}, expected=422)


async def test_a_drain_goes_on_after_a_restart_as_it_was_chosen(tmp_path: Path) -> None:
    async with running_host(settings_of_host(tmp_path / "h", host_id="h1")) as host:
        async with running_controller(settings_of_controller(tmp_path)) as fleet:
            await ask(fleet, "POST", "/api/hosts", {"addr": host.addr}, expected=201)
            [vm_id] = await create(fleet, "one")
            host.engine.trouble.errors["stop"] = [failed("it clings")] * 1000
            begun = await drain(fleet, machines="stop")

            async def refused() -> bool:
                return "it clings" in str((await operation(fleet, begun["id"])).get("warnings"))

            await eventually(refused)
        host.engine.trouble.errors.clear()
        async with running_controller(settings_of_controller(tmp_path)) as again:
            assert (await ended(again, begun["id"]))["state"] == "succeeded"
            assert (await ask(again, "GET", f"/api/vms/{vm_id}"))["state"] == "stopped"
