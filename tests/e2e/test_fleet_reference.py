"""The reference page of the fleet, replayed against running programs: every route, example, field and default."""

import json
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fleet_programs import Api, free_port, host_program, program, root_folder

ENGINE = "bubblewrap"
PAGE_BODY = """{
    "id": "my-env",
    "owner": "alice",
    "ssh_keys": ["ssh-ed25519 AAAA... alice@laptop"],
    "vms": [
      {
        "image": "alpine-cloud",
        "engine": "%s",
        "cpu": 2,
        "mem": 2048,
        "disk": 40960,
        "ports": [80],
        "deny_outgoing": false
      }
    ],
    "lifetime": 21600
  }"""
"""The page's own; only the engine is another, so that it runs on every machine."""
ENV = ["id", "owner", "vm_ids", "created_at", "expires_at", "state"]
VM = ["id", "env_id", "host_id", "image", "engine", "cpu", "mem", "disk", "ip", "port_map", "state", "created_at"]
HOST = ["id", "addr", "resource", "state", "engines", "storage", "registered_at"]
RESOURCE = ["cpu_total", "cpu_used", "mem_total", "mem_used", "disk_total", "disk_used", "vm_count"]
STATUS = [
    *("hosts", "hosts_online", "total_vms", "total_envs", "cpu_total", "cpu_used"),
    *("mem_total", "mem_used", "disk_total", "disk_used"),
]


@dataclass
class Fleet:
    controller: Api
    host: Api
    folder: Path


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    root_folder(folder / "host" / "images" / "alpine-cloud")
    with (
        program("borough.cli.tt_ctl", free_port(), folder, "--data-dir", str(folder / "ctl")) as controller,
        host_program(free_port(), folder / "host", "h1") as host,
    ):
        yield Fleet(Api(controller.address), Api(host.address), folder)


def test_the_page_from_its_first_example_to_its_last(fleet: Fleet) -> None:
    ask, host = fleet.controller, fleet.host
    added = ask.data("POST", "/api/hosts", {"addr": host.address}, status=201)
    assert list(added)[:7] == HOST
    assert (added["id"], added["state"], added["storage"], added["addr"]) == ("h1", "online", "file", host.address)
    assert ENGINE in added["engines"]

    made = ask.data("POST", "/api/envs", PAGE_BODY % ENGINE, status=201)
    assert list(made["env"])[:6] == ENV
    assert (made["env"]["owner"], made["env"]["state"]) == ("alice", "active")
    assert made["env"]["expires_at"] - made["env"]["created_at"] == 21_600
    (vm,) = made["vms"]
    assert list(vm)[:12] == VM
    assert re.fullmatch("[0-9a-f]{8}-[0-9a-f]{3}", vm["id"])
    assert (vm["cpu"], vm["mem"], vm["disk"], vm["state"]) == (2, 2048, 40_960, "running")
    assert list(vm["port_map"]) == ["22", "80"], "port 22 is always included"

    status = ask.data("GET", "/api/status")
    assert list(status) == STATUS
    assert [status[name] for name in STATUS[:4]] == [1, 1, 1, 1]
    assert (status["cpu_used"], status["mem_used"], status["disk_used"]) == (2, 2048, 40_960)

    _controller_routes(ask, vm)
    _host_routes(host, vm)

    assert ask.ask("DELETE", "/api/envs/my-env") == (200, {"ok": True})
    assert ask.ask("GET", "/api/envs/my-env")[0] == 404
    assert host.data("GET", "/api/vms") == []
    assert ask.ask("DELETE", "/api/hosts/h1") == (200, {"ok": True})
    assert ask.data("GET", "/api/hosts") == []
    assert not list((fleet.folder / "host" / "runtime").glob("clone-*"))


def _controller_routes(ask: Api, vm: dict[str, Any]) -> None:
    assert [each["id"] for each in ask.data("GET", "/api/hosts")] == ["h1"]
    found = ask.data("GET", "/api/hosts/h1")
    assert list(found["resource"]) == RESOURCE
    assert found["resource"]["vm_count"] == 1
    assert [each["id"] for each in ask.data("GET", "/api/envs")] == ["my-env"]
    detail = ask.data("GET", "/api/envs/my-env")
    assert detail["vms"] == [vm]
    assert detail["env"]["vm_ids"] == [vm["id"]]
    assert ask.data("GET", f"/api/vms/{vm['id']}") == vm
    assert [(each["name"], each["host_id"]) for each in ask.data("GET", "/api/images")] == [("alpine-cloud", "h1")]
    assert ask.ask("DELETE", "/api/hosts/h1")[0] == 409, "it has machines"
    assert ask.ask("POST", "/api/envs", PAGE_BODY % ENGINE)[0] == 409, "the name is taken"
    assert ask.ask("POST", "/api/envs/my-env/stop") == (200, {"ok": True})
    stopped = ask.data("GET", "/api/envs/my-env")
    assert stopped["env"]["state"] == "stopped", stopped
    assert ask.ask("POST", "/api/envs/my-env/start") == (200, {"ok": True})
    assert ask.data("GET", f"/api/vms/{vm['id']}")["state"] == "running"


