"""Delivery over HTTP with real workers: whole texts, one winner, fenced latecomers, work that outlives its worker."""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from borough.adapters import process
from tests.contracts.servers import redis_binary
from tests.e2e.conftest import Answer, RunningTown, start_town, stop_town, until

LEASE = {"agent.lease_ms": "3000", "tasks.retry_base_ms": "50"}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTown]:
    town = start_town(tmp_path_factory.mktemp("delivery"), settings=LEASE)
    yield town
    stop_town(town)


class Hand:
    """A worker made by hand: every request of it is a test's own."""

    def __init__(self, town: RunningTown, name: str, **more: object) -> None:
        self.town = town
        registered = town.ok("POST", "/v1/workers", {"name": name, "cli": "true", **more})
        self.agent, self.token = registered["agent_id"], registered["token"]
        self.post("start", {"host": "elsewhere", "pid": 1, "started_ticks": 1})

    def post(self, word: str, body: object = None, *, query: str = "") -> Answer:
        return self.town.request("POST", f"/v1/agents/{self.agent}/{word}{query}", body, token=self.token)

    def claim(self, wait_s: float = 0) -> dict[str, Any] | None:
        answer = self.post("claim", query=f"?wait={wait_s}")
        assert answer.status in (200, 204), answer.body
        return answer.json() if answer.status == 200 else None

    def end(self) -> None:
        self.town.ok("POST", f"/v1/agents/{self.agent}/kill")


def complete(town: RunningTown, lease: dict[str, Any], result: str = "done") -> Answer:
    path = f"/v1/tasks/{lease['task']['task_id']}/complete"
    return town.request("POST", path, {"result": result}, token=lease["attempt_token"])


def task(town: RunningTown, task_id: str) -> dict[str, Any]:
    found: dict[str, Any] = town.ok("GET", f"/v1/tasks/{task_id}")
    return found


def test_five_kilobytes_of_lines_arrive_byte_for_byte(town: RunningTown) -> None:
    text = "\n".join(f"line {number}: ü € 😀 \t'\"$(touch x)`" for number in range(160)) + "\n\n  end  \n"
    assert len(text.encode()) > 5000
    script = town.root / "keep.py"
    script.write_text("import sys; open('prompt.bin', 'wb').write(sys.stdin.buffer.read()); print('kept')")
    town.ok("POST", "/v1/agents", {"name": "scribe", "cli": f"{sys.executable} {script}"})
    made = town.ok("POST", "/v1/tasks/assign", {"agent": "scribe", "task": text})
    done = until(lambda: (found := task(town, made["task_id"]))["state"] == "completed" and found)
    assert done["result"].strip() == "kept"
    assert text.encode() in (town.root / "prompt.bin").read_bytes()
    assert town.request("GET", f"/v1/tasks/{made['task_id']}/log").body.strip() == b"kept"
    town.ok("POST", "/v1/agents/scribe/kill")


def test_two_workers_race_for_one_task_and_one_wins(town: RunningTown) -> None:
    hands = [Hand(town, "racer-1"), Hand(town, "racer-2")]
    leases: list[dict[str, Any] | None] = []
    threads = [threading.Thread(target=lambda hand=hand: leases.append(hand.claim(1.5))) for hand in hands]
    for thread in threads:
        thread.start()
    town.ok("POST", "/v1/backlog", {"description": "only one"})
    for thread in threads:
        thread.join()
    won = [lease for lease in leases if lease is not None]
    assert len(won) == 1
    assert complete(town, won[0]).status == 200
    for hand in hands:
        hand.end()


def test_a_lost_answer_to_a_claim_is_repaired_by_asking_again(town: RunningTown) -> None:
    hand = Hand(town, "forgetful")
    town.ok("POST", "/v1/backlog", {"description": "once"})
    first, second = hand.claim(), hand.claim()
    assert first is not None
    assert second is not None
    assert first["task"]["task_id"] == second["task"]["task_id"]
    assert first["task"]["epoch"] == second["task"]["epoch"]
    assert complete(town, second).status == 200
    assert complete(town, first).status == 200  # the very same attempt: told again, done once
    assert [entry["event"] for entry in task(town, first["task"]["task_id"])["history"]].count("task_completed") == 1
    hand.end()


