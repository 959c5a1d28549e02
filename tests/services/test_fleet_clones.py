"""Environments made from snapshots: where they go, what they have of their source, and what is refused."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.services.fleet_house import (
    RunningController,
    RunningHost,
    running_controller,
    running_host,
    settings_of_controller,
    settings_of_host,
)

pytestmark = pytest.mark.anyio
VM = {"image": "base", "engine": "bubblewrap", "cpu": 1, "mem": 64, "disk": 1000}


@dataclass
class Fleet:
    """A controller with two hosts."""

    controller: RunningController
    hosts: list[RunningHost]

    async def create(self, env_id: str, expected: int = 201, query: str = "", **body: Any) -> Any:
        whole = {"id": env_id, "ssh_keys": [], "vms": [], **body}
        status, answer = await self.controller.ask("POST", f"/api/envs{query}", json=whole)
        assert status == expected, answer
        return answer.get("data") if status < 300 else answer

    async def write(self, vm_id: str, path: str, content: bytes) -> None:
        async with self.controller.client.put(
            f"{self.controller.url}/api/vms/{vm_id}/files", params={"path": path}, data=content
        ) as answer:
            assert answer.status == 200, await answer.text()

    async def read(self, vm_id: str, path: str) -> bytes:
        async with self.controller.client.get(
            f"{self.controller.url}/api/vms/{vm_id}/files", params={"path": path}
        ) as answer:
            return await answer.read() if answer.status == 200 else b"refused"

    async def snapshot(self, vm_id: str, name: str) -> None:
        status, answer = await self.controller.ask("POST", f"/api/vms/{vm_id}/snapshots", json={"name": name})
        assert status == 201, answer


@asynccontextmanager
async def fleet_of(folder: Path, hosts: int = 2) -> AsyncIterator[Fleet]:
    made: list[RunningHost] = []

    @asynccontextmanager
    async def more(left: int) -> AsyncIterator[None]:
        if not left:
            yield
            return
        settings = settings_of_host(folder / f"h{left}", host_id=f"h{left}")
        async with running_host(settings) as host:
            made.append(host)
            async with more(left - 1):
                yield

    async with more(hosts), running_controller(settings_of_controller(folder)) as controller:
        for host in made:
            status, answer = await controller.ask("POST", "/api/hosts", json={"addr": host.addr})
            assert status == 201, answer
        yield Fleet(controller, made)


async def test_an_environment_is_cloned_from_one_snapshot_of_its_machines(tmp_path: Path) -> None:
    async with fleet_of(tmp_path) as fleet:
        asked = {**VM, "env": {"SECRET": "s"}, "ports": [8080], "deny_outgoing": True}
        spread = {"placing": {"spread": "spread"}}
        first = await fleet.create("web", vms=[asked, asked], **spread)
        vms = first["vms"]
        assert {vm["host_id"] for vm in vms} == {"h1", "h2"}
        for number, vm in enumerate(vms):
            await fleet.write(vm["id"], "/note", b"kept %d" % number)
            await fleet.snapshot(vm["id"], "good")
            await fleet.write(vm["id"], "/note", b"later")

        source = {"env_id": "web", "snapshot": "good", "env": {"NAME": "copy"}}
        planned = await fleet.create("copy", 200, "?dry_run=1", source=source)
        assert [each["host_id"] for each in planned["placed"]] == [vm["host_id"] for vm in vms]
        assert all(each["why"].startswith("it has the snapshot") for each in planned["placed"])
        assert all("is kept on" in reason for each in planned["placed"] for reason in each["others"].values())

        clones = (await fleet.create("copy", source=source))["vms"]
        assert [vm["host_id"] for vm in clones] == [vm["host_id"] for vm in vms]
        for number, (clone, vm) in enumerate(zip(clones, vms, strict=True)):
            assert clone["origin"] == {"vm_id": vm["id"], "snapshot": "good"}
            assert clone["state"] == "running"
            assert clone["deny_outgoing"], "what confines the first confines the clone"
            assert set(clone["port_map"]) == {"22", "8080"}
            assert not set(clone["port_map"].values()) & set(vm["port_map"].values())
            assert clone["ip"] != vm["ip"]
            assert await fleet.read(clone["id"], "/note") == b"kept %d" % number
        spec = (await fleet.controller.opened.services.fleet.vm(clones[0]["id"])).spec
        assert dict(spec.env) == {"NAME": "copy"}


async def test_a_machine_is_cloned_many_times_and_the_clones_outlive_it(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, hosts=1) as fleet:
        [vm] = (await fleet.create("web", vms=[VM]))["vms"]
        await fleet.snapshot(vm["id"], "good")
        many = await fleet.create("many", source={"vm_id": vm["id"], "snapshot": "good", "copies": 3})
        assert len({clone["id"] for clone in many["vms"]}) == 3
        assert (await fleet.controller.ask("DELETE", "/api/envs/web"))[0] == 200
        for clone in many["vms"]:
            status, answer = await fleet.controller.ask("POST", f"/api/vms/{clone['id']}/stop")
            assert status == 200, answer
            status, answer = await fleet.controller.ask("POST", f"/api/vms/{clone['id']}/start")
            assert answer["data"]["state"] == "running"


async def test_what_is_no_source_is_refused_before_anything_is_kept(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, hosts=1) as fleet:
        [vm] = (await fleet.create("web", vms=[VM]))["vms"]
        await fleet.snapshot(vm["id"], "good")
        for status, code, source, vms in (
            (400, "invalid_source", {"snapshot": "good"}, []),
            (400, "invalid_source", {"snapshot": "good", "vm_id": vm["id"], "env_id": "web"}, []),
            (400, "invalid_source", {"snapshot": "good", "vm_id": vm["id"]}, [VM]),
            (400, "invalid_name", {"snapshot": "../x", "vm_id": vm["id"]}, []),
            (404, "snapshot_not_found", {"snapshot": "bad", "vm_id": vm["id"]}, []),
            (404, "vm_not_found", {"snapshot": "good", "vm_id": "00000000-000"}, []),
            (404, "env_not_found", {"snapshot": "good", "env_id": "none"}, []),
        ):
            answer = await fleet.create("copy", status, source=source, vms=vms)
            assert answer["code"] == code
        host_id = vm["host_id"]
        assert (await fleet.controller.ask("POST", f"/api/hosts/{host_id}/cordon"))[0] == 200
        answer = await fleet.create("copy", 422, source={"snapshot": "good", "vm_id": vm["id"]})
        assert answer["code"] == "unschedulable"
        assert "cordoned" in str(answer)
        assert (await fleet.controller.ask("GET", "/api/envs/copy"))[0] == 404
