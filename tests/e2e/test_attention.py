"""What needs a person, kind by kind: the real condition, what is told of it, and that the way out given settles it."""

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from borough.adapters.engines.bubblewrap_machines.warden import RUNNING
from borough.controllers.fleet import RECONCILE_EVERY
from tests.e2e.conftest import RunningTown, run_tool, until
from tests.e2e.fleet_programs import KEY, free_port, host_program
from tests.e2e.test_borough_up_fleet import data, up
from tests.e2e.test_kill_agents import COUNTS
from tests.e2e.test_overview import act, attention

MANIFEST = """\
apiVersion: scarab/v1
kind: AgentManifest
metadata: {name: NAME, version: 1.0.0, description: needs somebody}
spec:
  trust_level: sandboxed
  capabilities: ["tool.invoke:echo"]
  budget: {calls: 1}
"""


DIES_ONCE = ["sh", "-c", "[ -e /died ] && exec sleep 1000; touch /died; sleep 1; exit 3"]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTown]:
    """A town with a second host that dies at once: how long it is silent passes while the others are looked at."""
    folder = tmp_path_factory.mktemp("second")
    with up(TT_API_KEY=KEY) as running:
        until(lambda: running.ok("GET", "/ready")["fleet"] == "ready")
        with host_program(free_port(), folder, "second") as second:
            running.tt("host", "add", second.address)
        yield running


def the_one(town: RunningTown, kind: str) -> dict[str, Any]:
    """Return the one item of a kind, as soon as it is there; it has what every item has."""
    (item,) = until(lambda: attention(town, kind), within_s=90)
    assert item["id"].startswith(f"{kind}:")
    assert item["safe_default"]
    assert item["since"]
    assert all(action["command"].split()[0] in {"tt", "ash", "borough"} for action in item["actions"])
    found: dict[str, Any] = item
    return found


def settled(town: RunningTown, kind: str) -> None:
    until(lambda: attention(town, kind) == [])


def commanded(town: RunningTown, item: dict[str, Any], label: str) -> None:
    """Do what an item says by the command that it gives."""
    program, *words = next(each["command"] for each in item["actions"] if each["label"] == label).split()
    run_tool(f"borough.cli.{program}", *words, cwd=town.root, environ=town.environ)


def spawned(town: RunningTown, name: str) -> tuple[str, str]:
    agent = town.ok("POST", "/agents", {"manifest_yaml": MANIFEST.replace("NAME", name)})["id"]
    return agent, town.ok("POST", "/tokens", {"name": name, "agent_id": agent, "role": "agent"})["token"]


@pytest.mark.parametrize("by_command", [False, True], ids=["request", "command"])
def test_a_budget_that_is_used_up_is_given_once_more(town: RunningTown, *, by_command: bool) -> None:
    agent, _ = spawned(town, f"spender-{by_command}".lower())
    calls = [town.request("POST", f"/agents/{agent}/tools/echo", {"n": n}).status for n in range(2)]
    assert calls == [200, 429]
    item = the_one(town, "budget")
    assert (item["subject"]["id"], item["urgency"]) == (agent, "now")
    assert "budget of spender" in item["title"]
    assert "1 of 1 calls" in item["why"]
    (commanded if by_command else act)(town, item, "Give it as much again")
    settled(town, "budget")
    assert town.request("POST", f"/agents/{agent}/tools/echo", {}).status == 200
    act(town, the_one(town, "budget"), "End it")
    settled(town, "budget")


@pytest.mark.parametrize("verdict", ["Approve", "Deny"])
def test_what_an_agent_asks_for_is_given_or_refused(town: RunningTown, verdict: str) -> None:
    agent, key = spawned(town, f"asker-{verdict}".lower())
    wish = {"capability": "tool.invoke:agent.info", "reason": "to know who I am"}
    asked = town.request("POST", f"/agents/{agent}/capability-requests", wish, token=key)
    assert asked.status < 300, asked.body
    item = the_one(town, "question")
    assert item["title"] == f"asker-{verdict.lower()} asks for tool.invoke:agent.info"
    assert item["why"] == "to know who I am"
    assert "goes on without" in item["safe_default"]
    act(town, item, verdict)
    settled(town, "question")
    called = town.request("POST", f"/agents/{agent}/tools/agent.info", {}, token=key)
    assert called.status == (200 if verdict == "Approve" else 403)
    town.request("DELETE", f"/agents/{agent}")


@pytest.mark.parametrize("label", ["Give all such tasks to whoever is free", "Cancel it"])
def test_a_task_whose_agent_is_gone_is_given_to_others_or_cancelled(town: RunningTown, label: str) -> None:
    name = f"gone-{label[0].lower()}"
    town.ok("POST", "/v1/agents", {"name": name, "cli": COUNTS})
    task = town.ok("POST", "/v1/tasks/assign", {"agent": name, "task": "left behind"})["task_id"]
    town.ok("POST", f"/v1/agents/{name}/kill")
    item = the_one(town, "orphan_task")
    assert (item["title"], item["subject"]["id"]) == ("left behind waits for an agent that is not there", task)
    assert item["why"] == "its agent has ended"
    commanded(town, item, label)
    settled(town, "orphan_task")
    wanted = "cancelled" if label == "Cancel it" else "pending"
    assert town.ok("GET", f"/v1/tasks/{task}")["state"] == wanted
    town.request("POST", f"/v1/tasks/{task}/cancel", {})


