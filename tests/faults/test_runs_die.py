"""Runs whose server is killed at one of its steps, or whose machine is: nothing is lost, nothing done twice.

Every step is taken in ``make soak``; otherwise those after which something has happened that no row tells of yet.
"""

import asyncio
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from typing import Any

from borough.adapters.sql.engine import Database
from borough.adapters.sql.runs.store import SqlRuns
from borough.adapters.sql.runs.tables import RUNS
from borough.core.ids import new_id
from borough.runs.runs import Wish
from tests.e2e.conftest import Answer, RunningTown, start_town, stop_town, until
from tests.e2e.test_borough_up_fleet import data, environment
from tests.e2e.test_runs import SMALL, begun, comes_to, shown

NOTICED_WITHIN_S = 5.0
"""It is some tenths of a second where nothing else goes on; hosts are asked every 15 s."""
REPOSITORY = Path(__file__).parents[2]
STEPS = (
    "run.preparing", "run.machine", "run.working", "run.collecting", "run.collected", "run.succeeded", "run.clean"
)  # fmt: skip
DOOMS = [f"{step}:{when}" for step in STEPS for when in ("before", "after")]
TELLING = ["run.preparing:after", "run.machine:after", "run.working:before", "run.succeeded:before"]
WANTED = DOOMS if os.environ.get("BOROUGH_SOAK_S") else TELLING


def started(root: Path) -> RunningTown:
    environ = environment(root, PYTHONPATH=str(REPOSITORY))
    return start_town(root, governed=True, environ=environ, module="tests.faults.doomed_runs")


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rd") as name:  # the path of a socket is short
        root = Path(name).resolve() / "t"
        root.mkdir()
        yield root


def test_a_server_that_is_killed_at_a_step_of_a_run_loses_nothing_and_repeats_nothing() -> None:
    with folder() as root:
        town = started(root)
        try:
            for doom in WANTED:
                key = asked(town, "echo once >> done; sleep 0.2; echo end", labels={"doom": doom})
                assert town.process.wait(timeout=60) == -signal.SIGKILL, doom
                town = started(root)
                run = answered(town, key)
                done = comes_to(town, run, "succeeded")
                assert (done["attempt"], done["result"]["answer"]) == (1, "end"), doom
                patch = town.request("GET", f"/v1/runs/{run['id']}/patch").body.decode()
                assert patch.count("+once") == 1, doom
                task = town.ok("GET", f"/v1/tasks/{run['task_id']}")
                assert (task["state"], task["attempts"]) == ("completed", 1), doom
            until(lambda: data(town, "/api/envs") == [])
            assert [agent for agent in town.ok("GET", "/v1/status")["agents"] if agent["state"] == "Working"] == []
        finally:
            stop_town(town)


def test_a_server_that_is_killed_before_its_row_tells_of_it_loses_no_machine_and_gives_none_twice() -> None:
    with folder() as root:
        town = started(root)
        try:
            until(lambda: town.request("GET", "/v1/pools").status == 200)
            town.ok("PUT", "/v1/pools/runs", {**SMALL, "max": 0, "warm": 1})
            ready = ""
            for step, cancelled in (("agent.added", False), ("warm.taken", False), ("warm.taken", True)):
                ready = a_ready_machine(town, but=ready)
                (root / "doom").write_text(step)
                key = asked(town, "echo once >> done; sleep 0.2; echo end")
                assert town.process.wait(timeout=60) == -signal.SIGKILL, step
                if cancelled:
                    asyncio.run(cancel_while_down(root))
                town = started(root)
                run = answered(town, key)
                if cancelled:
                    assert comes_to(town, run, "cancelled")["attempts"] == [], "its row never told of the machine"
                    continue
                done = comes_to(town, run, "succeeded")
                assert (done["attempt"], done["result"]["answer"]) == (1, "end"), step
                assert (done["machine"]["env_id"], done["attempts"][0]["start"]) == (ready, "warm"), step
            fresh = a_ready_machine(town, but=ready)
            until(lambda: [env["id"] for env in data(town, "/api/envs")] == [fresh])
            town.ok("DELETE", "/v1/pools/runs")
            until(lambda: data(town, "/api/envs") == [])
        finally:
            stop_town(town)


