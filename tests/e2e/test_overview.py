"""``borough up`` as one: events of all contexts in one stream, what needs a person, why, and the proof."""

import json
import socket
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.e2e.conftest import RunningTown, run_tool, until
from tests.e2e.test_borough_up_fleet import SMALL, up


@pytest.fixture(scope="module")
def town() -> Iterator[RunningTown]:
    with up() as running:
        until(lambda: running.ok("GET", "/ready")["fleet"] == "ready")
        yield running


class Listener:
    """Reads a stream of events in a thread of its own."""

    def __init__(self, stream: HTTPResponse) -> None:
        self.events: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.gaps: list[dict[str, Any]] = []
        self._stream = stream
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        fields: dict[str, str] = {}
        try:
            for line in self._stream:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                elif "data" in fields:
                    told = json.loads(fields["data"])
                    if fields["event"] == "gap":
                        self.gaps.append(told)
                    else:
                        self.events.append(told)
                        self.ids.append(fields["id"])
                    fields = {}
        except (OSError, ValueError, AttributeError):
            return  # the test has closed it

    def has(self, **wanted: Any) -> dict[str, Any]:
        """Return the first event with these members, as soon as it is there."""
        found: dict[str, Any] = until(
            lambda: next((each for each in self.events if wanted.items() <= each.items()), None)
        )
        return found


@contextmanager
def listening(town: RunningTown, query: str = "", *, after: str = "", token: str | None = "") -> Iterator[Listener]:
    connection = town.connection()
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": after} if after else {})}
    if token is not None:
        headers["Authorization"] = f"Bearer {token or town.token}"
    connection.request("GET", f"/v1/events{query}", headers=headers)
    sock = connection.sock
    assert sock is not None
    try:
        yield Listener(connection.getresponse())
    finally:
        sock.shutdown(socket.SHUT_RDWR)
        connection.close()


def make_env(town: RunningTown, name: str) -> None:
    """Make an environment of one machine; another program may have taken the port that was chosen for it."""

    def made() -> bool:
        if town.tt("env", "create", name, "-i", "local-root", *SMALL, check=False).returncode == 0:
            return True
        town.tt("env", "delete", name)
        return False

    until(made)


# -- one stream --------------------------------------------------------------------------------------------------------


def test_all_contexts_are_in_one_stream_and_it_is_resumed_over_all_of_them(town: RunningTown) -> None:
    with listening(town) as all_of_it, listening(town, "?context=fleet&subject=one") as of_one:
        task = town.ok("POST", "/v1/backlog", {"description": "one of three"})["task_id"]
        make_env(town, "one")
        queued = all_of_it.has(context="town", kind="task_queued")
        made = all_of_it.has(context="fleet", kind="env.created")
        town.tt("env", "delete", "one")
        all_of_it.has(context="fleet", kind="env.removed")
        of_one.has(kind="env.removed")
    assert (queued["task_id"], queued["event_type"], queued["subject"]) == (
        task, "task_queued", {"kind": "task", "id": task},
    )  # fmt: skip
    assert (made["subject"], made["data"]["by"]) == ({"kind": "env", "id": "one"}, "operator")
    assert {event["context"] for event in of_one.events} == {"fleet"}
    assert all("one" in event["data"].values() for event in of_one.events)

    middle = all_of_it.events.index(made)
    with listening(town, after=all_of_it.ids[middle]) as rest:
        rest.has(kind="env.removed")
    known = [event["id"] for event in all_of_it.events]
    again = [event["id"] for event in rest.events]
    assert again[: len(known) - middle - 1] == known[middle + 1 :]
    assert len(set(again)) == len(again)


def test_what_the_ledger_has_of_governance_itself_comes_once(town: RunningTown) -> None:
    with listening(town) as listener:
        assert town.request("GET", "/agents", token="a-guess").status == 401
        told = listener.has(context="governance")
    assert told["data"]["via"] == "http"
    assert told["kind"] == told["data"]["action"]
    assert not [
        event for event in listener.events if event["context"] == "governance" and event["kind"].startswith("town.")
    ]


def test_the_list_has_all_contexts_and_leads_on_to_the_stream(town: RunningTown) -> None:
    first = town.ok("POST", "/v1/backlog", {"description": "listed"})["task_id"]
    listed = town.ok("GET", "/v1/events?limit=1000")
    assert {"town", "fleet", "governance"} <= {event["context"] for event in listed["events"]}
    assert town.ok("GET", f"/v1/events?task={first}&type=task_queued")["count"] == 1
    second = town.ok("POST", "/v1/backlog", {"description": "followed"})["task_id"]
    with listening(town, after=listed["cursor"]) as listener:
        assert listener.has(kind="task_queued")["task_id"] == second
    # A client that knows of the town alone goes on with one of its ids.
    last = [event["id"] for event in listed["events"] if event["context"] == "town"][-1]
    with listening(town, after=last) as listener:
        assert listener.has(kind="task_queued")["task_id"] == second


