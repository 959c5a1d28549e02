"""Runs on a real ``borough up``, in real machines of bubblewrap: admitted, worked, collected, ended."""

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from borough.core.ids import new_id
from tests.e2e.conftest import Answer, RunningTown, run_tool, until
from tests.e2e.git_server import made_repository, serving
from tests.e2e.test_borough_up_fleet import data, up

SMALL = {"image": "local-root", "memory_mib": 64, "disk_mib": 64}


@pytest.fixture(scope="module")
def town() -> Iterator[RunningTown]:
    with up() as running:
        until(lambda: running.request("GET", "/api/status").status == 200)
        yield running


def begun(town: RunningTown, *command: str, **order: Any) -> dict[str, Any]:
    """Ask for a run of ``command``; return it as it is admitted."""
    body = {"task": "a task", "command": list(command), **SMALL, **order}

    def answer() -> Answer | None:
        told = town.request("POST", "/v1/runs", body, headers={"Idempotency-Key": key})
        return None if told.status == 503 else told  # the fleet is opened on the side

    key = new_id()
    told = until(answer)
    assert told.status == 201, told.body
    run: dict[str, Any] = told.json()
    return run


def shown(town: RunningTown, run: dict[str, Any], wait: int = 0) -> dict[str, Any]:
    now: dict[str, Any] = town.ok("GET", f"/v1/runs/{run['id']}?wait={wait}")
    return now


def comes_to(town: RunningTown, run: dict[str, Any], *states: str) -> dict[str, Any]:
    """Return the run as soon as it is in one of ``states``, and, where those are ends, cleared up."""

    def holds() -> dict[str, Any] | None:
        now = shown(town, run)
        over = now["state"] in {"succeeded", "failed", "cancelled", "killed", "refused"}
        if over and now["state"] not in states:
            pytest.fail(f"it {now['state']}: {now['reason']}")
        clean = not over or now["machine"] is None or now["machine"]["state"] == "gone" or now["quarantined"]
        return now if now["state"] in states and clean else None

    found: dict[str, Any] = until(holds)
    return found


def log_of(town: RunningTown, run: dict[str, Any], more: str = "") -> str:
    return town.request("GET", f"/v1/runs/{run['id']}/log{more}").body.decode()


