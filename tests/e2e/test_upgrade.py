"""Upgrade of a running town: today's ``borough up`` takes over what an older version left, and what still runs of it.

The older version is real: its sources are in ``tests/data`` and are run by this Python. It serves a town, is killed in
the middle of everything or told to stop, and the present version is started in its place.
"""

import json
import sqlite3
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import valkey

from tests.e2e.conftest import RunningTown, run_tool, start_town, stop_town, until
from tests.e2e.daemon import free_port, manifest
from tests.e2e.test_borough_up_fleet import SMALL, environment

OLDER = Path(__file__).parents[1] / "data" / "borough-031e914.tar.xz"
WAITS = 'import os, time\nwhile not os.path.exists("go"): time.sleep(0.1)\nprint("at last")'
PATIENT = f"{sys.executable} -c '{WAITS}'"
TICK = "2026-04-04T18:00:00Z"
COUNTS = "i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.1; done"


@dataclass
class Left:
    """What the older version did and told."""

    agent: str = ""
    lease: dict[str, Any] = field(default_factory=dict)
    waiting: str = ""
    finished: str = ""
    governed: str = ""
    key: str = ""
    vm: str = ""
    entries: list[dict[str, Any]] = field(default_factory=list)
    tables: dict[str, int] = field(default_factory=dict)


@dataclass
class Upgrade:
    """A town of the older version, and then of the present one."""

    was_killed: bool
    """Else it was told to stop."""
    town: RunningTown
    left: Left
    second: str
    """What the present version said that was started while the older one ran."""


@pytest.fixture(scope="module", params=["killed", "stopped"])
def upgrade(request: pytest.FixtureRequest) -> Iterator[Upgrade]:
    with tempfile.TemporaryDirectory(prefix="upg") as name:
        folder = Path(name).resolve()
        root = folder / "t"
        root.mkdir()
        with tarfile.open(OLDER) as packed:
            packed.extractall(folder / "older", filter="data")
        now, port = environment(root), free_port()
        then = {**now, "PYTHONPATH": str(folder / "older" / "src")}
        old = start_town(root, governed=True, environ=then, port=port, settings={"agent.lease_ms": "5000"})
        try:
            left = lived(old)
            second = run_tool("borough.cli.borough", "up", cwd=root, environ=now, check=False)
            assert second.returncode == 0
        except BaseException:
            assert ended(old) == 0
            raise
        if request.param == "killed":
            old.process.kill()
            old.process.wait()
        else:
            assert stop_town(old) == 0
        left.tables = tables(root)
        town = start_town(root, governed=True, environ=now, port=port)
        try:
            until(lambda: town.ok("GET", "/ready")["fleet"].startswith("ready"))
            yield Upgrade(was_killed=request.param == "killed", town=town, left=left, second=second.stderr)
        finally:
            assert ended(town) == 0


def ended(town: RunningTown) -> int:
    """End a town with all that it has made."""
    for env in town.ok("GET", "/api/envs")["data"]:
        town.request("DELETE", f"/api/envs/{env['id']}", timeout_s=60)
    return stop_town(town)


def lived(old: RunningTown) -> Left:
    """Let the older version do something of all that it could."""
    left = Left()
    left.finished = old.ok("POST", "/v1/backlog", {"description": "done long ago", "role": "quick"})["task_id"]
    old.ok("POST", "/v1/agents", {"name": "quick", "cli": "echo done", "role_id": "quick"})
    until(lambda: old.ok("GET", f"/v1/tasks/{left.finished}")["state"] == "completed")
    left.agent = old.ok("POST", "/v1/agents", {"name": "patient", "cli": PATIENT, "role_id": "patient"})["agent_id"]
    begun = old.ok("POST", "/v1/tasks/assign", {"agent": "patient", "task": "wait for it"})["task_id"]
    left.lease = until(lambda: (found := old.ok("GET", f"/v1/tasks/{begun}"))["state"] == "running" and found)
    left.waiting = old.ok("POST", "/v1/backlog", {"description": "for whoever comes", "role": "nobody"})["task_id"]
    left.governed = old.ok("POST", "/agents", {"manifest_yaml": manifest("keeper")})["id"]
    left.key = old.ok("POST", "/tokens", {"name": "keepers", "agent_id": left.governed, "role": "agent"})["token"]
    old.ok("POST", f"/agents/{left.governed}/tools/echo", {"n": 1})
    until(lambda: old.ok("GET", "/ready")["fleet"].startswith("ready"))
    # That version gave up where a port that it had lent was taken by another program meanwhile.
    until(lambda: old.tt("env", "create", "home", "-i", "local-root", *SMALL, check=False).returncode == 0)
    left.vm = json.loads(old.tt("vm", "list", "--env", "home", "--json").stdout)["vms"][0]["id"]
    old.tt(
        "exec",
        left.vm,
        "--",
        "sh",
        "-c",
        f"setsid sh -c '{COUNTS}' >/dev/null 2>&1 & until [ -s /tmp/count ]; do sleep 0.1; done",
    )
    with closing(valkey.Valkey(unix_socket_path=str(old.root / ".tt" / "redis.sock"))) as store:
        # Nothing makes missions yet, in neither version: such a record is what Tinytown writes.
        store.set("tt:t:mission:m1", json.dumps({"state": "running", "dispatcher_last_tick_at": TICK}))
        store.sadd("tt:t:mission:active", "m1")
    left.entries = old.ok("GET", "/audit?limit=1000")
    return left