def test_a_late_completion_is_refused_and_changes_nothing(town: RunningTown) -> None:
    slow, quick = Hand(town, "slow"), Hand(town, "quick")
    made = town.ok("POST", "/v1/backlog", {"description": "contested"})
    late = slow.claim()
    assert late is not None
    fresh = until(lambda: quick.claim(1))
    assert fresh["task"]["task_id"] == made["task_id"]
    assert fresh["task"]["epoch"] > late["task"]["epoch"]
    assert fresh["task"]["last_error"] == "lease expired"
    before = task(town, made["task_id"])
    refused = complete(town, late, "too late")
    assert refused.status == 409
    assert refused.json()["code"] == "stale_epoch"
    assert task(town, made["task_id"])["result"] is None
    assert task(town, made["task_id"])["epoch"] == before["epoch"]
    assert complete(town, fresh, "in time").status == 200
    assert task(town, made["task_id"])["result"] == "in time"
    assert slow.post("heartbeat", {}).status == 409
    quick.end()


def test_a_killed_worker_is_noticed_and_its_task_goes_on_elsewhere(town: RunningTown) -> None:
    script = town.root / "first_hangs.py"
    script.write_text(
        "import pathlib, time\n"
        "started = pathlib.Path('started')\n"
        "if not started.exists():\n    started.touch()\n    time.sleep(600)\n"
    )
    cli = f"{sys.executable} {script}"
    for name in ("first", "second"):
        town.ok("POST", "/v1/agents", {"name": name, "cli": cli, "role_id": "lifter"})
    made = town.ok("POST", "/v1/backlog", {"description": "heavy", "role": "lifter"})
    until((town.root / "started").exists)
    holder = next(agent for agent in town.ok("GET", "/v1/status")["agents"] if agent["current_task"] == made["task_id"])
    os.kill(holder["pid"], signal.SIGKILL)
    done = until(lambda: (found := task(town, made["task_id"]))["state"] == "completed" and found)
    assert done["attempts"] == 2
    gone = town.ok("GET", f"/v1/agents/{holder['id']}")
    assert gone["state"] == "Error"
    assert "signal 9" in gone["reason"]
    other = "second" if holder["name"] == "first" else "first"
    town.ok("POST", f"/v1/agents/{other}/kill")


def test_a_role_is_served_by_its_own_and_by_generalists_only(town: RunningTown) -> None:
    reviewer, generalist = Hand(town, "reviewer-1", role_id="reviewer"), Hand(town, "anybody")
    made = town.ok("POST", "/v1/backlog", {"description": "back", "role": "backend"})
    assert reviewer.claim() is None
    told = town.ok("GET", f"/v1/tasks/{made['task_id']}/explain")
    assert told["state"] == "pending"
    assert told["next"]
    lease = generalist.claim()
    assert lease is not None
    assert complete(town, lease).status == 200
    reviewer.end()
    generalist.end()