def test_a_run_that_failed_is_tried_again(town: RunningTown) -> None:
    body = {"task": "fail", "command": ["sh", "-c", "echo sorry; exit 3"], "image": "local-root", "memory_mib": 64}
    run = town.ok("POST", "/v1/runs", body)["id"]
    item = the_one(town, "run")
    assert (item["title"], item["subject"]["id"], item["urgency"]) == ("fail failed", run, "whenever")
    assert item["why"] == "its command ended with exit code 3: sorry"
    until(lambda: town.ok("GET", f"/v1/runs/{run}")["machine"]["state"] == "gone")
    act(town, item, "Try again, in a fresh machine")
    again = until(lambda: (now := town.ok("GET", f"/v1/runs/{run}"))["attempt"] == 2 and now)
    assert len(again["attempts"]) == 2
    until(lambda: town.ok("GET", f"/v1/runs/{run}")["machine"]["state"] == "gone")


def test_machines_that_died_are_started_or_destroyed(town: RunningTown) -> None:
    machine = {"image": "local-root", "engine": "bubblewrap", "cpu": 1, "mem": 64, "disk": 64, "command": DIES_ONCE}
    body = {"id": "dying", "owner": "alice", "ssh_keys": [], "vms": [machine] * 2, "lifetime": 600}
    town.ok("POST", "/api/envs", body)
    ids = {each["id"] for each in data(town, "/api/vms") if each["env_id"] == "dying"}
    items = until(lambda: len(found := attention(town, "vm")) == 2 and found, within_s=90)
    assert {each["subject"]["id"] for each in items} == ids
    for item in items:
        assert item["title"] == f"the machine {item['subject']['id']} of dying has failed"
        assert (item["why"], item["urgency"]) == ("its command ended with exit status 3", "soon")
        assert "keeps its place and its disk" in item["safe_default"]
    first, second = items
    commanded(town, first, "Start it")
    assert [each["id"] for each in attention(town, "vm")] == [second["id"]]
    assert data(town, f"/api/vms/{first['subject']['id']}")["state"] == "running"
    act(town, second, "Destroy its environment")
    settled(town, "vm")
    assert not ids & {each["id"] for each in data(town, "/api/vms")}


def test_a_machine_that_is_killed_with_its_warden_is_told_long_before_anybody_looks(town: RunningTown) -> None:
    machine = {"image": "local-root", "engine": "bubblewrap", "cpu": 1, "mem": 64, "disk": 64}
    town.ok("POST", "/api/envs", {"id": "shot", "owner": "alice", "ssh_keys": [], "vms": [machine], "lifetime": 600})
    (vm,) = [each["id"] for each in data(town, "/api/vms") if each["env_id"] == "shot"]
    running = json.loads(next(town.root.glob(f".tt/fleet/**/{vm}/{RUNNING}")).read_text())
    for pid, _ in (running["warden"], running["inner"]):
        os.kill(pid, signal.SIGKILL)
    (item,) = until(lambda: attention(town, "vm"), within_s=RECONCILE_EVERY.total_seconds() / 3)
    assert item["title"] == f"the machine {vm} of shot has failed"
    assert item["why"] == "its processes are gone, and did not say how they ended"
    assert data(town, "/api/envs/shot")["env"]["state"] == "failed"
    act(town, item, "Start it")
    settled(town, "vm")
    assert town.tt("exec", vm, "--", "echo", "back").stdout == "back\n"
    assert data(town, "/api/envs/shot")["env"]["state"] == "active"
    town.ok("DELETE", "/api/envs/shot")


def test_a_pool_in_trouble_is_told_here_and_in_the_town_s_status(town: RunningTown) -> None:
    town.ok("PUT", "/v1/pools/painter", {"image": "nowhere", "min": 1, "memory_mib": 64, "disk_mib": 64})
    item = the_one(town, "pool")
    assert (item["subject"], item["urgency"]) == ({"kind": "pool", "id": "painter"}, "soon")
    assert item["title"].startswith("the pool painter ")
    assert "nowhere" in item["why"]
    assert item["deadline"] in item["safe_default"]
    told = town.tt("status").stdout
    assert "painter\t0/1\t1 to" in told, told
    shown = json.loads(town.tt("status", "--json").stdout)["pools"]
    assert [(each["role"], "nowhere" in each["trouble"]["reason"]) for each in shown] == [("painter", True)]
    commanded(town, item, "See its machines and its last steps")
    act(town, item, "Let it go, with its machines")
    settled(town, "pool")


def test_a_host_that_does_not_answer_is_forgotten(town: RunningTown) -> None:
    item = the_one(town, "host")
    assert (item["subject"]["id"], item["urgency"]) == ("second", "now")
    assert item["title"] == "the host second does not answer"
    assert item["why"]
    act(town, item, "Place nothing on it when it comes back")
    cordoned = [each for each in data(town, "/api/hosts") if each["id"] == "second"]
    assert cordoned[0]["cordoned"]
    act(town, item, "It is dead: forget it, with its machines")
    settled(town, "host")
    assert [each["id"] for each in data(town, "/api/hosts") if each["id"] == "second"] == []