def _host_routes(host: Api, vm: dict[str, Any]) -> None:
    info = host.data("GET", "/api/info")
    assert list(info)[:5] == ["host_id", "resource", "engines", "storage", "images"]
    assert (info["host_id"], info["storage"]) == ("h1", "file")
    assert "alpine-cloud" in json.dumps(host.data("GET", "/api/images"))
    assert [each["id"] for each in host.data("GET", "/api/vms")] == [vm["id"]]
    assert host.data("GET", f"/api/vms/{vm['id']}")["ip"] == vm["ip"]
    order = {
        "vm_id": "0a1b2c3d-4e5", "env_id": "by-hand", "image": "alpine-cloud", "engine": ENGINE, "cpu": 1, "mem": 64,
        "disk": 100, "ports": [8080], "deny_outgoing": False,
    }  # fmt: skip
    made = host.data("POST", "/api/vms", order, status=201)["vm"]
    assert (made["id"], list(made["port_map"]), made["state"]) == ("0a1b2c3d-4e5", ["22", "8080"], "running")
    for verb in ("stop", "start"):
        assert host.ask("POST", f"/api/vms/{made['id']}/{verb}")[0] == 200
    assert host.ask("DELETE", f"/api/vms/{made['id']}")[0] == 200
    assert host.ask("GET", f"/api/vms/{made['id']}")[0] == 404


@pytest.mark.parametrize("which", ["controller", "host"])
def test_everything_under_api_needs_the_key_and_the_dashboard_none(fleet: Fleet, which: str) -> None:
    stranger = Api(getattr(fleet, which).address, key=None)
    wrong = Api(stranger.address, key="another")
    paths = ["/api/status", "/api/hosts", "/api/envs", "/api/images", "/api/info", "/api/vms", "/api/nothing"]
    for asking in (stranger, wrong):
        for path in paths:
            assert asking.ask("GET", path) == (401, {"ok": False, "error": "invalid or missing API key"})
    if which == "controller":
        status, page = stranger.ask("GET", "/")
        assert (status, "<html" in page) == (200, True)


def test_defaults_are_those_of_the_tables(fleet: Fleet) -> None:
    ask = fleet.controller
    ask.data("POST", "/api/hosts", {"addr": fleet.host.address}, status=201)
    bare = {"id": "bare", "ssh_keys": [], "vms": [{"image": "alpine-cloud", "engine": ENGINE}]}
    made = ask.data("POST", "/api/envs", bare, status=201)
    (vm,) = made["vms"]
    assert (vm["cpu"], vm["mem"], vm["disk"], list(vm["port_map"])) == (2, 1024, 40_960, ["22"])
    assert made["env"]["owner"] == ""
    assert made["env"]["expires_at"] - made["env"]["created_at"] == 21_600
    refused = ask.ask("POST", "/api/envs", {"id": "q", "ssh_keys": [], "vms": [{"image": "alpine-cloud"}]})
    # Where there is no QEMU none can take it; where there is, it does not start from a root folder.
    assert refused[0] in (422, 502), refused
    assert "qemu" in refused[1]["error"].lower(), "the default engine is qemu"
    assert ask.ask("GET", "/api/envs/q")[0] == 404
    for name in ("id", "ssh_keys", "vms"):
        lacking = {key: value for key, value in {**bare, "id": "other"}.items() if key != name}
        assert ask.ask("POST", "/api/envs", lacking)[0] == 422, f"{name} is required"
    assert ask.ask("DELETE", "/api/envs/bare") == (200, {"ok": True})
    assert ask.ask("DELETE", "/api/hosts/h1") == (200, {"ok": True})


def test_a_service_answers_at_its_published_port(fleet: Fleet) -> None:
    ask = fleet.controller
    ask.data("POST", "/api/hosts", {"addr": fleet.host.address}, status=201)
    serve = ["sh", "-c", "while true; do echo hello | nc -l -p 80; done"]
    vm = {"image": "alpine-cloud", "engine": ENGINE, "cpu": 1, "mem": 64, "disk": 100, "ports": [80], "command": serve}
    made = ask.data("POST", "/api/envs", {"id": "web", "ssh_keys": [], "vms": [vm]}, status=201)
    assert said(made["vms"][0]["port_map"]["80"]) == b"hello\n"
    assert ask.ask("DELETE", "/api/envs/web") == (200, {"ok": True})
    assert ask.ask("DELETE", "/api/hosts/h1") == (200, {"ok": True})


def said(port: int, *, within_s: float = 15.0) -> bytes:
    """Return what comes from a port, once something does."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                if heard := connection.recv(100):
                    return heard
        except OSError:
            time.sleep(0.05)
    pytest.fail(f"nothing answers at port {port}")