def test_what_was_never_there_is_told_as_a_gap_of_its_context(town: RunningTown) -> None:
    with listening(town, after="fleet:900000") as listener:
        assert until(lambda: listener.gaps)[0] == {
            "context": "fleet",
            "missed_after": "900000",
            "resumes_at": until(lambda: listener.gaps)[0]["resumes_at"],
        }
    refused = town.request(
        "GET", "/v1/events", headers={"Accept": "text/event-stream", "Last-Event-ID": "no such thing"}
    )
    assert (refused.status, refused.json()["code"]) == (400, "invalid_last_event_id")


def test_whoever_has_no_credential_sees_the_town_alone(town: RunningTown) -> None:
    listed = json.loads(town.request("GET", "/v1/events?limit=1000", token=None).body)
    assert {event["context"] for event in listed["events"]} == {"town"}
    refused = town.request("GET", "/v1/events?context=governance", token=None)
    assert (refused.status, refused.json()["code"]) == (403, "insufficient_scope")
    assert town.request("GET", "/v1/events?context=moon").status == 400


# -- what needs a person -----------------------------------------------------------------------------------------------

MANIFEST = """
apiVersion: scarab/v1
kind: AgentManifest
metadata: {name: asker, version: 0.1.0, description: asks before it writes}
spec:
  trust_level: sandboxed
  capabilities: ["tool.invoke:fs.*", "fs.read:/workspace/**", "fs.write:/workspace/**"]
  policy: [{id: publishing, effect: ask, capability: "fs.write:/workspace/published/**"}]
"""


