"""An operator's bad day: while runs are in flight each part of a borough is killed in turn with ``kill -9``.

Nothing is lost, nothing is done twice, and how long each took to be back is printed.
"""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from borough.adapters import procfs
from borough.adapters.process import OWNER, Marker
from tests.e2e.conftest import Answer, RunningTown, start_town, stop_town, until
from tests.e2e.test_borough_up_fleet import data, environment
from tests.e2e.test_runs import SMALL
from tests.faults.test_runs_die import folder
from tests.faults.test_storm import store_pid

RUNS = 50
GOALS_S = {"server": 3.0, "store": 3.0, "machine": 2.0, "program": 2.0, "nursery": 2.0}
MOST_S = 20.0
"""What a machine that is busy with other things may make of the goals."""
SCRIPT = "echo once >> done; sleep 0.4; echo attempt $BOROUGH_ATTEMPT"
WAITS = frozenset({"admitted", "preparing"})
OVER = frozenset({"succeeded", "failed", "cancelled", "killed", "refused"})


class BadDay:
    """A borough whose parts are killed, and how soon each is back."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.town = self._started(0)
        self.port = int(self.town.url.rpartition(":")[2])
        self.runs: list[str] = []
        self.struck: set[str] = set()
        """Runs of which a machine or a program was killed: these have a second attempt."""
        self.took: dict[str, float] = {}

    def _started(self, port: int) -> RunningTown:
        return start_town(self.root, governed=True, environ=environment(self.root), port=port)

    def ask(self) -> None:
        """Ask for every run, as a script would: each under a key of its own, until it is answered."""
        for number in range(RUNS):
            body = {"task": f"task {number}", "command": ["sh", "-c", SCRIPT], **SMALL, "labels": {"day": "bad"}}
            self.runs.append(self._answered("POST", "/v1/runs", body, key=f"day-{number}").json()["id"])

    def _answered(self, method: str, path: str, body: Any = None, *, key: str = "") -> Answer:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError, HTTPException):
                answer = self.town.request(method, path, body, headers={"Idempotency-Key": key} if key else {})
                if answer.status < 300:
                    return answer
                assert answer.status in (409, 503), (answer.status, answer.body)
            time.sleep(0.02)
        raise AssertionError(f"{method} {path} was never answered")

    def all(self) -> list[dict[str, Any]]:
        """Return every run as it is now."""
        found: list[dict[str, Any]] = self._answered("GET", f"/v1/runs?label=day%3Dbad&limit={RUNS}").json()["runs"]
        return found

    def over(self) -> int:
        """Return how many runs have ended."""
        return sum(run["state"] in OVER for run in self.all())

    def working(self) -> dict[str, Any]:
        """Return a run whose command is inside its machine, and of which nothing was killed yet."""

        def holds() -> dict[str, Any] | None:
            runs = [run for run in self.all() if run["state"] == "working" and run["id"] not in self.struck]
            return runs[0] if runs else None

        found: dict[str, Any] = until(holds)
        return found

    # -- what is killed ------------------------------------------------------------------------------------------------

    def kill_server(self) -> None:
        began = time.monotonic()
        self.town.process.kill()
        self.town.process.wait()
        self.town = self._started(self.port)
        self._answered("GET", "/v1/runs")
        self.took["server"] = time.monotonic() - began

    def kill_store(self) -> None:
        pid = store_pid(self.root)
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)

        def is_back() -> bool:
            with suppress(OSError, HTTPException, KeyError, ValueError):
                return store_pid(self.root) != pid and self.town.request("GET", "/ready").status == 200
            return False

        until(is_back)
        self.took["store"] = time.monotonic() - began

    def kill_nursery(self) -> None:
        """Kill where the host's machines are born: the next one is born all the same."""
        began = time.monotonic()
        found = self._owned("nursery")  # with what it has made ahead, which ends with it or is a machine's by then
        below = {each.pid for ref in found for each in procfs.descendants(ref.pid)}
        procfs.tell([ref for ref in found if ref.pid not in below], signal.SIGKILL)
        before = {run["id"] for run in self.all() if run["state"] not in WAITS}

        def is_born() -> bool:
            return any(run["id"] not in before and run["state"] not in WAITS for run in self.all())

        until(is_born)
        self.took["nursery"] = time.monotonic() - began

    def kill_machine(self) -> None:
        self._strike("machine", lambda vm_id: self._owned("machine", vm_id))

    def kill_program(self) -> None:
        def programs(vm_id: str) -> list[procfs.ProcessRef]:
            inside = [ref for top in self._owned("machine", vm_id) for ref in procfs.descendants(top.pid)]
            return [ref for ref in inside if _words(ref.pid) == ["sh", "-c", SCRIPT]]

        self._strike("program", programs)

    def _strike(self, what: str, victims: Callable[[str], list[procfs.ProcessRef]]) -> None:
        """Kill something of a run that works; where it was done just before, something of another."""
        while what not in self.took:
            run = self.working()
            found = victims(run["machine"]["vm_id"])
            began = time.monotonic()
            procfs.tell(found, signal.SIGKILL)

            def settled(run_id: str = run["id"]) -> dict[str, Any] | None:
                now: dict[str, Any] = self._answered("GET", f"/v1/runs/{run_id}").json()
                return now if now["attempts"][0]["ended_at"] else None

            now = until(settled)
            if (now["state"], now["attempt"]) != ("succeeded", 1):
                self.took[what] = time.monotonic() - began
                self.struck.add(run["id"])

    def _owned(self, word: str, vm_id: str = "") -> list[procfs.ProcessRef]:
        marker = (self.root / ".tt" / "fleet" / "host" / "marker").read_text().strip()
        return procfs.owned(Marker(OWNER, f"{word}:{marker}:{vm_id}"))


