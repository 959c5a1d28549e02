"""Pools, from nothing to some and back: a real server, real machines of bubblewrap, real workers in them.

All stories share one server; the last kills it. Its machines are this host's own programs, so whoever runs the tests
needs nothing but bubblewrap.
"""

import json
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import RunningTown, run_tool, start_town, stop_town, until
from tests.e2e.test_borough_up_fleet import environment

ROLE = "coder"
SMALL = {"memory_mib": 512, "disk_mib": 256, "quiet_s": 1}
PATIENCE_S = 90.0
"""A Python starts in every machine, and the tests of others run beside."""


@dataclass
class House:
    """A server that may be killed and started again, at one address."""

    town: RunningTown

    def ok(self, method: str, path: str, body: Any = None) -> Any:
        return self.town.ok(method, path, body)

    def set(self, **more: Any) -> Any:
        return self.ok("PUT", f"/v1/pools/{ROLE}", {"command": ["cat"], "max": 2, **SMALL, **more})

    def pool(self) -> Any:
        return self.ok("GET", f"/v1/pools/{ROLE}")

    def submit(self, count: int) -> list[str]:
        asked = [{"description": f"task {number}", "role": ROLE} for number in range(count)]
        return [self.ok("POST", "/v1/backlog", body)["task_id"] for body in asked]

    def tasks(self, ids: list[str]) -> list[Any]:
        return [self.ok("GET", f"/v1/tasks/{task}") for task in ids]

    def done(self, ids: list[str]) -> list[Any]:
        """Return the tasks when all are completed."""

        def completed() -> list[Any]:
            tasks = self.tasks(ids)
            return tasks if all(task["state"] == "completed" for task in tasks) else []

        return list(until(completed, within_s=PATIENCE_S))

    def comes_to(self, use: str, *, at_least: int = 1) -> list[Any]:
        """Return the machines of the pool that are used so, when there are that many."""

        def found() -> list[Any]:
            machines = [each for each in self.pool()["machines"] if each["use"] == use]
            return machines if len(machines) >= at_least else []

        return list(until(found, within_s=PATIENCE_S))

    def is_empty(self) -> None:
        until(lambda: not self.pool()["machines"], within_s=PATIENCE_S)
        assert self.ok("GET", "/api/envs")["data"] == []

    def gone(self, vm_ids: list[str]) -> None:
        until(
            lambda: not {each["vm_id"] for each in self.pool()["machines"]} & set(vm_ids), within_s=PATIENCE_S
        )  # fmt: skip

    def says(self, vm_id: str, script: str) -> str:
        return str(self.town.tt("exec", vm_id, "--", "sh", "-c", script).stdout)

    def kill_and_start_again(self) -> None:
        port = int(self.town.url.rpartition(":")[2])
        self.town.process.send_signal(signal.SIGKILL)
        self.town.process.wait()
        self.town = start_town(self.town.root, governed=True, environ=self.town.environ, port=port)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    # Not below pytest's own folder: the path of a socket is short.
    with tempfile.TemporaryDirectory(prefix="pools") as folder:
        root = Path(folder).resolve() / "t"
        root.mkdir()
        made = House(start_town(root, governed=True, environ=environment(root)))
        try:
            yield made
        finally:
            for env in made.ok("GET", "/api/envs")["data"]:
                made.town.request("DELETE", f"/api/envs/{env['id']}", timeout_s=60)
            assert stop_town(made.town) == 0


def test_work_brings_machines_and_their_quiet_takes_them_away(house: House) -> None:
    before = set(house.ok("GET", "/api/scaling"))
    house.set()
    assert house.pool()["machines"] == []
    tasks = house.done(house.submit(5))
    assert all("task" in task["result"] for task in tasks), "the agent's CLI got the work and answered"
    agents = {each["name"]: each for each in house.ok("GET", "/v1/agents")["agents"]}
    served = {name for name in agents if name.startswith(f"{ROLE}-")}
    assert served
    assert len(served) <= 2, "never more than max"
    house.is_empty()
    steps = list(reversed(house.pool()["steps"]))
    assert "5 waiting and 0 in hand" in steps[0]["reason"]
    assert (steps[-1]["to"], "nothing to do for 1 s" in steps[-1]["reason"]) == (0, True)
    told = house.ok("GET", "/v1/events?type=pool_scaled")["events"]
    assert [event for event in told if "is started: 5 waiting" in event["message"]]
    assert set(house.ok("GET", "/api/scaling")) == before, "other autoscalers find the signal as it was"
    states = {each["state"] for each in house.ok("GET", "/v1/agents")["agents"] if each["name"] in served}
    assert states == {"Stopped"}


