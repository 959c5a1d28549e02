"""Machines of real engines from images that were made from recipes, by the programs as a person runs them.

One host daemon offers QEMU, Docker and bubblewrap. A guest of QEMU is reached over SSH through its published port with
a key of a person, keeps its disk over a stop, and leaves nothing when it is deleted.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need
from tests.contracts.engine_kit import dockerd, import_image
from tests.e2e.fleet_programs import KEY, Api, free_port, host_program, program
from tests.services.spaces import own_network

IMAGES = ("local-vm", "local-root")
HAS_DOCKER = os.geteuid() == 0 and shutil.which("dockerd") is not None
SSH_WITHIN_S = 60.0
"""For a guest that is translated on a machine that has much else to do."""


@dataclass
class Fleet:
    """A controller and its one host, which is spoken to by ``tt``."""

    home: Path
    controller: Api
    host: Api
    host_folder: Path

    def tt(self, *words: str, code: int = 0) -> str:
        done = self.run(*words)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TT_", "TINYTOWN"))}
        env = {**kept, "HOME": str(self.home), "USER": "alice", "TT_API_KEY": KEY}
        argv = [sys.executable, "-m", "borough.cli.tt", "-s", self.controller.address, *words]
        return subprocess.run(argv, env=env, cwd=self.home, capture_output=True, text=True, check=False)


def make_images(folder: Path) -> None:
    """Make the local images as a person does on a host."""
    for name in IMAGES:
        argv = [sys.executable, "-m", "borough.cli.tt", "image", "create", name, "--image-dir", str(folder / "images")]
        made = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        assert f"[image] {name} is made" in made.stderr


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    for tool in ("qemu-system-x86_64", "qemu-img", "apt-get", "cpio", "mke2fs", "ssh", "ssh-keygen", "busybox"):
        need(shutil.which(tool), tool, "apt-get install qemu-system-x86 qemu-utils cpio openssh-client busybox-static")
    folder = tmp_path_factory.mktemp("engines")
    home = folder / "home"
    home.mkdir()
    make_images(folder / "host")
    with ExitStack() as stack:
        socket = folder / "docker.sock"
        if HAS_DOCKER:
            stack.enter_context(own_network())
            stack.enter_context(dockerd(folder / "docker", socket))
            import_image(folder / "docker", socket)
        stack.enter_context(environment("DOCKER_HOST", f"unix://{socket}"))
        controller = stack.enter_context(
            program("borough.cli.tt_ctl", free_port(), folder, "--data-dir", str(folder / "ctl"))
        )
        host = stack.enter_context(host_program(free_port(), folder / "host", "h1"))
        made = Fleet(home, Api(controller.address), Api(host.address), folder / "host")
        made.controller.data("POST", "/api/hosts", {"addr": host.address}, status=201)
        yield made


def eventually(what: str, within_s: float, holds: Any) -> Any:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        found = holds()
        if found:
            return found
        time.sleep(0.1)
    pytest.fail(f"{what}: not within {within_s:g} s")


def test_every_engine_that_is_here_is_offered_and_why_the_others_are_not(fleet: Fleet) -> None:
    wanted = {"qemu", "bubblewrap"} | ({"docker"} if HAS_DOCKER else set())
    eventually("offered", 60.0, lambda: wanted <= set(fleet.host.data("GET", "/api/info")["engines"]))
    report = fleet.host.data("GET", "/api/info")
    [qemu] = [offer for offer in report["offers"] if offer["engine"] == "qemu"]
    assert "exec" in qemu["capabilities"]
    told = [warning for warning in report["warnings"] if warning.startswith("engine=")]
    assert {warning.split()[0].removeprefix("engine=") for warning in told} == {
        "qemu", "docker", "bubblewrap", "firecracker"
    } - set(report["engines"])  # fmt: skip
    kept = json.loads((fleet.host_folder / "data" / "qemu" / "acceleration.json").read_text())
    assert kept["found"]["name"] in ("kvm", "tcg")
    order = {
        "vm_id": "00000000-001", "env_id": "e", "image": "local-vm", "engine": "bhyve", "cpu": 1, "mem": 64,
        "disk": 100, "ports": [], "deny_outgoing": False,
    }  # fmt: skip
    status, refused = fleet.host.ask("POST", "/api/vms", order)
    assert (status, refused["code"]) == (422, "engine_missing")
    eventually("heard", 30.0, lambda: "qemu" in fleet.tt("host", "show", "h1"))


def test_a_guest_is_reached_by_key_keeps_its_disk_and_leaves_nothing(fleet: Fleet) -> None:
    eventually("heard", 60.0, lambda: "qemu" in fleet.controller.data("GET", "/api/hosts/h1")["engines"])
    key = fleet.home / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "alice", "-f", key], check=True)
    asked = ("--cpu", "1", "--mem", "160", "--disk", "200", "--ssh-key", f"{key}.pub")
    fleet.tt("env", "create", "lab", "-i", "local-vm", *asked)
    [vm] = json.loads(fleet.tt("vm", "list", "--env", "lab", "--json"))["vms"]
    assert (vm["engine"], vm["state"]) == ("qemu", "running")
    port = vm["port_map"]["22"]
    assert ssh(key, port, "hostname; echo kept >/root/kept; sync") == vm["id"]
    assert fleet.tt("exec", vm["id"], "--", "cat", "/root/kept") == "kept\n"
    assert fleet.tt("env", "stop", "lab") == "stopped environment lab\n"
    assert not qemu_processes(vm["id"])
    fleet.tt("env", "start", "lab")
    assert ssh(key, port, "cat /root/kept") == "kept"
    assert qemu_processes(vm["id"])
    fleet.tt("env", "delete", "lab")
    assert not qemu_processes(vm["id"])
    left = [*(fleet.host_folder / "runtime").glob("clone-*"), *(fleet.host_folder / "data/qemu/machines").iterdir()]
    assert left == []
    assert fleet.host.data("GET", "/api/vms") == []


def ssh(key: Path, port: int, command: str) -> str:
    """Run a command in the guest, as soon as it answers."""
    argv = [
        "ssh", "-i", str(key), "-p", str(port), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
        "-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=5", "root@127.0.0.1",
        command,
    ]  # fmt: skip

    def answered() -> list[str]:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return [done.stdout.strip()] if done.returncode == 0 else []

    [said] = eventually("ssh", SSH_WITHIN_S, answered)
    return str(said)


def qemu_processes(vm_id: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes()
        except OSError:
            continue  # it has ended meanwhile
        if line.startswith(b"qemu-system") and vm_id.encode() in line:
            found.append(entry.parent.name)
    return found


@pytest.mark.parametrize(("engine", "image"), [("bubblewrap", "local-root"), ("docker", "tiny")])
def test_the_same_daemon_makes_machines_of_other_engines(fleet: Fleet, engine: str, image: str) -> None:
    if engine == "docker":
        need(HAS_DOCKER, "dockerd", "apt-get install docker.io, as root")
    eventually("heard", 60.0, lambda: engine in fleet.controller.data("GET", "/api/hosts/h1")["engines"])
    asked = ("--engine", engine, "--cpu", "1", "--mem", "64", "--disk", "100")
    fleet.tt("env", "create", engine, "-i", image, *asked)
    [vm] = json.loads(fleet.tt("vm", "list", "--env", engine, "--json"))["vms"]
    assert fleet.tt("exec", vm["id"], "--", "sh", "-c", "echo from inside") == "from inside\n"
    fleet.tt("env", "delete", engine)
    assert fleet.host.data("GET", "/api/vms") == []