def a_ready_machine(town: RunningTown, *, but: str) -> str:
    """Return the environment of the machine that stands ready, as soon as it is another than that."""

    def standing() -> list[str]:
        machines = town.ok("GET", "/v1/pools/runs")["machines"]
        return [each["env_id"] for each in machines if each["use"] == "warm" and each["env_id"] != but]

    (found,) = until(standing)
    return str(found)


def asked(town: RunningTown, script: str, **order: Any) -> str:
    """Ask for a run of a server that may end before it has answered; return the key of the request."""
    key, body = new_id(), {"task": "a task", "command": ["sh", "-c", script], **SMALL, **order}
    (town.root / key).write_text(json.dumps(body))
    with suppress(OSError, HTTPException):  # it ended
        until(lambda: ask(town, key).status == 201)
    return key


def ask(town: RunningTown, key: str) -> Answer:
    body = json.loads((town.root / key).read_text())
    return town.request("POST", "/v1/runs", body, headers={"Idempotency-Key": key})


def answered(town: RunningTown, key: str) -> dict[str, Any]:
    """Send the request again, as whoever was not answered does; return the run, which is the same."""

    def answer() -> dict[str, Any] | None:
        told = ask(town, key)
        assert told.status in (201, 409, 503), told.body
        return dict(told.json()) if told.status == 201 else None

    run: dict[str, Any] = until(answer)
    return run


async def cancel_while_down(root: Path) -> None:
    """Write down, beside a server that is not there, that a run is not wanted any more."""
    database = await Database.open(root / ".tt" / "runs" / "runs.db", RUNS)
    store = await SqlRuns.open(database)
    (run,) = await store.unsettled()
    await store.change(replace(run, wish=Wish.CANCEL, wished_by="a test"), event="run.wish", message="it is not wanted")
    await database.close()


def test_a_run_whose_machine_is_killed_is_finished_in_a_fresh_one() -> None:
    with folder() as root:
        town = started(root)
        try:
            # The name of the first attempt's sleep is in nobody else's command line.
            nap = f"1000.{os.getpid()}"
            run = begun(town, "sh", "-c", f'[ "$BOROUGH_ATTEMPT" = 2 ] || sleep {nap}; echo attempt $BOROUGH_ATTEMPT')
            comes_to(town, run, "working")
            first = shown(town, run)["machine"]["vm_id"]
            found = until(lambda: machine_of(f"sleep {nap}", below=town.process.pid))
            killed_at = time.monotonic()
            for pid in found:
                with suppress(ProcessLookupError):  # it ended with those around it
                    os.kill(pid, signal.SIGKILL)
            until(lambda: shown(town, run)["attempt"] == 2 or shown(town, run)["attempts"][0]["ended_at"])
            assert time.monotonic() - killed_at < NOTICED_WITHIN_S
            done = comes_to(town, run, "succeeded")
            assert (done["attempt"], done["result"]["answer"]) == (2, "attempt 2")
            assert "its machine is gone" in done["attempts"][0]["outcome"]
            assert done["machine"]["vm_id"] != first
            assert town.ok("GET", f"/v1/tasks/{run['task_id']}")["attempts"] == 2
        finally:
            stop_town(town)


def machine_of(command: str, *, below: int) -> list[int]:
    """Return the processes of the machine in which ``command`` runs, the outermost first; none: it does not run yet."""
    about = {int(path.name): _about(path) for path in Path("/proc").iterdir() if path.name.isdecimal()}
    inner = next((pid for pid, (_, line) in about.items() if line == command), None)
    chain: list[int] = []
    while inner is not None and inner > 1 and inner != below:
        chain.insert(0, inner)
        inner = about.get(inner, (0, ""))[0]
    return chain


def _about(process: Path) -> tuple[int, str]:
    try:
        parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        return parent, (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return 0, ""
