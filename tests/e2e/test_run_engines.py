"""Runs in containers and virtual machines, as in boxes: worked inside, governed from inside, collected, removed."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import borough
from tests.conftest import need
from tests.contracts.engine_kit import dockerd, root_folder
from tests.e2e.conftest import RunningTown, until
from tests.e2e.test_borough_up_fleet import data, up
from tests.e2e.test_engines_and_images import qemu_processes
from tests.e2e.test_runs import begun, comes_to, log_of, shown
from tests.services.spaces import own_network

DOCKER: dict[str, Any] = {"engine": "docker", "image": "python", "memory_mib": 128}
QEMU: dict[str, Any] = {"engine": "qemu", "image": "local-vm", "memory_mib": 192, "disk_mib": 200}
PYTHON = Path("/usr/bin/python3")
TOLD = """\
at=${http_proxy#http://}; at=${at%/}
said='{}'
printf 'POST %s/agents/%s/tools/agent.info HTTP/1.1\\r\\nHost: borough.internal\\r\\nAuthorization: Bearer %s\\r\\n'\
'Content-Type: application/json\\r\\nContent-Length: %s\\r\\nConnection: close\\r\\n\\r\\n%s' \
  "$BOROUGH_URL" "$SCARAB_AGENT_ID" "$BOROUGH_KEY" "${#said}" "$said" | nc -w 20 "${at%:*}" "${at#*:}" | tail -n 1
"""
"""Calls a governed tool with nothing but busybox, whose wget posts nothing through a proxy."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images as a person makes them on a host."""
    for tool in ("qemu-system-x86_64", "qemu-img", "apt-get", "cpio", "mke2fs", "ssh", "ssh-keygen", "busybox"):
        need(shutil.which(tool), tool, "apt-get install qemu-system-x86 qemu-utils cpio openssh-client busybox-static")
    folder = tmp_path_factory.mktemp("images")
    for name in ("local-vm", "local-root"):
        argv = ["-m", "borough.cli.tt", "image", "create", name, "--image-dir", str(folder)]
        subprocess.run([sys.executable, *argv], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def town(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTown]:
    """A town that may change its network, in a namespace of its own, beside a container runtime of the test's own."""
    need(os.geteuid() == 0, "the right to make network namespaces", "run the tests as root")
    need(shutil.which("dockerd"), "dockerd", "apt-get install docker.io")
    need(shutil.which("nft"), "nft", "apt-get install nftables")
    folder = tmp_path_factory.mktemp("engines")
    socket = folder / "docker.sock"
    with ExitStack() as stack:
        stack.enter_context(own_network())
        stack.enter_context(dockerd(folder / "docker", socket))
        import_python(folder, socket)
        words = ("--change-network", "--image-dir", str(images))
        running = stack.enter_context(up(*words, DOCKER_HOST=f"unix://{socket}"))
        offered(running, "docker", "qemu")
        yield running


def offered(town: RunningTown, *engines: str) -> None:
    """Return when the host has found out that it has these."""
    until(lambda: town.request("GET", "/api/status").status == 200)
    until(lambda: set(engines) <= set(data(town, "/api/hosts")[0]["engines"]), within_s=120)


def import_python(folder: Path, socket: Path) -> None:
    """Give a container runtime an image with this machine's own Python."""
    need(PYTHON.exists(), "a Python of the system", "apt-get install python3")
    root = root_folder(folder / "root")
    library = subprocess.run(
        [PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"], check=True, capture_output=True,
        text=True,
    ).stdout.strip()  # fmt: skip
    linked = subprocess.run(["ldd", PYTHON], check=True, capture_output=True, text=True).stdout
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", dereference=True) as archive:
        archive.add(PYTHON, arcname="usr/bin/python3")
        for path in re.findall(r"(/\S+)", linked):
            archive.add(path, arcname=path.lstrip("/"))
        archive.add(library, arcname=library.lstrip("/"), filter=_wanted)
        archive.dereference = False  # of busybox's many names, one is the program
        archive.add(root, arcname=".")
    subprocess.run(
        ["docker", "-H", f"unix://{socket}", "import", "--change", 'CMD ["sh"]', "-", "python"],
        input=packed.getvalue(), check=True, capture_output=True,
    )  # fmt: skip


def _wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    unwanted = {"__pycache__", "test", "lib2to3", "idlelib", "ensurepip", "dist-packages", "tkinter", "pydoc_data"}
    return None if unwanted & set(entry.name.split("/")) else entry


def nothing_left(town: RunningTown, run: dict[str, Any]) -> None:
    """Prove that a run's machine is gone, whatever its engine."""
    done = until(lambda: (now := shown(town, run))["machine"]["state"] == "gone" and now)
    vm_id = done["machine"]["vm_id"]
    assert vm_id not in [vm["id"] for vm in data(town, "/api/vms")]
    assert qemu_processes(vm_id) == []
    socket = town.environ.get("DOCKER_HOST")
    if socket is not None:
        names = subprocess.run(
            ["docker", "-H", socket, "ps", "-a", "--format", "{{.Names}}"], check=True, capture_output=True, text=True
        )
        assert vm_id not in names.stdout


WORK = """\
from borough.agent import Agent, Denied, ToolFailed
with Agent.from_env() as agent:
    print("task:", agent.task)
    agent.transition("plan")
    agent.plan(["look", "write"])
    agent.transition("act")
    found = agent.invoke_tool("fs.read", {"path": "/workspace/greeting"})["content"]
    agent.invoke_tool("fs.write", {"path": "/workspace/told", "content": found.upper()})
    try:
        agent.invoke_tool("fs.read", {"path": "/etc/passwd"})
    except (Denied, ToolFailed) as refused:
        print("refused:", refused.code)
    agent.finish({"said": found.strip()})
print("done", flush=True)
"""


def test_an_agent_s_own_program_works_in_a_container_through_governed_tools(town: RunningTown, tmp_path: Path) -> None:
    package = Path(borough.__file__).parent
    shutil.copytree(package / "agent", tmp_path / "borough" / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(package / "__init__.py", tmp_path / "borough")
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "greeting").write_text("good morning\n")
    source = {"kind": "folder", "path": str(tmp_path)}
    run = begun(town, "python3", "-B", "work.py", source=source, **DOCKER)
    assert (run["admission"]["engine"], run["admission"]["tools"]) == ("docker", True)
    done = comes_to(town, run, "succeeded")
    assert log_of(town, run).splitlines() == ["task: a task", "refused: denied", "done"]
    assert done["result"]["files_changed"] == [{"path": "told", "kind": "added"}]
    assert "+GOOD MORNING" in town.request("GET", f"/v1/runs/{run['id']}/patch").body.decode()
    assert done["spent"]["tool_calls"] == 2
    entries = town.ok("GET", f"/v1/runs/{run['id']}/ledger")
    assert [entry["kind"] for entry in entries if entry["action"] == "ToolInvoke"] == ["intent", "outcome"] * 2
    assert any(entry["outcome"] == "denied" for entry in entries)
    nothing_left(town, run)


@pytest.mark.parametrize("machine", [DOCKER, QEMU], ids=["docker", "qemu"])
def test_a_run_needs_no_python_inside(town: RunningTown, machine: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "greeting").write_text("good morning\n")
    script = f"cat greeting; uname -n; {TOLD}\necho; echo good night > greeting; echo forty-two > $BOROUGH_ANSWER"
    run = begun(town, "sh", "-ec", script, source={"kind": "folder", "path": str(tmp_path)}, **machine)
    assert run["admission"]["tools"]
    done = comes_to(town, run, "succeeded")
    said = log_of(town, run).splitlines()
    assert said[0] == "good morning"
    assert said[1] == done["machine"]["vm_id"]
    assert json.loads(said[2])["output"]["id"] == done["agent"]["id"], said[2]
    assert (done["result"]["answer"], done["spent"]["tool_calls"]) == ("forty-two", 1)
    assert "-good morning\n+good night\n" in town.request("GET", f"/v1/runs/{run['id']}/patch").body.decode()
    nothing_left(town, run)


@pytest.mark.parametrize("machine", [DOCKER, QEMU], ids=["docker", "qemu"])
def test_a_quarantined_machine_is_frozen_and_a_failing_command_is_told(
    town: RunningTown, machine: dict[str, Any]
) -> None:
    run = begun(town, "sh", "-c", "echo working; sleep 1000", **machine)
    comes_to(town, run, "working")
    until(lambda: log_of(town, run) == "working\n")
    town.ok("POST", "/v1/kill", {"target": run["id"], "quarantine": True, "reason": "a look into it"})
    ended = comes_to(town, run, "killed")
    env = ended["machine"]["env_id"]
    assert data(town, f"/api/vms/{ended['machine']['vm_id']}")["state"] == "paused"
    town.request("DELETE", f"/api/envs/{env}", timeout_s=60)
    assert env not in [each["id"] for each in data(town, "/api/envs")]


def test_the_floor_chooses_the_engine(town: RunningTown) -> None:
    body = {"task": "x", "command": ["true"], "image": "local-vm", "isolation": "vm", "memory_mib": 192}
    assert town.ok("POST", "/v1/runs?dry_run=1", body)["engine"] == "qemu"
    body |= {"image": "python", "isolation": "container"}
    assert town.ok("POST", "/v1/runs?dry_run=1", body)["engine"] == "docker"
