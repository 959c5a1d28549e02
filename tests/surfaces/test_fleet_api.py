"""The controller over HTTP, with a host daemon of its own: the reference's routes and ours."""

import asyncio
import base64
import io
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from openapi_spec_validator import OpenAPIV31SpecValidator

from borough.core.ids import new_id
from borough.http.fleet.document import fleet_document
from borough.http.host.document import host_document
from tests.conftest import eventually
from tests.services.fleet_house import (
    RunningController,
    RunningHost,
    running_controller,
    running_host,
    settings_of_controller,
    settings_of_host,
    with_key,
)
from tests.services.plain_engine import failed

pytestmark = pytest.mark.anyio
KEY = "ssh-ed25519 AAAA... alice@laptop"
VM = {"image": "base", "engine": "bubblewrap", "cpu": 1, "mem": 64, "disk": 1000}
STRICT_ENV = ["id", "owner", "vm_ids", "created_at", "expires_at", "state"]
STRICT_VM = [
    "id", "env_id", "host_id", "image", "engine", "cpu", "mem", "disk", "ip", "port_map", "state", "created_at",
]  # fmt: skip
STRICT_HOST = ["id", "addr", "resource", "state", "engines", "storage", "registered_at"]
RESOURCE = ["cpu_total", "cpu_used", "mem_total", "mem_used", "disk_total", "disk_used", "vm_count"]


@dataclass(slots=True)
class Fleet:
    controller: RunningController
    host: RunningHost

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        return await self.controller.ask(method, path, json=body, **more)

    async def data(self, method: str, path: str, body: Any = None, *, status: int = 200, **more: Any) -> Any:
        found, answer = await self.ask(method, path, body, **more)
        assert found == status, answer
        assert answer["ok"] is True
        return answer.get("data")

    async def refused(self, status: int, method: str, path: str, body: Any = None) -> Any:
        found, answer = await self.ask(method, path, body)
        assert found == status, answer
        assert answer["ok"] is False
        assert "data" not in answer
        return answer


