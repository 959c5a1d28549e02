"""Random SIGKILL of workers, of the server and of the store while 500 tasks run: nothing is lost, nothing done twice.

Ten seconds of it by default, ``BOROUGH_SOAK_S`` of it in ``make soak``.
"""

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from tests.e2e.conftest import RunningTown, start_town, stop_town, until

STORM_S = float(os.environ.get("BOROUGH_SOAK_S", "10"))
TASKS = max(500, int(50 * STORM_S))
WORKERS = ("north", "east", "south", "west")
SETTINGS = {
    "agent.lease_ms": "2000",
    "tasks.max_attempts": "20",
    "tasks.retry_base_ms": "50",
    "tasks.retry_cap_ms": "200",
    "agent_clis.quick.command": "true",
}
SEED = 20_261_122


class Storm:
    """A town under attack."""

    def __init__(self, town: RunningTown) -> None:
        self.town = town
        self.port = urlsplit(town.url).port or 0
        self.acknowledged: set[str] = set()
        self.recoveries: dict[str, list[float]] = {"worker": [], "server": [], "store": []}
        self.over = threading.Event()
        self.random = random.Random(SEED)
        self.plan: list[Callable[[], None]] = []

    def persistently(self, method: str, path: str, body: object, key: str) -> dict[str, object]:
        """Repeat one request under one key until the server answers it."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                answer = self.town.request(method, path, body, headers={"Idempotency-Key": key}, timeout_s=10)
            except (OSError, HTTPException):
                time.sleep(0.05)
                continue
            if answer.status < 300:
                return answer.json()
            assert answer.status in (409, 503), (answer.status, answer.body)
            time.sleep(0.05)
        raise AssertionError(f"{method} {path} was never answered")

    def produce(self) -> None:
        for number in range(TASKS):
            made = self.persistently("POST", "/v1/backlog", {"description": f"task {number}"}, f"storm-{number}")
            self.acknowledged.add(str(made["task_id"]))
            time.sleep(STORM_S / TASKS / 2)

    def keep_workers(self) -> None:
        """Do what an operator's script would do: start again whoever ended."""
        while not self.over.wait(0.2):
            try:
                agents = self.town.ok("GET", "/v1/status")["agents"]
                for agent in agents:
                    if agent["state"] in ("Error", "Stopped"):
                        self.town.request("POST", f"/v1/agents/{agent['name']}/restart")
            except (OSError, HTTPException, AssertionError):
                continue

    def strike(self) -> None:
        if not self.plan:
            self.plan = [self.kill_worker, self.kill_worker, self.kill_server, self.kill_store]
            self.random.shuffle(self.plan)
        self.plan.pop()()

    def kill_worker(self) -> None:
        victim = self.random.choice(until(self.living))
        began = time.monotonic()
        try:
            os.kill(victim["pid"], signal.SIGKILL)
        except ProcessLookupError:
            return
        until(lambda: self.is_up_again(victim))
        self.recoveries["worker"].append(time.monotonic() - began)

    def living(self) -> list[dict[str, object]]:
        try:
            agents = self.town.ok("GET", "/v1/status")["agents"]
        except (OSError, HTTPException, AssertionError):
            return []
        return [agent for agent in agents if agent["live"] and agent["pid"]]

    def is_up_again(self, victim: dict[str, object]) -> bool:
        try:
            now = self.town.ok("GET", f"/v1/agents/{victim['name']}")
        except (OSError, HTTPException, AssertionError):
            return False
        return bool(now["live"]) and now["incarnation"] != victim["incarnation"] and now["pid"] is not None

    def kill_server(self) -> None:
        began = time.monotonic()
        self.town.process.kill()
        self.town.process.wait()
        self.town = start_town(self.town.root, port=self.port)
        self.recoveries["server"].append(time.monotonic() - began)

    def kill_store(self) -> None:
        pid = store_pid(self.town.root)
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        until(lambda: self.store_is_back(pid))
        self.recoveries["store"].append(time.monotonic() - began)

    def store_is_back(self, old_pid: int) -> bool:
        try:
            return store_pid(self.town.root) != old_pid and self.town.request("GET", "/ready").status == 200
        except (OSError, HTTPException, KeyError, ValueError):
            return False


def store_pid(root: Path) -> int:
    """Return the embedded store's pid, as its own record says."""
    found = json.loads((root / ".tt" / "store" / "server.json").read_text())
    return int(found["pid"])


def test_a_storm_loses_nothing_and_does_nothing_twice(tmp_path: Path) -> None:
    storm = Storm(start_town(tmp_path, settings=SETTINGS))
    threads = [threading.Thread(target=storm.produce), threading.Thread(target=storm.keep_workers)]
    try:
        for name in WORKERS:
            storm.town.ok("POST", "/v1/agents", {"name": name, "cli": "quick"})
        for thread in threads:
            thread.start()
        end = time.monotonic() + STORM_S
        while time.monotonic() < end:
            storm.strike()
            time.sleep(storm.random.uniform(0.1, 0.6))
        threads[0].join(timeout=120)
        until(lambda: all_done(storm), within_s=120)
        check(storm)
    finally:
        storm.over.set()
        for thread in threads:
            thread.join(timeout=60)
        stop_town(storm.town)
    told = {who: [round(seconds, 2) for seconds in times] for who, times in storm.recoveries.items()}
    print(f"recovery in s: {told}")  # noqa: T201 - the figures are the point of a soak


def all_done(storm: Storm) -> bool:
    counts = storm.town.ok("GET", "/v1/status?deep=true")["tasks"]
    return counts.get("completed", 0) >= len(storm.acknowledged)


def check(storm: Storm) -> None:
    """Every acknowledged task is there, completed, and was completed once."""
    found, cursor = {}, ""
    while True:
        page = storm.town.ok("GET", f"/v1/tasks?limit=1000{cursor}")
        found.update({task["task_id"]: task for task in page["tasks"]})
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert len(storm.acknowledged) == TASKS
    assert set(found) == storm.acknowledged
    assert Counter(task["state"] for task in found.values()) == {"completed": TASKS}
    for task_id in storm.acknowledged:
        history = storm.town.ok("GET", f"/v1/tasks/{task_id}")["history"]
        assert [entry["event"] for entry in history].count("task_completed") == 1, history