def test_an_attempts_token_is_narrow(town: RunningTown) -> None:
    hand = Hand(town, "narrow")
    town.ok("POST", "/v1/backlog", {"description": "mine"})
    other = town.ok("POST", "/v1/backlog", {"description": "not mine", "role": "nobody"})
    lease = hand.claim()
    assert lease is not None
    mine = lease["attempt_token"]
    for method, path, body in (
        ("POST", f"/v1/tasks/{other['task_id']}/complete", {}),
        ("POST", "/v1/agents/narrow/kill", None),
        ("POST", f"/v1/tasks/{other['task_id']}/cancel", {}),
        ("DELETE", f"/v1/backlog/{other['task_id']}", None),
        ("POST", "/v1/backlog/assign-all", {"agent": "narrow"}),
        ("POST", f"/v1/agents/{hand.agent}/claim", None),
        ("POST", "/v1/reset", {"confirm": "x"}),
    ):
        assert town.request(method, path, body, token=mine).status == 403, path
    sent = town.request("POST", "/v1/messages/send", {"to": "supervisor", "message": "hi", "kind": "info"}, token=mine)
    assert sent.status == 201
    read = town.ok("GET", f"/v1/agents/supervisor/inbox/{sent.json()['message_id']}")
    assert (read["from"], read["text"]) == (hand.agent, "hi")
    assert town.request("GET", "/v1/status", token=mine).status == 200
    assert complete(town, lease).status == 200
    dead = town.request("POST", "/v1/messages/send", {"to": "supervisor", "message": "x", "kind": "info"}, token=mine)
    assert dead.status == 409
    town.ok("DELETE", f"/v1/backlog/{other['task_id']}")
    hand.end()


def test_events_stream_resume_and_tell_of_gaps(town: RunningTown) -> None:
    made = town.ok("POST", "/v1/backlog", {"description": "seen", "role": "nobody"})
    listed = town.ok("GET", f"/v1/events?task={made['task_id']}")["events"]
    assert [event["event_type"] for event in listed] == ["task_queued"]
    first = stream(town, "?type=task_cancelled", headers={"Last-Event-ID": listed[-1]["id"]}, act=lambda: cancel(made))
    assert first[0]["event"] == "task_cancelled"
    assert json.loads(first[0]["data"])["task_id"] == made["task_id"]
    resumed = stream(town, f"?task={made['task_id']}", headers={"Last-Event-ID": listed[-1]["id"]})
    assert resumed[0]["id"] == first[0]["id"]
    gap = stream(town, "", headers={"Last-Event-ID": "1-0"})
    assert gap[0]["event"] == "gap"
    foreign = {"Last-Event-ID": "x", "Accept": "text/event-stream"}
    assert town.request("GET", "/v1/events", headers=foreign).status == 400


def cancel(made: dict[str, Any]) -> tuple[str, str]:
    return "POST", f"/v1/tasks/{made['task_id']}/cancel"