def _words(pid: int) -> list[str]:
    with suppress(OSError):
        return [word.decode() for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]]
    return []


def test_each_part_is_killed_while_runs_are_in_flight_and_nothing_is_lost_nor_done_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with folder() as root:
        day = BadDay(root)
        asking = threading.Thread(target=day.ask)
        try:
            asking.start()
            strikes = (day.kill_machine, day.kill_server, day.kill_nursery, day.kill_store, day.kill_program)
            for number, strike in enumerate(strikes, start=1):
                until(lambda least=number * 3: day.over() >= least, within_s=120)
                strike()
            asking.join(timeout=120)
            until(lambda: day.over() == RUNS, within_s=180)
            check(day)
        finally:
            asking.join(timeout=120)
            stop_town(day.town)
    with capsys.disabled():
        told = ", ".join(f"{what} {took:.2f} s (goal {GOALS_S[what]:g})" for what, took in day.took.items())
        print(f"\nback after kill -9, with {RUNS} runs in flight: {told}")  # noqa: T201 - the story is to tell it
    assert max(day.took.values()) < MOST_S, day.took


def told_of(run: dict[str, Any]) -> str:
    return f"{run['task']}: " + "; ".join(str(each["outcome"]) for each in run["attempts"])


def check(day: BadDay) -> None:
    """Every run that was asked for is there, has succeeded, and was done once by the attempt that counts."""
    runs = {run["id"]: run for run in day.all()}
    assert sorted(runs) == sorted(day.runs)
    assert Counter(run["state"] for run in runs.values()) == {"succeeded": RUNS}, [
        run["reason"] for run in runs.values()
    ]
    for run_id, run in runs.items():
        attempts = 2 if run_id in day.struck else 1
        assert (run["attempt"], run["result"]["answer"]) == (attempts, f"attempt {attempts}"), told_of(run)
        patch = day.town.request("GET", f"/v1/runs/{run_id}/patch").body.decode()
        assert patch.count("+once") == 1, patch
        task = day.town.ok("GET", f"/v1/tasks/{run['task_id']}")
        assert [entry["event"] for entry in task["history"]].count("task_completed") == 1
        assert (task["state"], task["attempts"]) == ("completed", attempts)
    until(lambda: data(day.town, "/api/envs") == [])
    assert [agent for agent in day.town.ok("GET", "/v1/status")["agents"] if agent["state"] == "Working"] == []