def archive(files: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


def test_a_dry_run_says_where_and_under_what_and_writes_nothing(town: RunningTown) -> None:
    before = town.ok("GET", "/v1/runs")
    decided = town.ok("POST", "/v1/runs?dry_run=1", {"task": "a task", "command": ["true"], **SMALL})
    assert decided["ok"]
    assert (decided["engine"], decided["isolation"], decided["trust_level"]) == ("bubblewrap", "process", "sandboxed")
    assert decided["image_digest"].startswith("sha256:")
    assert decided["domains"] == []
    assert town.ok("GET", "/v1/runs") == before


def test_what_no_host_can_give_is_refused_with_each_reason(town: RunningTown) -> None:
    body = {"task": "a task", "command": ["true"], **SMALL, "engine": "bubblewrap", "isolation": "vm"}
    refused = town.request("POST", "/v1/runs", body)
    assert refused.status == 422
    problem = refused.json()
    assert problem["code"] == "run_refused"
    assert problem["details"]["isolation"] == "vm"
    assert any("isolates less" in reason for reason in problem["details"]["reasons"])


def test_a_run_brings_back_its_answer_its_log_and_its_changes(town: RunningTown) -> None:
    run = begun(town, "sh", "-c", "echo working on $BOROUGH_TASK; echo kept > notes; echo forty-two")
    done = comes_to(town, run, "succeeded")
    assert done["result"]["answer"] == "forty-two"
    assert done["result"]["exit_code"] == 0
    assert done["result"]["files_changed"] == [{"path": "notes", "kind": "added"}]
    assert log_of(town, run) == "working on a task\nforty-two\n"
    patch = town.request("GET", f"/v1/runs/{run['id']}/patch").body.decode()
    assert "+++ b/notes" in patch
    assert "+kept" in patch
    task = town.ok("GET", f"/v1/tasks/{run['task_id']}")
    assert (task["state"], task["result"], task["attempts"]) == ("completed", "forty-two", 1)
    actions = [entry["action"] for entry in town.ok("GET", f"/v1/runs/{run['id']}/ledger")]
    assert actions[0] == "AgentSpawn"
    assert [action for action in actions if action.startswith("Run")] == ["RunAdmit", "RunAttempt", "RunEnd"]
    assert data(town, "/api/envs") == []


def test_a_run_for_which_there_is_no_room_now_waits_for_its_turn(town: RunningTown) -> None:
    (host,) = data(town, "/api/hosts")
    cpus = host["resource"]["cpu_total"]
    first = begun(town, "sh", "-c", "while [ ! -e go ]; do sleep 0.1; done", cpu=cpus)
    vm = comes_to(town, first, "working")["machine"]["vm_id"]
    second = begun(town, "echo", "my turn", cpu=cpus)
    assert second["admission"]["host_id"] is None
    assert "waits" in second["admission"]["reasons"][0]["reason"]
    assert second["admission"]["tools"], "that there is no room now closes no way"
    comes_to(town, second, "preparing")
    town.tt("exec", vm, "--", "touch", "/workspace/go")
    comes_to(town, first, "succeeded")
    done = comes_to(town, second, "succeeded")
    assert (done["attempt"], done["result"]["answer"]) == (1, "my turn")


def test_of_two_that_ask_at_once_for_the_last_place_one_has_it_and_the_other_is_told_why(town: RunningTown) -> None:
    (host,) = data(town, "/api/hosts")
    whole = {"task": "a task", "command": ["sleep", "60"], **SMALL, "cpu": host["resource"]["cpu_total"]}
    with ThreadPoolExecutor(4) as callers:
        told = list(callers.map(lambda _: town.request("POST", "/v1/runs", whole), range(4)))
    assert [each.status for each in told] == [201] * 4
    runs = [each.json() for each in told]
    has_place = [run for run in runs if run["admission"]["host_id"]]
    assert [run["admission"]["host_id"] for run in has_place] == [host["id"]]
    for run in runs:
        if run not in has_place:
            assert "waits for some" in run["admission"]["reasons"][0]["reason"], run["admission"]
            assert {each["subject"] for each in run["admission"]["reasons"]} >= {"bubblewrap", host["id"]}
    for run in (*(run for run in runs if run not in has_place), *has_place):
        town.ok("POST", f"/v1/runs/{run['id']}/cancel", {"reason": "enough"})
    for run in runs:
        comes_to(town, run, "cancelled")
    assert data(town, "/api/envs") == []


def test_runs_of_one_agent_that_go_on_at_once_have_each_its_own_budget_and_none_is_overdrawn(
    town: RunningTown,
) -> None:
    order = {"budget": {"tool_calls": 3}}
    runs = [begun(town, "sh", "-c", "while [ ! -e go ]; do sleep 0.1; done", **order) for _ in range(2)]
    for run in runs:
        comes_to(town, run, "working")
    agents = [run["agent"]["id"] for run in runs]
    assert len(set(agents)) == 2
    with ThreadPoolExecutor(8) as callers:
        asked = callers.map(lambda agent: town.request("POST", f"/agents/{agent}/tools/agent.info", {}), agents * 8)
        told = list(zip(agents * 8, asked, strict=True))
    for agent in agents:
        codes = sorted(answer.status for which, answer in told if which == agent)
        assert codes.count(200) == 3, [answer.body for _, answer in told]
    for run in runs:
        assert shown(town, run)["budget"]["tool_calls"] == 3
        town.tt("exec", shown(town, run)["machine"]["vm_id"], "--", "touch", "/workspace/go")
        assert comes_to(town, run, "succeeded")["spent"]["tool_calls"] == 3


def test_a_run_takes_a_machine_that_stands_ready_and_where_none_does_it_has_one_made(town: RunningTown) -> None:
    pool = {"image": "local-root", "memory_mib": 64, "disk_mib": 64, "max": 0, "warm": 1}
    town.ok("PUT", "/v1/pools/runs", pool)

    def standing() -> list[str]:
        machines = town.ok("GET", "/v1/pools/runs")["machines"]
        return [machine["vm_id"] for machine in machines if machine["use"] == "warm"]

    (ready,) = until(standing)
    asked = {"task": "a task", "command": ["true"], **SMALL}
    decided = town.ok("POST", "/v1/runs?dry_run=1", asked)
    assert (decided["start"], decided["host_id"] is not None) == ("warm", True)
    assert decided["expected_start_ms"] > 0
    assert town.ok("POST", "/v1/runs?dry_run=1", asked | {"cpu": 2})["start"] == "cold", "none has two processors"
    first = begun(town, "sh", "-c", "echo mine > left; echo ready")
    assert first["admission"]["start"] == "warm"
    done = comes_to(town, first, "succeeded")
    assert (done["result"]["answer"], done["result"]["files_changed"]) == ("ready", [{"path": "left", "kind": "added"}])
    assert (done["attempts"][0]["vm_id"], done["attempts"][0]["start"]) == (ready, "warm")
    (fresh,) = until(standing)
    assert fresh != ready, "a used machine is no fresh one"
    other = comes_to(town, begun(town, "ls", "/workspace", memory_mib=65), "succeeded")
    assert other["attempts"][0]["start"] == other["admission"]["start"] == "cold", "none of that size stands ready"
    assert standing() == [fresh]
    town.ok("DELETE", "/v1/pools/runs")
    until(lambda: data(town, "/api/envs") == [])


def test_the_same_request_is_one_run(town: RunningTown) -> None:
    body = {"task": "a task", "command": ["true"], **SMALL}
    told = [town.request("POST", "/v1/runs", body, headers={"Idempotency-Key": "once"}) for _ in range(2)]
    assert [each.status for each in told] == [201, 201]
    assert told[0].json()["id"] == told[1].json()["id"]
    comes_to(town, told[0].json(), "succeeded")


def test_an_archive_is_unpacked_before_the_command_starts(town: RunningTown) -> None:
    run = begun(town, "sh", "-c", "cat a/one; echo changed > a/one; rm gone", source={"kind": "upload"})
    assert run["state"] == "admitted"
    assert "waits for its source" in run["next"]
    files = {"a/one": "first\n", "gone": "bye\n", "same": "s\n"}
    sent = town.request("PUT", f"/v1/runs/{run['id']}/source", archive(files))
    assert sent.status == 200, sent.body
    done = comes_to(town, run, "succeeded")
    assert done["result"]["files_changed"] == [
        {"path": "a/one", "kind": "modified"}, {"path": "gone", "kind": "deleted"}
    ]  # fmt: skip
    assert log_of(town, run) == "first\n"
    again = town.request("PUT", f"/v1/runs/{run['id']}/source", archive({}))
    assert (again.status, again.json()["code"]) == (409, "no_source_wanted")


def test_a_folder_of_the_machine_is_copied_in(town: RunningTown, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "file").write_text("from here\n")
    run = begun(town, "cat", "deep/file", source={"kind": "folder", "path": str(tmp_path / "in")})
    assert comes_to(town, run, "succeeded")["result"]["answer"] == "from here"


def test_a_command_that_fails_fails_the_run_and_can_be_tried_again(town: RunningTown) -> None:
    run = begun(town, "sh", "-c", "echo sorry; exit 3")
    failed = comes_to(town, run, "failed")
    assert failed["reason"] == "its command ended with exit code 3: sorry"
    assert failed["attempt"] == 1
    town.ok("POST", f"/v1/runs/{run['id']}/retry")
    again = comes_to(town, run, "failed")
    assert [attempt["number"] for attempt in again["attempts"]] == [1, 2]
    assert len({attempt["vm_id"] for attempt in again["attempts"]}) == 2


def test_exit_code_75_asks_for_another_attempt_in_another_machine(town: RunningTown) -> None:
    run = begun(town, "sh", "-c", 'echo $BOROUGH_ATTEMPT; [ "$BOROUGH_ATTEMPT" = 2 ] || exit 75')
    done = comes_to(town, run, "succeeded")
    assert (done["attempt"], done["result"]["answer"]) == (2, "2")
    assert len({attempt["vm_id"] for attempt in done["attempts"]}) == 2


def test_a_command_that_takes_too_long_is_ended(town: RunningTown) -> None:
    run = begun(town, "sh", "-c", "echo began; sleep 1000", timeout_s=1)
    failed = comes_to(town, run, "failed")
    assert "longer than 1 s" in failed["reason"]
    assert log_of(town, run).startswith("began\n")


def test_a_cancelled_run_leaves_nothing(town: RunningTown) -> None:
    run = begun(town, "sleep", "1000")
    comes_to(town, run, "working")
    town.ok("POST", f"/v1/runs/{run['id']}/cancel", {"reason": "not wanted"})
    ended = comes_to(town, run, "cancelled")
    assert ended["reason"] == "cancelled by operator: not wanted"
    assert town.ok("GET", f"/v1/tasks/{run['task_id']}")["state"] == "cancelled"
    assert data(town, "/api/envs") == []
    late = town.request("POST", f"/v1/runs/{run['id']}/retry")
    assert late.status == 200
    comes_to(town, run, "working")
    town.ok("POST", f"/v1/runs/{run['id']}/cancel", {})
    comes_to(town, run, "cancelled")


def test_the_log_is_followed_while_it_grows(town: RunningTown) -> None:
    run = begun(town, "sh", "-c", "echo one; sleep 0.3; echo two")
    answer = town.request("GET", f"/v1/runs/{run['id']}/log?follow=1")
    parts = [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith('data: {"')]
    assert "".join(part["text"] for part in parts) == "one\ntwo\n"
    assert "event: end" in answer.body.decode()


# -- the key of an attempt ---------------------------------------------------------------------------------------------


def key_inside(town: RunningTown, run: dict[str, Any]) -> str:
    """Return the credential as the command has it, read out of its machine."""
    vm = shown(town, run)["machine"]["vm_id"]
    read = town.tt("exec", vm, "--", "cat", "/workspace/key").stdout.strip()
    assert len(read) == 64
    return read


HOLDS_ITS_KEY = ("sh", "-c", 'printf %s "$BOROUGH_KEY" > key; sleep 1000')


def working_with_key(town: RunningTown) -> tuple[dict[str, Any], str]:
    run = begun(town, *HOLDS_ITS_KEY)
    comes_to(town, run, "working")
    vm = shown(town, run)["machine"]["vm_id"]
    until(lambda: town.tt("exec", vm, "--", "test", "-s", "/workspace/key", check=False).returncode == 0)
    return run, key_inside(town, run)


def asks(town: RunningTown, run: dict[str, Any], key: str) -> int:
    return town.request("GET", f"/agents/{run['agent']['id']}/tools", token=key).status


def test_a_killed_run_has_no_key_no_machine_and_no_lease(town: RunningTown) -> None:
    run, key = working_with_key(town)
    assert asks(town, run, key) == 200
    assert town.request("GET", "/agents", token=key).status == 200
    assert town.request("POST", "/agents", {"manifest_yaml": "x"}, token=key).status == 403
    killed = town.ok("POST", "/v1/kill", {"target": run["id"], "reason": "it misbehaves"})
    assert asks(town, run, key) == 401
    assert killed["target"] == run["id"]
    assert set(killed["done"]) >= {"token_revoked", "machine_destroyed", "lease_fenced", "task_held"}
    assert town.ok("GET", f"/v1/tasks/{run['task_id']}")["state"] == "cancelled"
    ended = comes_to(town, run, "killed")
    assert not ended["quarantined"]
    entries = town.ok("GET", f"/v1/runs/{run['id']}/ledger")
    assert [entry["kind"] for entry in entries if entry["action"] == "RunKill"] == ["intent", "outcome"]
    again = town.request("POST", "/v1/kill", {"target": run["id"]})
    assert (again.status, again.json()["code"]) == (409, "run_over")


def test_a_quarantined_run_keeps_its_machine_frozen(town: RunningTown) -> None:
    run, key = working_with_key(town)
    killed = town.ok("POST", "/v1/kill", {"target": run["name"], "quarantine": True})
    assert asks(town, run, key) == 401
    assert set(killed["done"]) == {"token_revoked", "machine_frozen", "lease_fenced", "task_held"}
    ended = comes_to(town, run, "killed")
    assert ended["quarantined"]
    assert data(town, f"/api/vms/{ended['machine']['vm_id']}")["state"] == "paused"
    town.request("DELETE", f"/api/envs/{ended['machine']['env_id']}", timeout_s=60)


def test_an_agent_that_somebody_ends_takes_its_run_with_it(town: RunningTown) -> None:
    run, key = working_with_key(town)
    town.request("DELETE", f"/agents/{run['agent']['id']}")
    assert asks(town, run, key) in (401, 403)
    ended = comes_to(town, run, "killed")
    assert "its agent was ended" in ended["reason"]


def test_nobody_is_killed_who_is_not_there(town: RunningTown) -> None:
    refused = town.request("POST", "/v1/kill", {"target": "nobody"})
    assert (refused.status, refused.json()["code"]) == (404, "target_not_found")


# -- the commands ------------------------------------------------------------------------------------------------------

ON = ("--image", "local-root", "--memory", "64", "--disk", "64")


def borough(town: RunningTown, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run_tool("borough.cli.borough", *arguments, cwd=town.root, environ=town.environ, check=check)


def test_a_run_is_asked_for_followed_and_looked_at_by_command(town: RunningTown) -> None:
    folder = town.root / "work"
    folder.mkdir()
    (folder / "greeting").write_text("good morning\n")
    script = "cat greeting; echo good night > greeting"
    ran = borough(town, "run", "greet", *ON, "--source", str(folder), "--label", "kind=cli", "--", "sh", "-c", script)
    assert ran.stdout == "good morning\nmodified\tgreeting\n"
    assert "succeeded" in ran.stderr
    (listed,) = json.loads(borough(town, "runs", "--label", "kind=cli", "--json").stdout)["runs"]
    name = listed["name"]
    assert "good morning" in borough(town, "show", name).stdout
    assert borough(town, "logs", name).stdout == "good morning\n"
    assert "-good morning\n+good night\n" in borough(town, "patch", name).stdout
    assert (folder / "greeting").read_text() == "good morning\n"


def test_exit_codes_say_how_a_run_ended(town: RunningTown) -> None:
    failed = borough(town, "run", "fail", *ON, "--", "sh", "-c", "exit 9", check=False)
    assert failed.returncode == 1
    assert "exit code 9" in failed.stderr
    assert borough(town, "show", "run-00000000", check=False).returncode == 5
    refused = borough(town, "run", "x", *ON, "--isolation", "vm", "--engine", "bwrap", "--", "true", check=False)
    assert refused.returncode == 1
    assert "isolates less than vm" in refused.stderr
    assert borough(town, "runs", "--state", "nowhere", check=False).returncode == 2


def test_a_dry_run_is_a_table_of_the_decision(town: RunningTown) -> None:
    told = borough(town, "run", "x", *ON, "--budget-calls", "5", "--dry-run", "--", "true").stdout
    fields = dict(line.split("\t", 1) for line in told.splitlines() if "\t" in line)
    assert (fields["admitted"], fields["engine"], fields["budget"]) == ("yes", "bubblewrap", "tool_calls 5")
    nowhere = borough(town, "run", "x", "--image", "nothing", "--dry-run", "--", "true", check=False)
    assert nowhere.returncode == 1
    assert "no image 'nothing'" in nowhere.stdout


def test_a_detached_run_is_killed_by_command(town: RunningTown) -> None:
    name = borough(town, "run", "wait", *ON, "--detach", "--", "sleep", "1000").stdout.strip()
    comes_to(town, {"id": name}, "working")
    assert "powerless after" in borough(town, "kill", name, "-m", "enough").stdout
    comes_to(town, {"id": name}, "killed")
    assert json.loads(borough(town, "show", name, "--json").stdout)["reason"] == "killed by operator: enough"


# -- governed from inside ----------------------------------------------------------------------------------------------

ASKS = """\
apiVersion: scarab/v1
kind: AgentManifest
metadata: {name: asker, version: 1.0.0, description: asks before it says something}
spec:
  trust_level: sandboxed
  policy:
    - {id: saying, effect: ask, capability: "tool.invoke:echo"}
"""
CALL = """\
import json, os, urllib.request
body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {"said": "hello"}}}
headers = {"Authorization": "Bearer " + os.environ["BOROUGH_KEY"], "Content-Type": "application/json",
           "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}
request = urllib.request.Request(os.environ["BOROUGH_MCP_URL"], json.dumps(body).encode(), headers)
print(urllib.request.urlopen(request, timeout=600).read().decode().replace(os.linesep, " "))
"""


def test_an_agent_inside_waits_frozen_until_somebody_agrees_and_goes_on(town: RunningTown) -> None:
    made = {"image": "host", "manifest": ASKS, "memory_mib": 256}
    run = begun(town, "python3", "-c", CALL, **made)
    waiting = comes_to(town, run, "waiting")
    assert "frozen" in waiting["reason"]
    assert data(town, f"/api/vms/{waiting['machine']['vm_id']}")["state"] == "paused"
    assert town.ok("GET", f"/v1/tasks/{run['task_id']}")["state"] == "running"
    (asked,) = town.ok("GET", "/approvals")
    town.ok("POST", f"/approvals/{asked['request_id']}/approve")
    done = comes_to(town, run, "succeeded")
    assert "hello" in done["result"]["answer"]
    assert done["spent"]["tool_calls"] == 1
    entries = town.ok("GET", f"/v1/runs/{run['id']}/ledger")
    assert [entry["kind"] for entry in entries if entry["action"] == "ToolInvoke"] == ["intent", "outcome"]


WRITES = CALL.replace(
    '"echo", "arguments": {"said": "hello"}', '"fs.write", "arguments": {"path": "/workspace/told", "content": "hi"}'
)


def test_an_agent_s_file_tools_work_in_its_machine(town: RunningTown) -> None:
    run = begun(town, "python3", "-c", WRITES, image="host", memory_mib=256)
    done = comes_to(town, run, "succeeded")
    assert {"path": "told", "kind": "added"} in done["result"]["files_changed"], log_of(town, run)
    assert "+hi" in town.request("GET", f"/v1/runs/{run['id']}/patch").body.decode()


OPEN = """\
apiVersion: scarab/v1
kind: AgentManifest
metadata: {name: open, version: 1.0.0, description: may reach everything}
spec:
  trust_level: trusted
  network: {policy: full}
"""
CALLS = """\
wget -qO- --header "Authorization: Bearer $BOROUGH_KEY" "$BOROUGH_URL/agents/$SCARAB_AGENT_ID"; echo
wget -O- "$0" 2>&1 | tail -n 1
"""


def test_who_may_reach_everything_reaches_the_server_too_and_nobody_s_neighbourhood(town: RunningTown) -> None:
    run = begun(town, "sh", "-c", CALLS, town.url, manifest=OPEN)
    assert (run["admission"]["tools"], run["admission"]["domains"]) == (True, ["*"])
    comes_to(town, run, "succeeded")
    about, elsewhere = log_of(town, run).splitlines()
    assert json.loads(about)["id"] == run["agent"]["id"]
    assert "403" in elsewhere, "the server is reached by its name of its own, and by no other"


# -- git remotes -------------------------------------------------------------------------------------------------------

CLONES = """\
apiVersion: scarab/v1
kind: AgentManifest
metadata: {{name: cloner, version: 1.0.0, description: may reach one remote}}
spec:
  trust_level: sandboxed
  network: {{policy: allowlist, allowlist: ["127.0.0.1:{port}"]}}
"""
ON_HOST = {"image": "host", "memory_mib": 256}


@pytest.mark.parametrize("smart", [True, False], ids=["smart", "dumb"])
def test_a_remote_is_cloned_inside_by_the_way_that_the_manifest_leaves_open(
    town: RunningTown, tmp_path: Path, *, smart: bool
) -> None:
    commits = made_repository(tmp_path)
    with serving(tmp_path, smart=smart) as port:
        manifest, url = CLONES.format(port=port), f"http://127.0.0.1:{port}/code.git"
        asked: dict[str | None, str] = {None: "second", "topic": "other", commits["first"]: "first"}
        runs = {
            said: begun(
                town, "sh", "-c", "cat greeting; echo more >> greeting", manifest=manifest, **ON_HOST,
                source={"kind": "git", "url": url} | ({} if ref is None else {"ref": ref}),
            )
            for ref, said in asked.items()
        }  # fmt: skip
        for said, run in runs.items():
            done = comes_to(town, run, "succeeded")
            assert log_of(town, run) == f"{said}\n"
            assert done["result"]["files_changed"] == [{"path": "greeting", "kind": "modified"}]
            assert f" {said}\n+more\n" in town.request("GET", f"/v1/runs/{run['id']}/patch").body.decode()


def test_a_remote_that_the_manifest_does_not_list_is_refused_before_anything_is_made(
    town: RunningTown, tmp_path: Path
) -> None:
    made_repository(tmp_path)
    with serving(tmp_path, smart=True) as port:
        source = {"kind": "git", "url": f"http://127.0.0.1:{port}/code.git"}
        body = {"task": "t", "command": ["true"], "source": source, **ON_HOST}
        for manifest in (None, CLONES.format(port=port + 1)):
            refused = town.request("POST", "/v1/runs", {**body, "manifest": manifest})
            assert (refused.status, refused.json()["code"]) == (422, "run_refused")
            assert f"does not reach 127.0.0.1:{port}: put it on its allowlist" in refused.json()["reason"]
        missing = {**source, "url": f"http://127.0.0.1:{port}/none.git"}
        run = begun(town, "true", manifest=CLONES.format(port=port), source=missing, **ON_HOST)
        assert "cannot be cloned" in comes_to(town, run, "failed")["reason"]


def test_a_remote_is_named_by_command(town: RunningTown, tmp_path: Path) -> None:
    made_repository(tmp_path)
    with serving(tmp_path, smart=True) as port:
        (tmp_path / "manifest.yaml").write_text(CLONES.format(port=port))
        words = ("--git", f"http://127.0.0.1:{port}/code.git", "--ref", "topic", "--manifest")
        ran = borough(
            town, "run", "read", *words, str(tmp_path / "manifest.yaml"), "--memory", "256", "--", "cat", "greeting"
        )
        assert ran.stdout.startswith("other\n")