def stream(town: RunningTown, query: str, *, headers: dict[str, str], act: Any = None) -> list[dict[str, str]]:
    """Open an event stream and return what its first block with data holds; ``act`` happens once it is open."""
    parts = urlsplit(town.url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    sent = {"Accept": "text/event-stream", "Authorization": f"Bearer {town.token}", **headers}
    connection.request("GET", f"/v1/events{query}", headers=sent)
    reply = connection.getresponse()
    assert reply.status == 200
    assert reply.getheader("content-type", "").startswith("text/event-stream")
    if act is not None:
        town.ok(*act())
    found: dict[str, str] = {}
    while True:
        line = reply.readline().decode().rstrip("\n")
        if line == "" and "data" in found:
            connection.close()
            return [found]
        name, _, value = line.partition(": ")
        if name:
            found[name] = value


def test_a_poison_task_ends_as_a_dead_letter_and_can_be_replayed(town: RunningTown) -> None:
    town.ok("POST", "/v1/agents", {"name": "clumsy", "cli": f"{sys.executable} -c 'raise SystemExit(3)'"})
    made = town.ok("POST", "/v1/tasks/assign", {"agent": "clumsy", "task": "break", "max_attempts": 2})
    dead = until(lambda: (found := task(town, made["task_id"]))["state"] == "failed" and found)
    assert dead["attempts"] == 2
    assert "exit code 3" in dead["last_error"]
    letters = town.ok("GET", "/v1/dead-letters")
    assert [letter["task_id"] for letter in letters["tasks"]] == [made["task_id"]]
    assert "dead letter" in town.ok("GET", f"/v1/tasks/{made['task_id']}/explain")["why"]
    town.ok("POST", "/v1/agents/clumsy/interrupt")
    again = town.ok("POST", "/v1/dead-letters/replay", {})
    assert again["tasks"] == [made["task_id"]]
    assert task(town, made["task_id"])["attempts"] == 0
    town.ok("POST", f"/v1/tasks/{made['task_id']}/cancel")
    town.ok("POST", "/v1/agents/clumsy/kill")


def test_the_same_town_on_a_redis_server_of_ones_own(tmp_path: Path) -> None:
    socket = tmp_path / "r.sock"
    argv = [str(redis_binary()), "--port", "0", "--unixsocket", str(socket), "--dir", str(tmp_path), "--save", ""]
    server = process.start_server(
        [*argv, "--appendonly", "yes", "--appendfsync", "always"], env={}, cwd=tmp_path, log=tmp_path / "redis.log"
    )
    folder = tmp_path / "town"
    folder.mkdir()
    try:
        until(socket.exists)
        town = start_town(folder, environ={"REDIS_URL": f"unix://{socket}"})
        try:
            assert town.ok("GET", "/v1/town")["redis_url"] == f"unix://{socket}"
            town.ok("POST", "/v1/agents", {"name": "ada", "cli": "cat"})
            made = town.ok("POST", "/v1/tasks/assign", {"agent": "ada", "task": "echo"})
            until(lambda: task(town, made["task_id"])["state"] == "completed")
            assert not (folder / ".tt" / "store").exists()
        finally:
            assert stop_town(town) == 0
        assert server.poll() is None  # somebody else's server is left alone
    finally:
        server.terminate()
        server.wait(10)


def test_borough_up_makes_a_town_where_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "fresh").mkdir()
    program = "import sys; from borough.cli.borough import main; sys.exit(main())"
    child = process.start(
        [sys.executable, "-c", program, "up", "--port", "0"], env=dict(os.environ), cwd=tmp_path / "fresh"
    )
    state = tmp_path / "fresh" / ".tt" / "server.json"
    try:
        until(state.exists)
        assert (tmp_path / "fresh" / "tinytown.toml").exists()
    finally:
        child.terminate()
        assert child.wait(40) == 0
    assert not state.exists()


def test_a_graceful_stop_gives_work_back_and_the_next_start_goes_on(tmp_path: Path) -> None:
    script = tmp_path / "first_hangs.py"
    script.write_text("import pathlib, time\nif not pathlib.Path('go').exists():\n    time.sleep(600)\n")
    town = start_town(tmp_path, settings=LEASE)
    try:
        town.ok("POST", "/v1/agents", {"name": "steady", "cli": f"{sys.executable} {script}"})
        made = town.ok("POST", "/v1/tasks/assign", {"agent": "steady", "task": "outlive a restart"})
        until(lambda: task(town, made["task_id"])["state"] == "running")
        pid = town.ok("GET", "/v1/agents/steady")["pid"]
        assert stop_town(town) == 0
        assert not Path(f"/proc/{pid}").exists()
        (tmp_path / "go").touch()
        town = start_town(tmp_path)
        done = until(lambda: (found := task(town, made["task_id"]))["state"] == "completed" and found)
        assert done["attempts"] == 1
        assert town.ok("GET", "/v1/agents/steady")["incarnation"] > 1
    finally:
        stop_town(town)


def test_a_dead_workers_token_reads_nothing_any_more(town: RunningTown) -> None:
    hand = Hand(town, "ghost")
    assert town.request("GET", "/v1/status", token=hand.token).status == 200
    hand.end()
    assert town.request("GET", "/v1/status", token=hand.token).status == 409


def test_the_towns_settings_say_how_often_a_task_is_tried(tmp_path: Path) -> None:
    town = start_town(tmp_path, settings={"tasks.max_attempts": "7"})
    try:
        made = town.ok("POST", "/v1/backlog", {"description": "x"})
        assert task(town, made["task_id"])["max_attempts"] == 7
    finally:
        stop_town(town)