def tables(root: Path) -> dict[str, int]:
    """Return up to which number each file's tables are."""
    files = [*root.glob(".tt/*/*.db"), *root.glob(".tt/*/*/*.db")]
    found = {}
    for file in files:
        with closing(sqlite3.connect(file)) as connection:
            found[file.name] = connection.execute("SELECT coalesce(max(number), 0) FROM migration").fetchone()[0]
    return found


def test_a_second_server_of_a_newer_version_says_what_to_do(upgrade: Upgrade) -> None:
    assert "is served already, by pid" in upgrade.second
    assert "tt stop --server" in upgrade.second


def test_every_file_s_tables_are_those_of_this_version(upgrade: Upgrade) -> None:
    now = tables(upgrade.town.root)
    assert upgrade.left.tables.keys() <= now.keys()
    assert {name: number for name, number in now.items() if number < upgrade.left.tables.get(name, 0)} == {}
    assert now["governance.db"] > upgrade.left.tables["governance.db"]
    assert now["ctl.db"] > upgrade.left.tables["ctl.db"]


def test_a_task_that_was_under_way_is_ended_in_its_first_attempt(upgrade: Upgrade) -> None:
    town, lease = upgrade.town, upgrade.left.lease
    task = f"/v1/tasks/{lease['task_id']}"
    now = until(lambda: (found := town.ok("GET", task))["state"] == "running" and found)
    if upgrade.was_killed:
        # The older version's worker goes on, under the lease that it has.
        assert (now["epoch"], now["attempts"]) == (lease["epoch"], lease["attempts"])
    else:
        # A server that stops takes its workers along, which hand back what they have: no attempt was lost by that.
        assert now["epoch"] > lease["epoch"]
        assert now["attempts"] == lease["attempts"]
    (town.root / "go").touch()
    done = until(lambda: (found := town.ok("GET", task))["state"] == "completed" and found)
    assert (done["result"].strip(), done["epoch"], done["attempts"]) == ("at last", now["epoch"], 1)
    # The next one is taken from the present version, too.
    again = town.ok("POST", "/v1/tasks/assign", {"agent": "patient", "task": "once more"})["task_id"]
    until(lambda: town.ok("GET", f"/v1/tasks/{again}")["state"] == "completed")


def test_what_was_done_and_what_waits_is_as_it_was(upgrade: Upgrade) -> None:
    town, left = upgrade.town, upgrade.left
    finished = town.ok("GET", f"/v1/tasks/{left.finished}")
    assert (finished["state"], finished["result"].strip(), finished["attempts"]) == ("completed", "done", 1)
    waiting = town.ok("GET", f"/v1/tasks/{left.waiting}")
    assert (waiting["state"], waiting["description"]) == ("pending", "for whoever comes")
    assert "tinytown_missions_active 1\n" in town.request("GET", "/metrics", token=None).body.decode()


def test_an_agent_s_manifest_and_key_hold(upgrade: Upgrade) -> None:
    town, left = upgrade.town, upgrade.left
    assert town.ok("GET", f"/agents/{left.governed}")["name"] == "keeper"
    called = town.request("POST", f"/agents/{left.governed}/tools/echo", {"n": 2}, token=left.key)
    # A server that is told to stop ends its agents, of which everything is kept; what is killed finds them again.
    wanted = (200, None) if upgrade.was_killed else (409, "agent_ended")
    assert (called.status, json.loads(called.body).get("code")) == wanted, called.body
    other = town.ok("POST", "/agents", {"manifest_yaml": manifest("other")})["id"]
    assert town.request("POST", f"/agents/{other}/tools/echo", {"n": 2}, token=left.key).status == 403


def test_a_machine_runs_on_and_is_the_fleet_s(upgrade: Upgrade) -> None:
    town, vm = upgrade.town, upgrade.left.vm

    def count() -> int:
        return int(town.tt("exec", vm, "--", "cat", "/tmp/count").stdout or 0)

    begun = count()
    until(lambda: count() > begun)
    town.tt("cp", f"{vm}:/tmp/count", "count")
    assert (town.root / "count").exists()
    (env,) = town.ok("GET", "/api/envs")["data"]
    assert (env["id"], env["state"], env["vm_ids"]) == ("home", "active", [vm])


def test_the_ledger_is_one_chain_over_both_versions(upgrade: Upgrade) -> None:
    town, left = upgrade.town, upgrade.left
    now = {entry["seq"]: entry for entry in town.ok("GET", "/audit?limit=1000")}
    assert len(left.entries) > 5
    assert [now[entry["seq"]] for entry in left.entries] == left.entries
    assert town.ok("GET", "/audit/verify")["ok"] is True
    said = run_tool("borough.cli.borough", "verify", cwd=town.root, environ=town.environ)
    assert "verified" in said.stdout
    queued = [entry["data"]["task_id"] for entry in now.values() if entry["action"] == "town.task_queued"]
    assert queued.count(left.finished) == queued.count(left.waiting) == 1


def test_what_is_new_works_on_what_is_old(upgrade: Upgrade) -> None:
    body = {"task": "a task", "command": ["echo", "here"], "image": "local-root", "memory_mib": 64, "disk_mib": 64}
    run = upgrade.town.ok("POST", "/v1/runs", body)
    done = until(lambda: (now := upgrade.town.ok("GET", f"/v1/runs/{run['id']}?wait=1"))["result"] and now)
    assert (done["state"], done["result"]["answer"]) in (("succeeded", "here"), ("collecting", "here"))
