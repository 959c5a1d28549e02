"""Kill and quarantine of agents that are no run's, by ``/v1/kill``: powerless at once, and in the ledger."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from borough.adapters import procfs
from borough.adapters.process import OWNER, Marker
from tests.e2e.conftest import RunningTown, run_tool, until
from tests.e2e.test_borough_up_fleet import up

TICKING = """\
apiVersion: scarab/v1
kind: AgentManifest
metadata: {name: NAME, version: 1.0.0, description: counts as long as it may}
spec:
  trust_level: sandboxed
  capabilities: ["tool.invoke:fs.*", "fs.write:/workspace/**"]
  command: /bin/sh
  args: [-c, "while :; do echo tick; sleep 0.05; done"]
  policy: [{id: publishing, effect: ask, capability: "fs.write:/workspace/published/**"}]
"""
COUNTS = f"{sys.executable} -u -c \"import time\nwhile True: print('tick'); time.sleep(0.05)\""


@pytest.fixture(scope="module")
def town() -> Iterator[RunningTown]:
    with up() as running:
        until(lambda: running.ok("GET", "/ready")["fleet"] == "ready")
        yield running


def ticking(town: RunningTown, name: str) -> tuple[str, str]:
    """Start an agent whose program prints all the time; return its id and a key of it, once it prints."""
    agent = town.ok("POST", "/agents", {"manifest_yaml": TICKING.replace("NAME", name)})["id"]
    key = town.ok("POST", "/tokens", {"name": f"of-{name}", "agent_id": agent, "role": "agent"})["token"]
    until(lambda: printed(town, agent))
    return agent, key


def printed(town: RunningTown, agent: str) -> int:
    told = town.request("GET", f"/agents/{agent}/logs")
    return len(told.body) if told.status == 200 else 0


def kills(town: RunningTown, word: str) -> list[dict[str, Any]]:
    """Return the ledger's entries of kills that name ``word``."""
    found = town.ok("GET", "/audit?action=RunKill&limit=1000")
    return [entry for entry in found if word in entry["detail"]]


def rests(measure: Callable[[], int]) -> None:
    """Prove that something stands still that grew twenty times a second before, over many looks."""
    seen = [measure() for _ in range(2)]
    until(lambda: seen[-1] == seen[-2] or seen.append(measure()))
    assert {measure() for _ in range(30)} == {seen[-1]}


def test_a_quarantined_agent_is_frozen_and_has_no_key(town: RunningTown) -> None:
    agent, key = ticking(town, "counter")
    call = {"path": "/workspace/published/page", "content": "news"}
    town.request("POST", f"/agents/{agent}/tools/fs.write", call, headers={"Prefer": "respond-async"})
    (asked,) = until(lambda: town.ok("GET", "/approvals"))
    assert town.request("GET", f"/agents/{agent}", token=key).status == 200
    done = town.ok("POST", "/v1/kill", {"target": "counter", "quarantine": True, "reason": "it counts too far"})
    assert (done["target"], done["done"]) == (agent, ["token_revoked", "process_frozen"])
    assert town.request("GET", f"/agents/{agent}", token=key).status == 401
    assert town.ok("GET", f"/agents/{agent}")["status"] == "paused"
    rests(lambda: printed(town, agent))
    late = town.request("POST", f"/approvals/{asked['request_id']}/approve")
    assert late.status in (404, 409), "what it had asked for is not done any more"
    entries = kills(town, "quarantine counter")
    assert [(entry["kind"], entry["on_behalf_of"]) for entry in entries] == [("intent", agent), ("outcome", agent)]
    assert entries[-1]["data"]["done"] == ["token_revoked", "process_frozen"]
    assert (entries[-1]["data"]["by"], "it counts too far" in entries[-1]["detail"]) == ("operator", True)
    assert town.request("GET", f"/v1/evidence/{agent}").status == 200, "what it did is kept"
    ended = town.ok("POST", "/v1/kill", {"target": agent})
    assert ended["done"] == ["agent_ended"]
    until(lambda: town.ok("GET", f"/agents/{agent}")["status"] == "killed")


def test_a_killed_agent_has_ended_and_what_descends_from_it(town: RunningTown) -> None:
    agent, key = ticking(town, "parent")
    body = {"manifest_yaml": TICKING.replace("NAME", "child")}
    child = town.ok("POST", f"/agents/{agent}/children", body)["id"]
    done = town.ok("POST", "/v1/kill", {"target": agent, "reason": "enough"})
    assert done["done"] == ["token_revoked", "agent_ended"]
    assert town.request("GET", f"/agents/{agent}", token=key).status == 401
    for each in (agent, child):
        until(lambda each=each: town.ok("GET", f"/agents/{each}")["status"] not in ("running", "paused"))
    assert [entry["kind"] for entry in kills(town, "kill parent")] == ["intent", "outcome"]
    again = town.request("POST", "/v1/kill", {"target": agent})
    assert (again.status, again.json()["code"]) == (404, "target_not_found")


def working(town: RunningTown, name: str) -> tuple[str, str]:
    """Let a worker of the town print all the time; return its agent and its task."""
    agent = town.ok("POST", "/v1/agents", {"name": name, "cli": COUNTS})["agent_id"]
    task = town.ok("POST", "/v1/tasks/assign", {"agent": name, "task": "count"})["task_id"]
    until(lambda: logged(town, task))
    return agent, task


def logged(town: RunningTown, task: str) -> int:
    told = town.request("GET", f"/v1/tasks/{task}/log")
    return len(told.body) if told.status == 200 else 0


def test_a_quarantined_worker_is_frozen_and_its_task_is_held(town: RunningTown) -> None:
    agent, task = working(town, "ada")
    done = json.loads(
        run_tool(
            "borough.cli.borough", "kill", "ada", "--quarantine", "-m", "a look into it", "--json",
            cwd=town.root, environ=town.environ,
        ).stdout
    )  # fmt: skip
    assert done["done"] == ["lease_fenced", "task_held", "worker_frozen"]
    held = town.ok("GET", f"/v1/tasks/{task}")
    assert (held["state"], "held: a look into it" in json.dumps(held)) == ("cancelled", True)
    frozen = procfs.owned(Marker(OWNER, f"{agent}:1"))
    assert frozen
    assert {state_of(ref.pid) for ref in frozen} == {"T"}
    rests(lambda: logged(town, task))
    entries = kills(town, "quarantine ada")
    assert [entry["kind"] for entry in entries] == ["intent", "outcome"]
    assert (entries[0]["data"]["worker"], entries[0]["data"]["task"]) == (agent, task)
    town.ok("POST", "/v1/kill", {"target": "ada"})
    until(lambda: procfs.owned(Marker(OWNER, f"{agent}:1")) == [])


def test_a_killed_worker_s_task_goes_on_elsewhere(town: RunningTown) -> None:
    agent, task = working(town, "bea")
    done = town.ok("POST", "/v1/kill", {"target": agent})
    assert done["done"] == ["lease_fenced", "task_requeued", "worker_ended"]
    assert procfs.owned(Marker(OWNER, f"{agent}:1")) == []
    town.ok("POST", "/v1/reclaim/orphan-tasks", {"action": "to_backlog"})
    assert town.ok("GET", f"/v1/tasks/{task}")["state"] == "pending"
    assert [entry["kind"] for entry in kills(town, "kill bea")] == ["intent", "outcome"]
    town.ok("POST", f"/v1/tasks/{task}/cancel", {})


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