def test_a_worker_s_token_is_its_own_file_and_in_no_command_line(house: House) -> None:
    house.set(min=1, quiet_s=60)
    (machine,) = house.comes_to("working")
    assert house.says(machine["vm_id"], "stat -c %a /run/borough/token").strip() == "600"
    token = house.says(machine["vm_id"], "cat /run/borough/token").strip()
    lines = house.says(machine["vm_id"], "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert f"--name {machine['agent']} --role {ROLE}" in lines
    assert token not in lines
    assert token not in house.town.log.read_text()
    assert machine["agent"] == f"{ROLE}-1"


def test_a_ready_machine_is_used_first_and_once_and_another_is_made_ready(house: House) -> None:
    before = [each["vm_id"] for each in house.pool()["machines"]]
    house.set(min=0, max=1, warm=1, quiet_s=1, command=["cat", "/proc/sys/kernel/hostname"])
    house.gone(before)
    (ready,) = house.comes_to("warm")
    (task,) = house.done(house.submit(1))
    assert ready["vm_id"] in task["result"], "it was done in the machine that was ready"
    house.gone([ready["vm_id"]])
    (another,) = house.comes_to("warm")
    assert another["vm_id"] != ready["vm_id"]


def test_a_machine_that_is_lost_is_replaced_and_its_task_done_elsewhere(house: House) -> None:
    house.set(min=0, quiet_s=60, command=["sh", "-c", "sleep 3; cat"])
    house.is_empty()  # the idle machine of before is made otherwise
    ids = house.submit(1)
    until(lambda: house.tasks(ids)[0]["state"] == "running", within_s=PATIENCE_S)
    (holder,) = [each for each in house.comes_to("working") if each["agent"] == holder_of(house, ids[0])]
    house.ok("DELETE", f"/api/envs/{holder['env_id']}")
    (task,) = house.done(ids)
    assert "task 0" in task["result"]
    assert holder["vm_id"] not in [each["vm_id"] for each in house.pool()["machines"] if each["use"] == "working"]


def holder_of(house: House, task_id: str) -> str:
    (task,) = house.tasks([task_id])
    agent = next(each["agent_id"] for each in reversed(task["history"]) if each["agent_id"])
    return str(house.ok("GET", f"/v1/agents/{agent}")["name"])


def test_a_deleted_pool_lets_its_workers_finish(house: House) -> None:
    house.set(quiet_s=60, command=["sh", "-c", "sleep 2; cat"])
    ids = house.submit(1)
    until(lambda: house.tasks(ids)[0]["state"] == "running", within_s=PATIENCE_S)
    drained = run_tool("borough.cli.borough", "pool", "delete", ROLE, cwd=house.town.root, environ=house.town.environ)
    assert f"pool {ROLE} drains" in drained.stdout
    (task,) = house.done(ids)
    assert task["attempts"] == 1, "it was finished where it was begun"
    until(lambda: house.town.request("GET", f"/v1/pools/{ROLE}").status == 404, within_s=PATIENCE_S)
    assert house.ok("GET", "/api/envs")["data"] == []


def test_an_image_in_which_no_worker_starts_is_tried_less_and_less_with_the_reason(house: House) -> None:
    until(lambda: [each for each in house.ok("GET", "/api/images")["data"] if each["name"] == "local-root"])
    words = (
        "set",
        ROLE,
        "--image",
        "local-root",
        "--memory",
        "64",
        "--disk",
        "100",
        "--max",
        "1",
        "--json",
        "--",
        "cat",
    )
    made = run_tool("borough.cli.borough", "pool", *words, cwd=house.town.root, environ=house.town.environ)
    assert json.loads(made.stdout)["image"] == "local-root"
    ids = house.submit(1)
    trouble = until(lambda: (found := house.pool()["trouble"]) and found["count"] >= 3 and found, within_s=PATIENCE_S)
    assert "there is no program borough in it" in trouble["reason"]
    assert "there is no program borough in it" in until(lambda: house.pool()["held"])
    waits = [
        step["reason"].partition(":")[0] for step in reversed(house.pool()["steps"]) if "failure" in step["reason"]
    ]
    assert waits[:3] == [f"failure {n} in a row, next try in {s} s" for n, s in ((1, 1), (2, 2), (3, 4))]
    assert house.tasks(ids)[0]["state"] == "pending", "nobody took it"
    house.set()
    house.done(ids)
    shown = run_tool("borough.cli.borough", "pool", "show", ROLE, cwd=house.town.root, environ=house.town.environ)
    assert "host on bubblewrap" in shown.stdout
    listed = run_tool("borough.cli.borough", "pool", "list", cwd=house.town.root, environ=house.town.environ)
    assert listed.stdout.startswith(ROLE)


def test_a_server_that_is_killed_loses_nothing_does_nothing_twice_and_leaves_no_machine(house: House) -> None:
    house.set(command=["sh", "-c", "sleep 0.5; cat"])
    ids = house.submit(6)
    until(lambda: any(task["state"] == "completed" for task in house.tasks(ids)), within_s=PATIENCE_S)
    house.kill_and_start_again()
    for task in house.done(ids):
        completions = [each for each in task["history"] if each["new_state"] == "completed"]
        assert len(completions) == 1, "completed once"
    house.is_empty()
    house.ok("DELETE", f"/v1/pools/{ROLE}")
    until(lambda: house.town.request("GET", f"/v1/pools/{ROLE}").status == 404, within_s=PATIENCE_S)
    assert house.ok("GET", "/api/vms")["data"] == []