def attention(town: RunningTown, kind: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = town.ok("GET", f"/v1/attention?kind={kind}")["items"]
    return items


def act(town: RunningTown, item: dict[str, Any], label: str) -> None:
    """Do what an item says that settles it."""
    action = next(each for each in item["actions"] if each["label"] == label)
    town.ok(action["method"], action["path"], action["body"] if action["method"] != "GET" else None)


@pytest.fixture(scope="module")
def asker(town: RunningTown) -> str:
    """An agent that must ask before it writes into one folder, and that asks."""
    made: str = town.ok("POST", "/agents", {"manifest_yaml": MANIFEST})["id"]
    town.ok("POST", f"/agents/{made}/transitions", {"state": "plan"})
    town.ok("POST", f"/agents/{made}/transitions", {"state": "act"})
    call = {"path": "/workspace/published/page", "content": "news"}
    asked = town.request("POST", f"/agents/{made}/tools/fs.write", call, headers={"Prefer": "respond-async"})
    assert asked.status in {200, 202}, asked.body
    return made


def test_a_call_that_waits_for_agreement_is_in_the_queue_until_somebody_agrees(town: RunningTown, asker: str) -> None:
    (item,) = until(lambda: attention(town, "approval"))
    assert (item["title"], item["urgency"]) == ("asker wants to call fs.write", "now")
    assert "published/page" in item["why"]
    assert item["deadline"] is not None
    assert item["deadline"] in item["safe_default"]
    act(town, item, "Approve")
    assert attention(town, "approval") == []


def test_work_that_failed_for_good_and_questions_are_in_the_queue_until_they_are_settled(town: RunningTown) -> None:
    task = town.ok("POST", "/v1/backlog", {"description": "cannot be done"})["task_id"]
    town.ok("POST", f"/v1/tasks/{task}/fail", {"reason": "no paint"})
    (dead,) = attention(town, "dead_letter")
    assert (dead["subject"]["id"], "no paint" in dead["why"]) == (task, True)
    shown = json.loads(
        run_tool("borough.cli.borough", "attention", "--json", cwd=town.root, environ=town.environ).stdout
    )
    assert dead["id"] in {item["id"] for item in shown["items"]}
    act(town, dead, "Try again")
    assert attention(town, "dead_letter") == []
    town.ok("POST", f"/v1/tasks/{task}/cancel", {})

    town.ok("POST", "/v1/messages/send", {"to": "supervisor", "message": "Which colour?", "kind": "query"})
    (question,) = attention(town, "question")
    assert question["why"] == "Which colour?"
    act(town, question, "Put it away")
    assert attention(town, "question") == []


def test_the_queue_is_paged_and_shows_only_what_the_caller_may_see(town: RunningTown) -> None:
    tasks = [town.ok("POST", "/v1/backlog", {"description": f"hopeless {number}"})["task_id"] for number in range(5)]
    for task in tasks:
        town.ok("POST", f"/v1/tasks/{task}/fail", {"reason": "no"})
    found, cursor = [], ""
    while cursor is not None:
        page = town.ok("GET", f"/v1/attention?limit=2{f'&cursor={cursor}' if cursor else ''}")
        assert len(page["items"]) <= 2
        found += [item["subject"]["id"] for item in page["items"] if item["kind"] == "dead_letter"]
        cursor = page["next_cursor"]
    assert found == tasks
    assert town.request("GET", "/v1/attention?cursor=bm8").status == 400
    open_to_all = json.loads(town.request("GET", "/v1/attention", token=None).body)
    assert {item["kind"] for item in open_to_all["items"]} == {"dead_letter"}
    for task in tasks:
        town.ok("POST", f"/v1/tasks/{task}/retry", {})
        town.ok("POST", f"/v1/tasks/{task}/cancel", {})


# -- why, and where ----------------------------------------------------------------------------------------------------


def explained(town: RunningTown, thing: str) -> dict[str, Any]:
    told: dict[str, Any] = town.ok("GET", f"/v1/explain/{quote(thing, safe='')}")
    return told


def test_anything_is_explained_by_its_name_or_the_beginning_of_its_id(town: RunningTown, asker: str) -> None:
    task = town.ok("POST", "/v1/backlog", {"description": "a curious thing"})["task_id"]
    told = explained(town, task[:8])
    assert (told["kind"], told["id"], told["state"]) == ("task", task, "pending")
    assert "no such agent runs" in told["why"]
    assert any("tt spawn" in step for step in told["next"])
    assert told["history"][0]["what"].startswith("task_queued")
    town.ok("POST", f"/v1/tasks/{task}/cancel", {})

    agent = explained(town, "asker")
    assert (agent["kind"], agent["id"], agent["state"]) == ("agent", asker, "running")
    assert any("fs.write" in line["what"] for line in agent["history"])
    number = town.ok("GET", "/audit?order=newest&limit=1")[0]["seq"]
    assert explained(town, f"#{number}")["kind"] == "decision"


def test_a_machine_leads_to_its_environment_and_its_host(town: RunningTown) -> None:
    make_env(town, "why")
    shown = run_tool("borough.cli.borough", "explain", "why", "--json", cwd=town.root, environ=town.environ).stdout
    env = json.loads(shown)
    assert (env["kind"], env["state"]) == ("env", "active")
    (vm,) = [each for each in env["related"] if each["kind"] == "vm"]
    machine = explained(town, vm["id"])
    assert (machine["kind"], machine["state"]) == ("vm", "running")
    assert machine["history"][0]["by"] == "operator"
    (host,) = [each["id"] for each in machine["related"] if each["kind"] == "host"]
    assert explained(town, host)["state"] == "online"
    found = town.ok("GET", f"/v1/search?q={vm['id'][:5]}")["found"]
    assert [(each["kind"], each["id"]) for each in found] == [("vm", vm["id"])]
    assert {each["kind"] for each in town.ok("GET", "/v1/search?q=wh")["found"]} >= {"env"}
    town.tt("env", "delete", "why")
    assert town.request("GET", "/v1/explain/why-not").status == 404


def test_what_may_mean_several_things_names_them(town: RunningTown) -> None:
    tasks = [town.ok("POST", "/v1/backlog", {"description": "twins of one kind"})["task_id"] for _ in range(2)]
    refused = town.request("GET", "/v1/explain/twins").json()
    assert (refused["status"], refused["code"]) == (409, "ambiguous")
    assert set(refused["details"]["candidates"]) == {f"task {task}" for task in tasks}
    for task in tasks:
        town.ok("POST", f"/v1/tasks/{task}/cancel", {})


def test_law_and_machines_are_not_explained_to_whoever_has_no_credential(town: RunningTown, asker: str) -> None:
    assert town.request("GET", f"/v1/explain/{asker}", token=None).status == 404
    assert json.loads(town.request("GET", "/v1/search?q=asker", token=None).body)["found"] == []


# -- proof -------------------------------------------------------------------------------------------------------------


def verify(file: Path, *words: str) -> "tuple[int, dict[str, Any]]":
    """Verify as on another machine: with no town, no server and no settings at hand."""
    done = run_tool("borough.cli.borough", "verify", str(file), "--json", *words, cwd=file.parent, check=False)
    return done.returncode, json.loads(done.stdout)


def test_evidence_is_written_into_a_file_and_verified_with_nothing_else(
    town: RunningTown, asker: str, tmp_path: Path
) -> None:
    file = tmp_path / "asker.evidence"
    told = run_tool(
        "borough.cli.borough", "evidence", "export", "asker", "-o", str(file), cwd=town.root, environ=town.environ
    )
    assert "verify it" in told.stdout
    code, found = verify(file)
    assert (code, found["verified"], found["of"]) == (0, True, f"agent {asker}")
    key = town.request("GET", "/audit/key").body.decode().strip()
    assert found["key"] == key
    assert verify(file, "--key", key)[0] == 0

    with tarfile.open(file) as archive:
        members = {member.name: archive.extractfile(member) for member in archive}
        read = {name: content.read() for name, content in members.items() if content is not None}
    assert json.loads(read["agent.json"])["manifest_sha256"] == sha256(read["manifest.yaml"]).hexdigest()
    assert any(each["action"] == "ApprovalRequested" for each in json.loads(read["decisions.json"]))
    entries = [json.loads(line) for line in read["ledger/entries.jsonl"].splitlines()]
    assert {entry["action"] for entry in entries} >= {"AgentSpawn", "ToolInvoke", "EvidenceExport"}
    assert entries[-1]["data"]["by"] == "operator"

    changed = file.read_bytes().replace(b"asks before it writes", b"asks after it writes!")
    (tmp_path / "changed").write_bytes(changed)
    code, found = verify(tmp_path / "changed")
    assert (code, found["verified"], found["part"]) == (1, False, "manifest.yaml")


def test_there_is_no_evidence_of_what_has_none_and_for_whom_it_is_not(town: RunningTown, asker: str) -> None:
    task = town.ok("POST", "/v1/backlog", {"description": "proves nothing"})["task_id"]
    refused = town.request("GET", f"/v1/evidence/{task}")
    assert (refused.status, refused.json()["code"]) == (422, "no_evidence")
    refused = town.request("GET", f"/v1/evidence/{asker}", token=None)
    assert (refused.status, refused.json()["code"]) == (403, "insufficient_scope")
    town.ok("POST", f"/v1/tasks/{task}/cancel", {})


# -- runs --------------------------------------------------------------------------------------------------------------


def test_a_run_is_in_the_stream_explained_found_and_proven(town: RunningTown, tmp_path: Path) -> None:
    manifest = MANIFEST.replace("asker", "runner")
    with listening(town, "?context=runs") as listener:
        order = {"task": "leave a mark", "manifest": manifest, "engine": "bubblewrap", "image": "local-root"}
        run = town.ok("POST", "/v1/runs", {**order, "command": ["sh", "-c", "echo a mark"]})["id"]
        ended = until(lambda: (told := town.ok("GET", f"/v1/runs/{run}?wait=5"))["ended_at"] and told)
        assert ended["state"] == "succeeded", ended
        until(lambda: any(event["data"].get("state") == "succeeded" for event in listener.events))
    assert {event["subject"]["id"] for event in listener.events} == {run}

    def machine_is_gone() -> bool:
        gone = town.ok("GET", "/v1/events?context=fleet&kind=vm.removed&limit=1000")["events"]
        return any(event["data"]["by"] == f"run:{run}" for event in gone)

    until(machine_is_gone)
    told = explained(town, run[:8])
    assert (told["kind"], told["id"], told["state"]) == ("run", run, "succeeded")
    assert {each["kind"] for each in told["related"]} >= {"task", "agent", "vm"}
    assert town.ok("GET", f"/v1/search?q={run[:8]}")["found"][0]["kind"] == "run"

    answer = town.request("GET", f"/v1/runs/{run}/evidence")
    (tmp_path / "run.evidence").write_bytes(answer.body)
    code, found = verify(tmp_path / "run.evidence")
    assert (code, found["of"]) == (0, f"run {run}")
    with tarfile.open(tmp_path / "run.evidence") as archive:
        members = {member.name: archive.extractfile(member) for member in archive}
        read = {name: content.read() for name, content in members.items() if content is not None}
    (log,) = json.loads(read["digests.json"])["logs"]
    assert json.loads(read["run.json"])["spent"]
    entries = [json.loads(line) for line in read["ledger/entries.jsonl"].splitlines()]
    placed = [entry for entry in entries if entry["via"] == "fleet"]
    assert {entry["data"]["by"] for entry in placed} == {f"run:{run}"}
    assert {"fleet.vm.planned", "fleet.vm.removed", "RunEnd"} <= {entry["action"] for entry in entries}
    printed = town.request("GET", f"/v1/runs/{run}/log").body
    assert log == {"attempt": 1, "sha256": sha256(printed).hexdigest(), "bytes": len(printed)}