def env(env_id: str = "e1", *vms: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": env_id, "owner": "alice", "ssh_keys": [KEY], "vms": list(vms), **more}


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with (
        running_host(settings_of_host(tmp_path / "h1", host_id="h1")) as host,
        running_controller(settings_of_controller(tmp_path)) as controller,
    ):
        status, answer = await controller.ask("POST", "/api/hosts", json={"addr": host.addr})
        assert status == 201, answer
        yield Fleet(controller, host)


async def test_the_life_of_an_environment_as_the_reference_has_it(fleet: Fleet) -> None:
    made = await fleet.data("POST", "/api/envs", env("my-env", {**VM, "ports": [80]}), status=201)
    assert list(made["env"])[:6] == STRICT_ENV
    assert made["env"]["expires_at"] - made["env"]["created_at"] == 21_600
    (vm,) = made["vms"]
    assert list(vm)[:12] == STRICT_VM
    assert re.fullmatch("[0-9a-f]{8}-[0-9a-f]{3}", vm["id"])
    assert made["env"]["vm_ids"] == [vm["id"]]
    assert list(vm["port_map"]) == ["22", "80"]
    assert (vm["state"], vm["ip"], vm["host_id"]) == ("running", "10.10.0.2", "h1")
    assert "warnings" not in made
    assert await fleet.data("GET", f"/api/vms/{vm['id']}") == vm
    assert (await fleet.data("GET", "/api/envs/my-env"))["vms"] == [vm]
    assert [each["id"] for each in await fleet.data("GET", "/api/envs")] == ["my-env"]
    host = await fleet.data("GET", "/api/hosts/h1")
    assert list(host)[:7] == STRICT_HOST
    assert list(host["resource"]) == RESOURCE
    assert host["resource"]["vm_count"] == 1
    status = await fleet.data("GET", "/api/status")
    assert status == {
        "hosts": 1, "hosts_online": 1, "total_vms": 1, "total_envs": 1, "cpu_total": 8, "cpu_used": 1,
        "mem_total": 8192, "mem_used": 64, "disk_total": 100_000, "disk_used": 1000,
    }  # fmt: skip
    (image,) = await fleet.data("GET", "/api/images")
    assert (list(image)[:2], image["name"]) == (["name", "host_id"], "base")
    assert await fleet.ask("POST", "/api/envs/my-env/stop") == (200, {"ok": True})
    assert (await fleet.data("GET", f"/api/vms/{vm['id']}"))["state"] == "stopped"
    assert (await fleet.data("GET", "/api/envs/my-env"))["env"]["state"] == "stopped"
    assert await fleet.ask("POST", "/api/envs/my-env/start") == (200, {"ok": True})
    assert (await fleet.data("GET", "/api/envs/my-env"))["env"]["state"] == "active"
    assert await fleet.ask("DELETE", "/api/envs/my-env") == (200, {"ok": True})
    await fleet.refused(404, "GET", "/api/envs/my-env")
    assert await fleet.host.engine.machines() == []
    assert await fleet.ask("DELETE", "/api/hosts/h1") == (200, {"ok": True})
    assert await fleet.ask("DELETE", "/api/hosts/h1") == (200, {"ok": True})
    await fleet.refused(404, "GET", "/api/hosts/h1")


async def test_defaults_are_those_of_the_reference(fleet: Fleet) -> None:
    for lifetime in (None, 0, 10**9):
        name = f"e{lifetime}"
        made = await fleet.data("POST", "/api/envs", env(name, lifetime=lifetime), status=201)
        assert made["env"]["expires_at"] - made["env"]["created_at"] == 21_600
        assert made["vms"] == []
        assert ("warnings" in made) == (lifetime is not None)
    refused = await fleet.refused(422, "POST", "/api/envs", env("e2", {"image": "base"}))
    assert "engine=qemu" in refused["error"]
    bare = {"id": "e3", "ssh_keys": [], "vms": [{"image": "base", "engine": "bubblewrap"}]}
    (vm,) = (await fleet.data("POST", "/api/envs", bare, status=201))["vms"]
    assert (vm["cpu"], vm["mem"], vm["disk"], list(vm["port_map"])) == (2, 1024, 40_960, ["22"])


@pytest.mark.parametrize(
    ("status", "change"),
    [
        (400, {"id": "a/b"}),
        (400, {"id": ".a"}),
        (400, {"id": ""}),
        (400, {"vms": [{**VM, "image": "../etc"}]}),
        (400, {"vms": [{**VM, "cpu": 0}]}),
        (400, {"vms": [{**VM, "disk": 0}]}),
        (400, {"vms": [{**VM, "ports": [0]}]}),
        (400, {"ssh_keys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}),
        (422, {"vms": [{**VM, "cpu": -1}]}),
        (422, {"vms": [{**VM, "cpu": 1.5}]}),
        (422, {"vms": [{**VM, "ports": None}]}),
        (422, {"vms": [{**VM, "ports": [70_000]}]}),
        (422, {"vms": [{**VM, "engine": "kvm"}]}),
        (422, {"ssh_keys": None}),
        (422, {"lifetime": -1}),
        (422, {"vms": [{**VM, "cpu": 9}]}),
        (422, {"vms": [{**VM, "image": "absent"}]}),
        (422, {"vms": [{**VM, "engine": "firecracker"}]}),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_told_and_nothing_is_kept(fleet: Fleet, status: int, change: dict[str, Any]) -> None:
    answer = await fleet.refused(status, "POST", "/api/envs", {**env(), **change})
    assert answer["error"]
    assert answer["code"]
    assert "PRIVATE" not in json.dumps(answer)
    assert await fleet.data("GET", "/api/envs") == []


async def test_framework_errors_have_the_envelope_too(fleet: Fleet) -> None:
    url = f"{fleet.controller.url}/api/envs"
    client = fleet.controller.client
    for status, sent in (
        (415, {"data": b"{}", "headers": {"content-type": "text/plain"}}),
        (400, {"data": b"{", "headers": {"content-type": "application/json"}}),
        (413, {"data": io.BytesIO(b" " * 2_097_153), "headers": {"content-type": "application/json"}}),
    ):
        async with client.post(url, **sent) as answer:  # type: ignore[arg-type]  # of aiohttp
            assert answer.status == status
            if status != 413:  # the rest of that body is not read: the answer may be cut off with the connection
                assert (await answer.json())["ok"] is False
    missing = {"id": "e", "vms": []}
    assert "ssh_keys" in (await fleet.refused(422, "POST", "/api/envs", missing))["error"]
    await fleet.refused(404, "GET", "/api/nothing")
    await fleet.refused(404, "GET", "/api/hosts/")
    async with client.put(url) as answer:
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, POST")
    async with client.head(f"{fleet.controller.url}/api/status") as answer:
        assert answer.status == 200
        assert await answer.read() == b""
    await fleet.data("POST", "/api/envs", {**env("with-more"), "unknown": 1}, status=201)


async def test_with_a_key_everything_but_the_page_needs_it(tmp_path: Path) -> None:
    async with running_controller(settings_of_controller(tmp_path, listening=with_key("k3y"))) as controller:
        assert (await controller.ask("GET", "/api/status"))[0] == 200
        async with aiohttp.ClientSession() as stranger:
            for method, path in (("GET", "/api/status"), ("GET", "/api/none"), ("GET", "/x"), ("PUT", "/api/hosts")):
                for headers in ({}, {"authorization": "Bearer guess"}):
                    async with stranger.request(method, f"{controller.url}{path}", headers=headers) as answer:
                        assert answer.status == 401
                        assert await answer.json() == {"ok": False, "error": "invalid or missing API key"}
            pages = ("/", "/docs")
            for path in (*pages, "/assets/fleet.js", "/assets/fleet.css", "/health", "/ready", "/metrics"):
                async with stranger.get(f"{controller.url}{path}") as answer:
                    assert answer.status == 200
                    policy = answer.headers.get("content-security-policy")
                    assert (policy is not None) == (path in pages)
                    assert "<script>" not in await answer.text()
        assert (await controller.ask("GET", "/api/none"))[0] == 404
        operator = (tmp_path / "ctl" / "operator.token").read_text().strip()
        owner = {"authorization": f"Bearer {operator}"}
        assert (await controller.ask("GET", "/api/status", headers=owner))[0] == 200


@pytest.mark.parametrize(("which", "make"), [("controller", fleet_document), ("host", host_document)])
async def test_both_documents_are_valid_and_served(fleet: Fleet, which: str, make: Callable[[], Any]) -> None:
    document = make()
    OpenAPIV31SpecValidator(document).validate()
    url = fleet.controller.url if which == "controller" else f"http://{fleet.host.addr}"
    async with fleet.controller.client.get(f"{url}/openapi.json") as answer:
        assert await answer.json() == document
    async with fleet.controller.client.get(f"{url}/openapi.yaml") as answer:
        assert yaml.safe_load(await answer.read()) == document
    async with fleet.controller.client.get(f"{url}/docs") as answer:
        assert "/api/vms/{id}/exec" in await answer.text()


def test_the_documents_have_the_envelope_and_nothing_else() -> None:
    for document in (fleet_document(), host_document()):
        told = document["paths"]["/api/vms/{id}"]["get"]["responses"]
        shown, refused = (told[status]["content"]["application/json"]["schema"]["$ref"] for status in ("200", "404"))
        assert (shown, refused) == ("#/components/schemas/Envelope_Vm", "#/components/schemas/Refusal")
        assert set(document["components"]["schemas"]["Envelope_Vm"]["required"]) == {"ok", "data"}
        assert set(document["components"]["schemas"]["Refusal"]["required"]) == {"ok", "error"}


async def test_names_are_taken_once_and_what_is_gone_is_404(fleet: Fleet) -> None:
    await fleet.data("POST", "/api/envs", env(), status=201)
    assert (await fleet.refused(409, "POST", "/api/envs", env()))["code"] == "env_exists"
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/stop"), ("POST", "/start")):
        assert "nope" in (await fleet.refused(404, method, f"/api/envs/nope{path}"))["error"]
    await fleet.refused(404, "GET", "/api/vms/nope")


async def test_what_of_an_environment_cannot_be_made_is_told_with_the_hosts_own_words(fleet: Fleet) -> None:
    fleet.host.engine.trouble.errors["create"] = [failed("no luck today")]
    made = await fleet.data("POST", "/api/envs", env("half", VM, VM), status=201)
    assert len(made["vms"]) == 1
    (warning,) = made["warnings"]
    assert "no luck today" in warning
    assert "on h1" in warning
    fleet.host.engine.trouble.errors["create"] = [failed("none at all")]
    refused = await fleet.refused(502, "POST", "/api/envs", env("none", VM))
    assert "none at all" in refused["error"]
    assert [each["id"] for each in await fleet.data("GET", "/api/envs")] == ["half"]
    assert (await fleet.data("GET", "/api/hosts/h1"))["resource"]["vm_count"] == 1


async def test_what_cannot_be_deleted_stays_visible_and_says_why(fleet: Fleet) -> None:
    await fleet.data("POST", "/api/envs", env("e1", VM), status=201)
    fleet.host.engine.trouble.errors["destroy"] = [failed("it clings")]
    assert "it clings" in (await fleet.refused(502, "DELETE", "/api/envs/e1"))["error"]
    left = await fleet.data("GET", "/api/envs/e1")
    assert left["env"]["state"] == "deleting"
    assert "it clings" in left["vms"][0]["error"]
    assert (await fleet.refused(409, "POST", "/api/envs/e1/start"))["code"] == "env_deleting"
    await fleet.data("DELETE", "/api/envs/e1")
    await fleet.refused(404, "GET", "/api/envs/e1")


async def test_stop_and_start_tell_when_they_do_not_succeed(fleet: Fleet) -> None:
    await fleet.data("POST", "/api/envs", env("e1", VM), status=201)
    fleet.host.engine.trouble.errors["stop"] = [failed("it resists")]
    assert "it resists" in (await fleet.refused(502, "POST", "/api/envs/e1/stop"))["error"]
    assert (await fleet.data("GET", "/api/envs/e1"))["env"]["state"] == "active"


async def test_a_host_is_registered_by_what_answers(fleet: Fleet) -> None:
    for addr in ("", "10.0.0.1", "http://10.0.0.1:9100", "h:0", "h:99999"):
        assert (await fleet.refused(400, "POST", "/api/hosts", {"addr": addr}))["code"] == "invalid_address"
    assert "127.0.0.1:1" in (await fleet.refused(502, "POST", "/api/hosts", {"addr": "127.0.0.1:1"}))["error"]
    itself = fleet.controller.url.removeprefix("http://")
    assert (await fleet.refused(502, "POST", "/api/hosts", {"addr": itself}))["code"] == "not_a_host"
    again = await fleet.data("POST", "/api/hosts", {"addr": fleet.host.addr}, status=201)
    assert again["id"] == "h1"
    other_name = fleet.host.addr.replace("127.0.0.1", "localhost")
    assert (await fleet.refused(409, "POST", "/api/hosts", {"addr": other_name}))["code"] == "host_bound"
    await fleet.data("POST", "/api/envs", env("e1", VM), status=201)
    assert "1 machines" in (await fleet.refused(409, "DELETE", "/api/hosts/h1"))["error"]


async def test_a_token_makes_a_controller_known_once(tmp_path: Path) -> None:
    settings = settings_of_host(tmp_path / "h", host_id="h1", listening=with_key("other", join_only=True))
    async with (
        running_host(settings) as host,
        running_controller(settings_of_controller(tmp_path)) as controller,
    ):
        token = (tmp_path / "h" / "data" / "join.token").read_text().strip()
        assert (await controller.ask("POST", "/api/hosts", json={"addr": host.addr}))[0] == 502
        wrong = {"addr": host.addr, "token": token[:-43] + "x" * 43}
        status, refused = await controller.ask("POST", "/api/hosts", json=wrong)
        assert (status, refused["code"]) == (502, "token_refused")
        assert (await controller.ask("POST", "/api/hosts", json={"addr": host.addr, "token": token}))[0] == 201
        assert (tmp_path / "h" / "data" / "join.token").read_text().strip() != token
        status, made = await controller.ask("POST", "/api/envs", json=env("e1", VM))
        assert status == 201, made
        kept = b"".join(path.read_bytes() for path in (tmp_path / "h" / "data").iterdir() if path.is_file())
        assert b"bhc_" not in kept, "the host keeps no credential, only its digest"


async def test_operations_go_on_without_their_caller(fleet: Fleet) -> None:
    stalled = fleet.host.engine.trouble.stalls["create"] = asyncio.Event()
    begun = await fleet.data("POST", "/api/envs?async=1", env("e1", VM), status=202)
    assert (begun["kind"], begun["subject"], begun["state"]) == ("create", "e1", "running")
    path = f"/api/operations/{begun['id']}"
    assert (await fleet.data("GET", f"{path}?wait=0.05"))["state"] == "running"
    assert (await fleet.data("GET", "/api/envs/e1"))["env"]["state"] == "creating"
    waiting = asyncio.create_task(fleet.data("GET", f"{path}?wait=30"))
    stalled.set()
    over = await waiting
    assert (over["state"], over["total"], over["done"], over["errors"]) == ("succeeded", 1, 1, {})
    assert over["ended_at"] >= over["started_at"]
    assert [each["id"] for each in await fleet.data("GET", "/api/operations")] == [begun["id"]]
    await fleet.refused(404, "GET", "/api/operations/none")
    gone = await fleet.data("DELETE", "/api/envs/e1?async=1", status=202)
    assert (await fleet.data("GET", f"/api/operations/{gone['id']}?wait=30"))["state"] == "succeeded"
    await fleet.refused(404, "GET", "/api/envs/e1")


async def test_a_caller_who_leaves_does_not_leave_half_an_environment(fleet: Fleet) -> None:
    stalled = fleet.host.engine.trouble.stalls["create"] = asyncio.Event()
    leaving = asyncio.create_task(fleet.ask("POST", "/api/envs", env("e1", VM, VM)))
    await eventually(lambda: _exists(fleet, "e1"))
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    stalled.set()

    async def active() -> bool:
        return bool((await fleet.data("GET", "/api/envs/e1"))["env"]["state"] == "active")

    await eventually(active)
    assert len((await fleet.data("GET", "/api/envs/e1"))["vms"]) == 2


async def _exists(fleet: Fleet, env_id: str) -> bool:
    return (await fleet.ask("GET", f"/api/envs/{env_id}"))[0] == 200


async def test_a_repeated_request_is_done_once(fleet: Fleet) -> None:
    headers = {"idempotency-key": new_id()}
    first = await fleet.data("POST", "/api/envs", env("e1", VM), status=201, headers=headers)
    assert await fleet.data("POST", "/api/envs", env("e1", VM), status=201, headers=headers) == first
    status, refused = await fleet.ask("POST", "/api/envs", env("e2", VM), headers=headers)
    assert (status, refused["code"]) == (422, "idempotency_key_reused")


async def test_a_plan_can_be_seen_before_it_is_made(fleet: Fleet) -> None:
    plan = await fleet.data("POST", "/api/envs?dry_run=1", env("e1", VM, {**VM, "cpu": 7}))
    assert [(each["host_id"], each["others"]) for each in plan["placed"]] == [("h1", {}), ("h1", {})]
    assert "MiB free" in plan["placed"][0]["why"]
    plan = await fleet.data("POST", "/api/envs?dry_run=1", env("e1", VM, {**VM, "cpu": 8}))
    assert (plan["placed"], plan["number"]) == ([], 1)
    assert "cpu 7 of 8" in plan["hosts"]["h1"]
    assert await fleet.data("GET", "/api/envs") == []


async def test_environments_are_changed_and_found(fleet: Fleet) -> None:
    await fleet.data("POST", "/api/envs", env("e1", labels={"team": "a"}), status=201)
    await fleet.data("POST", "/api/envs", env("e2"), status=201)
    change = {"lifetime": 60, "owner": "bob", "labels": {"team": "b"}, "on_expiry": "stop"}
    changed = await fleet.data("PATCH", "/api/envs/e1", change)
    assert (changed["env"]["owner"], changed["env"]["labels"], changed["env"]["on_expiry"]) == (
        "bob", {"team": "b"}, "stop",
    )  # fmt: skip
    assert 55 <= changed["env"]["expires_at"] - changed["env"]["created_at"] <= 65
    await fleet.refused(422, "PATCH", "/api/envs/e1", {"unknown": 1})
    await fleet.refused(404, "PATCH", "/api/envs/e9", {})
    assert [each["id"] for each in await fleet.data("GET", "/api/envs?owner=bob&label=team%3Db")] == ["e1"]
    async with fleet.controller.client.get(f"{fleet.controller.url}/api/envs?limit=1") as answer:
        assert [each["id"] for each in (await answer.json())["data"]] == ["e1"]
        following = answer.headers["link"].partition(">")[0].removeprefix("<")
    assert [each["id"] for each in await fleet.data("GET", f"/api/envs{following}")] == ["e2"]


async def test_one_machine_can_be_stopped_started_paused_and_deleted(fleet: Fleet) -> None:
    made = await fleet.data("POST", "/api/envs", env("e1", VM, VM), status=201)
    first, second = made["env"]["vm_ids"]
    for word, state in (("pause", "paused"), ("start", "running"), ("stop", "stopped")):
        assert (await fleet.data("POST", f"/api/vms/{first}/{word}"))["state"] == state
        assert (await fleet.data("GET", f"/api/vms/{first}"))["state"] == state
    assert (await fleet.refused(409, "POST", f"/api/vms/{first}/pause"))["code"] == "illegal_state"
    await fleet.refused(404, "POST", "/api/vms/none/stop")
    assert [each["id"] for each in await fleet.data("GET", "/api/vms")] == sorted([first, second])
    await fleet.data("DELETE", f"/api/vms/{first}")
    await fleet.data("DELETE", f"/api/vms/{first}")
    assert (await fleet.data("GET", "/api/envs/e1"))["env"]["vm_ids"] == [second]


async def test_commands_files_logs_and_snapshots_reach_into_a_machine(fleet: Fleet) -> None:
    made = await fleet.data("POST", "/api/envs", env("e1", VM), status=201)
    path = f"/api/vms/{made['env']['vm_ids'][0]}"
    url = f"{fleet.controller.url}{path}"
    client = fleet.controller.client
    stdin = base64.b64encode(b"given").decode()
    async with client.post(f"{url}/exec", json={"command": "cat; echo err >&2; exit 4", "stdin": stdin}) as answer:
        assert (answer.status, answer.content_type) == (200, "application/x-ndjson")
        lines = [json.loads(line) for line in (await answer.text()).splitlines()]
    assert lines[-1] == {"stream": "exit", "exit_code": 4}
    assert {line["stream"]: base64.b64decode(line["data"]) for line in lines[:-1]} == {
        "stdout": b"given", "stderr": b"err\n",
    }  # fmt: skip
    assert (await fleet.refused(400, "POST", f"{path}/exec", {}))["code"] == "invalid_command"
    async with client.put(f"{url}/files?path=/srv/f", data=b"content") as answer:
        assert (await answer.json()) == {"ok": True, "data": {"bytes": 7}}
    async with client.get(f"{url}/files?path=/srv/f") as answer:
        assert await answer.read() == b"content"
    (entry,) = await fleet.data("GET", f"{path}/files/list?path=/srv")
    assert (entry["name"], entry["size"], entry["is_dir"]) == ("f", 7, False)
    async with client.get(f"{url}/files?path=/srv&tar=1") as answer:
        packed = await answer.read()
        assert answer.content_type == "application/x-tar"
    async with client.put(f"{url}/files?path=/again&tar=1", data=packed) as answer:
        assert answer.status == 200
    async with client.get(f"{url}/files?path=/again/f") as answer:
        assert await answer.read() == b"content"
    assert (await fleet.refused(404, "GET", f"{path}/files?path=/none"))["code"] == "file_not_found"
    async with client.get(f"{url}/logs") as answer:
        assert (await answer.text()).startswith("booted ")
    assert await fleet.data("GET", f"{path}/stats") == {"processes": 1, "memory_bytes": 4096}
    taken = await fleet.data("POST", f"{path}/snapshots", {"name": "s1"}, status=201)
    assert await fleet.data("GET", f"{path}/snapshots") == [taken]
    async with client.put(f"{url}/files?path=/srv/f", data=b"other") as answer:
        assert answer.status == 200
    assert (await fleet.data("POST", f"{path}/snapshots/s1/restore"))["state"] == "running"
    async with client.get(f"{url}/files?path=/srv/f") as answer:
        assert await answer.read() == b"content"
    await fleet.data("DELETE", f"{path}/snapshots/s1")
    refused = await fleet.refused(404, "POST", f"{path}/snapshots/s1/restore")
    assert "on h1" in refused["error"]
    await fleet.data("POST", f"{path}/stop")
    refused = await fleet.refused(409, "POST", f"{path}/exec", {"argv": ["true"]})
    assert refused["code"] == "vm_not_running"


async def test_keys_are_in_the_machine(fleet: Fleet) -> None:
    made = await fleet.data("POST", "/api/envs", env("e1", {**VM, "ssh_keys": ["ssh-rsa BBBB b"]}), status=201)
    url = f"{fleet.controller.url}/api/vms/{made['env']['vm_ids'][0]}/files?path=/root/.ssh/authorized_keys"
    async with fleet.controller.client.get(url) as answer:
        assert await answer.text() == f"{KEY}\nssh-rsa BBBB b\n"


async def test_hosts_are_cordoned_labelled_and_drained(fleet: Fleet) -> None:
    made = await fleet.data("POST", "/api/envs", env("e1", VM), status=201)
    assert (await fleet.data("POST", "/api/hosts/h1/cordon"))["cordoned"] is True
    assert "cordoned" in (await fleet.refused(422, "POST", "/api/envs", env("e2", VM)))["reason"]
    drained = await fleet.data("POST", "/api/hosts/h1/drain")
    assert drained["host"]["draining"] is True
    assert [vm["id"] for vm in drained["vms"]] == made["env"]["vm_ids"]
    assert (await fleet.data("POST", "/api/hosts/h1/uncordon"))["draining"] is False
    await fleet.data("PUT", "/api/hosts/h1/labels", {"labels": {"disk": "fast"}})
    slow = env("e3", VM, placing={"labels": {"disk": "slow"}})
    assert "disk=slow" in (await fleet.refused(422, "POST", "/api/envs", slow))["reason"]
    fast = env("e4", VM, placing={"labels": {"disk": "fast"}, "spread": "spread"})
    await fleet.data("POST", "/api/envs", fast, status=201)
    assert (await fleet.refused(409, "POST", "/api/hosts/h1/detach"))["code"] == "host_online"
    await fleet.refused(404, "POST", "/api/hosts/h9/cordon")


async def test_events_tell_what_happens_and_can_be_resumed(fleet: Fleet) -> None:
    await fleet.data("POST", "/api/envs", env("e1", VM), status=201)
    told = await fleet.data("GET", "/api/events?env=e1")
    assert [event["type"] for event in told][:2] == ["vm.planned", "env.created"]
    assert told[0]["subjects"]["host_id"] == "h1"
    after = (await fleet.data("GET", "/api/events?limit=1000"))[-1]["id"]
    headers = {"accept": "text/event-stream", "last-event-id": after}
    async with fleet.controller.client.get(f"{fleet.controller.url}/api/events", headers=headers) as stream:
        assert stream.content_type == "text/event-stream"
        await fleet.data("DELETE", "/api/envs/e1")
        seen: list[str] = []
        async with asyncio.timeout(60):
            async for line in stream.content:
                if line.startswith(b"data: "):
                    seen.append(json.loads(line.removeprefix(b"data: "))["type"])
                if "env.removed" in seen:
                    break
    assert seen[0] == "env.deleting"
    assert "vm.removed" in seen
    await fleet.refused(400, "GET", "/api/events?after=x")


async def test_metrics_are_read_by_machines(fleet: Fleet) -> None:
    async with fleet.controller.client.get(f"{fleet.controller.url}/metrics") as answer:
        text = await answer.text()
    assert "borough_fleet_hosts_online 1\n" in text
    async with fleet.controller.client.get(f"http://{fleet.host.addr}/metrics") as answer:
        assert "borough_host_cpus 8\n" in await answer.text()


async def test_strict_answers_have_nothing_that_the_reference_does_not_have(tmp_path: Path) -> None:
    async with (
        running_host(settings_of_host(tmp_path / "h1", host_id="h1", strict=True)) as host,
        running_controller(settings_of_controller(tmp_path, strict=True)) as controller,
    ):
        fleet = Fleet(controller, host)
        registered = await fleet.data("POST", "/api/hosts", {"addr": host.addr}, status=201)
        assert list(registered) == STRICT_HOST
        assert registered["engines"] == []
        info = (await controller.ask("GET", "/api/hosts"))[1]["data"][0]
        assert list(info) == STRICT_HOST
        async with controller.client.get(f"http://{host.addr}/api/info") as answer:
            assert list((await answer.json())["data"]) == ["host_id", "resource", "engines", "storage", "images"]
        refused = await fleet.refused(422, "POST", "/api/envs", env("e1", VM))
        assert list(refused) == ["ok", "error"]
        made = await fleet.data("POST", "/api/envs", env("e2"), status=201)
        assert list(made) == ["env", "vms"]
        assert list(made["env"]) == STRICT_ENV
        order = {"vm_id": "1b9d6bcd-bbf", "env_id": "e", "deny_outgoing": False, "ports": [80], **VM}
        async with controller.client.post(f"http://{host.addr}/api/vms", json=order) as answer:
            assert answer.status == 201
            vm = (await answer.json())["data"]["vm"]
            assert list(vm) == STRICT_VM
            assert vm["engine"] == "docker"
        async with controller.client.post(f"http://{host.addr}/api/vms", json={**order, "mem": 65}) as answer:
            assert (answer.status, list(await answer.json())) == (500, ["ok", "error"])
        for word in ("stop", "start"):
            async with controller.client.post(f"http://{host.addr}/api/vms/1b9d6bcd-bbf/{word}") as answer:
                assert (answer.status, await answer.json()) == (200, {"ok": True})
        async with controller.client.delete(f"http://{host.addr}/api/vms/1b9d6bcd-bbf") as answer:
            assert (answer.status, await answer.json()) == (200, {"ok": True})
