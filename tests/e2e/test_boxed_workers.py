"""Workers of ``borough up`` in boxes, as its users see them; those of a town alone, and of a server that was killed."""

import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from borough.adapters import procfs
from borough.adapters.process import OWNER, Marker
from tests.e2e.conftest import RunningTown, run_tool, start_town, stop_town, until

LOOKS = (
    '#!/bin/sh\ncat > asked\ncat .tt/operator.token\necho "read: $?"\necho made > made\n'
    'tt task complete "$TINYTOWN_TASK_ID" --result "by way of tt"\n'
)


@pytest.fixture(scope="module")
def town() -> Iterator[RunningTown]:
    with tempfile.TemporaryDirectory(prefix="bx") as folder:
        root = Path(folder).resolve() / "t"
        root.mkdir()
        (root / "looks").write_text(LOOKS)
        (root / "looks").chmod(0o755)
        running = start_town(root, governed=True)
        yield running
        assert stop_town(running) == 0


def spawned(town: RunningTown, name: str, cli: str) -> dict[str, Any]:
    """Start an agent and return it as the status has it once its worker has reported."""
    town.ok("POST", "/v1/agents", {"name": name, "cli": cli})
    return until(lambda: (agent := shown(town, name))["pid"] and agent)


def shown(town: RunningTown, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in town.ok("GET", "/v1/status")["agents"] if each["name"] == name)
    return found


def test_a_worker_starts_in_a_box_and_the_status_says_so(town: RunningTown) -> None:
    agent = spawned(town, "ada", str(town.root / "looks"))
    assert (agent["boxed"], agent["not_boxed_because"]) == (True, None)
    assert town.ok("GET", "/v1/agents/ada")["boxed"] is True
    task = town.ok("POST", "/v1/tasks/assign", {"agent": "ada", "task": "look around"})["task_id"]
    done = until(lambda: (now := town.ok("GET", f"/v1/tasks/{task}"))["state"] == "completed" and now)
    assert done["result"] == "by way of tt"
    log = town.request("GET", f"/v1/tasks/{task}/log").body.decode()
    assert (town.token in log, "read: 1" in log) == (False, True)
    assert (town.root / "made").read_text() == "made\n"
    assert town.token in (town.root / ".tt/operator.token").read_text(), "outside it can be read"
    told = town.tt("status").stdout
    assert "1 of 1 workers on the server's machine" in told
    assert "not in a box" not in told
    town.ok("POST", "/v1/agents/ada/kill")
    assert shown(town, "ada")["boxed"] is None, "it has no worker any more"


def test_doctor_says_that_workers_get_boxes(town: RunningTown) -> None:
    told = run_tool("borough.cli.borough", "doctor", cwd=town.root, environ=town.environ, check=False).stdout
    (line,) = [line for line in told.splitlines() if "boxes of workers" in line]
    assert "can be made" in line


def test_a_boxed_worker_outlives_a_server_that_is_killed_and_is_known_to_the_next(tmp_path: Path) -> None:
    ticks = f"{sys.executable} -u -c \"import time\nwhile True: print('tick'); time.sleep(0.1)\""
    town = start_town(tmp_path, environ={"BOROUGH_WORKER_BOX": "require"})
    try:
        agent = spawned(town, "steady", ticks)
        task = town.ok("POST", "/v1/tasks/assign", {"agent": "steady", "task": "go on"})["task_id"]
        until(lambda: town.ok("GET", f"/v1/tasks/{task}")["state"] == "running")
        town.process.send_signal(signal.SIGKILL)
        town.process.wait()
        assert procfs.identify(agent["pid"]) is not None
        town = start_town(tmp_path, environ={"BOROUGH_WORKER_BOX": "require"}, port=int(town.url.rpartition(":")[2]))
        again = until(lambda: (now := shown(town, "steady"))["live"] and now)
        assert (again["pid"], again["incarnation"], again["boxed"]) == (agent["pid"], agent["incarnation"], True)
        assert town.ok("GET", f"/v1/tasks/{task}")["state"] == "running"
        town.tt("kill", "steady")
        assert procfs.owned(Marker(OWNER, f"{agent['id']}:")) == []
        assert not (tmp_path / ".tt/agents" / agent["id"]).exists()
    finally:
        stop_town(town)


def test_a_town_alone_starts_its_workers_plain_and_says_why(tmp_path: Path) -> None:
    town = start_town(tmp_path)
    try:
        agent = spawned(town, "bob", "cat")
        assert agent["boxed"] is False
        told = town.tt("status").stdout
        assert "0 of 1 workers on the server's machine" in told
        assert "not in a box: bob: townhall governs nothing; borough up starts workers in boxes" in told
        namespace = Path(f"/proc/{agent['pid']}/ns/mnt").readlink()
        assert namespace == Path("/proc/self/ns/mnt").readlink()
    finally:
        stop_town(town)


def test_a_wrong_word_in_the_environment_stops_the_start(tmp_path: Path) -> None:
    run_tool("borough.cli.tt", "init", "--name", "wrong", cwd=tmp_path)
    refused = run_tool(
        "borough.cli.townhall",
        "rest",
        "--port",
        "0",
        cwd=tmp_path,
        environ={"BOROUGH_WORKER_BOX": "maybe"},
        check=False,
    )
    assert refused.returncode == 1
    assert "auto, require, off" in refused.stderr
