"""Runs in a real ``borough up``: how soon it is there, what admission costs, how soon a command speaks, a kill."""

import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.figures import Figure, Section, median, milliseconds, percentile
from bench.harness import memory_mib
from bench.machines import bwrap, first_word_of, root_folder
from borough.adapters import procfs
from borough.cli.demo_borough import LIVE, DemoBorough
from borough.client.discovery import read_record
from borough.client.http import Client

STARTS, ADMISSIONS, COLD, WARM, KILLS, AT_ONCE = 5, 100, 20, 20, 20, 50
READY_GOAL_S, COLD_GOAL_S, WARM_GOAL_S, KILL_GOAL_S, MEMORY_GOAL_MIB = 2.0, 0.4, 0.08, 0.25, 250
SETTLED_S = 0.3
"""After which nothing is done any more for the machine that stands ready."""
LOOK_EVERY_S = 0.002
HOW = (
    "`borough up` in an empty folder, as people start it, and runs in bubblewrap machines of the image `host`. First "
    "word: from `POST /v1/runs` until its log has what the command printed; *bare* is `bwrap` over a root folder of "
    "busybox; *warm*: a pool keeps one machine ready. Powerless: from the call of `POST /v1/kill` to its answer, given "
    "when key, machine and lease are gone. Memory is the proportional share of all processes. Load and server share "
    "both cores."
)
SPEAKS: Mapping[str, object] = {"task": "speak", "image": "host", "command": ["sh", "-c", "echo up; sleep 600"]}
ENDS: Mapping[str, object] = {"task": "end", "image": "host", "command": ["true"], "memory_mib": 64, "disk_mib": 64}


async def measure() -> Section:
    return _measured()  # it blocks, and sets signal handlers: nothing else goes on in this loop


def _measured() -> Section:
    with tempfile.TemporaryDirectory(prefix="bench-runs-") as name:
        folder = Path(name)
        starts = [_start(folder / f"start-{number}") for number in range(STARTS)]
        bare = [_bare(folder) for _ in range(COLD)]
        with DemoBorough(_made(folder / "town"), source=folder) as borough, Client(borough.address) as server:
            _fleet_answers(server)
            rest = _memory(borough.folder)
            admissions = [_admission(server) for _ in range(ADMISSIONS)]
            cold = [_first_word(server, start="cold") for _ in range(COLD)]
            warm = _warm(server)
            kills = [_kill(server) for _ in range(KILLS)]
            burst = _burst(server)
    ready, speaks, dead = median([one for one, _ in starts]), median(cold), percentile(kills, 99)
    return Section(
        name="runs",
        title="Runs",
        how=HOW,
        figures=[
            _limited(f"`borough up` to ready, p50 of {STARTS}", ready, READY_GOAL_S, f"{ready:.2f} s", "< 2 s"),
            Figure(what="… until its fleet answers too, p50", value=f"{median([both for _, both in starts]):.2f} s"),
            Figure(what=f"admission (`dry_run`), p50 / p99 of {ADMISSIONS}", value=_both(admissions)),
            Figure(what="bare `bwrap` to its first word, p50", value=milliseconds(median(bare))),
            _limited(
                f"run to its first word, cold, p50 / p99 of {COLD}", speaks, COLD_GOAL_S, _both(cold),
                "p50 ≤ 400 ms; aim 150 ms",
            ),
            _limited(
                f"run to its first word, warm, p50 / p99 of {WARM}", median(warm), WARM_GOAL_S, _both(warm),
                "p50 ≤ 80 ms; aim 50 ms",
            ),
            _limited(f"kill to powerless, p50 / p99 of {KILLS}", dead, KILL_GOAL_S, _both(kills), "p99 ≤ 250 ms"),
            Figure(what=f"{AT_ONCE} runs asked for at once, all succeeded after", value=f"{burst:.1f} s"),
            _limited("memory of the whole at rest", rest, MEMORY_GOAL_MIB, f"{rest:.0f} MiB", "≤ 250 MiB"),
        ],
    )  # fmt: skip


def _limited(what: str, measured: float, most: float, value: str, goal: str) -> Figure:
    return Figure(what=what, value=value, goal=goal, met=measured <= most)


def _both(values: list[float]) -> str:
    return f"{milliseconds(median(values))} / {milliseconds(percentile(values, 99))}"


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _start(folder: Path) -> tuple[float, float]:
    """Return after how long a server is ready, and after how long its fleet answers too."""
    began = time.perf_counter()
    with DemoBorough(_made(folder), source=folder) as borough, Client(borough.address) as server:
        ready = borough.ready_s
        _fleet_answers(server)
        return ready, time.perf_counter() - began


def _fleet_answers(server: Client) -> None:
    while not server.get("/api/hosts")["data"]:
        time.sleep(LOOK_EVERY_S)


def _bare(folder: Path) -> float:
    image = folder / "image"
    if not image.exists():
        root_folder(image)
    return first_word_of(bwrap(image))


def _memory(folder: Path) -> float:
    """Return what the server and all that it started need, in MiB."""
    record = read_record(folder)
    assert record is not None
    time.sleep(2.0)  # what the start still does is over
    total = memory_mib(record.pid)
    for ref in procfs.descendants(record.pid):
        with suppress(OSError):  # one that has just ended
            total += memory_mib(ref.pid)
    return total


def _admission(server: Client) -> float:
    began = time.perf_counter()
    told = server.request("POST", "/v1/runs", body=dict(SPEAKS), query={"dry_run": "1"}).json()
    assert told["ok"], told
    return time.perf_counter() - began


def _warm(server: Client) -> list[float]:
    """Return the same for runs for which a machine stands ready; the next one is made before each is measured."""
    pool = {"image": SPEAKS["image"], "max": 0, "warm": 1}
    server.request("PUT", "/v1/pools/runs", body=pool)
    took = []
    for _ in range(WARM):
        while all(machine["use"] != "warm" for machine in server.get("/v1/pools/runs")["machines"]):
            time.sleep(LOOK_EVERY_S)
        time.sleep(SETTLED_S)
        took.append(_first_word(server, start="warm"))
    server.request("DELETE", "/v1/pools/runs")
    while server.get("/api/envs")["data"]:
        time.sleep(LOOK_EVERY_S)
    return took


def _first_word(server: Client, *, start: str) -> float:
    began = time.perf_counter()
    run = server.post("/v1/runs", SPEAKS)
    assert run["admission"]["start"] == start, run
    _heard(server, run["id"])
    took = time.perf_counter() - began
    server.post(f"/v1/runs/{run['id']}/cancel", {"reason": "measured"})
    _over(server, [run["id"]])
    return took


def _kill(server: Client) -> float:
    run = server.post("/v1/runs", SPEAKS)
    _heard(server, run["id"])
    began = time.perf_counter()
    told = server.post("/v1/kill", {"target": run["id"], "reason": "measured"})
    took = time.perf_counter() - began
    assert {"token_revoked", "lease_fenced"} <= set(told["done"]), told
    _over(server, [run["id"]])
    return took


def _heard(server: Client, run_id: str) -> None:
    while b"up" not in server.request("GET", f"/v1/runs/{run_id}/log").body:
        time.sleep(LOOK_EVERY_S)


def _burst(server: Client) -> float:
    began = time.perf_counter()
    runs = [server.post("/v1/runs", ENDS)["id"] for _ in range(AT_ONCE)]
    ended = _over(server, runs)
    assert all(run["state"] == "succeeded" for run in ended), [run["reason"] for run in ended]
    return time.perf_counter() - began


def _over(server: Client, runs: list[str]) -> list[dict[str, Any]]:
    ended = []
    for run_id in runs:
        run = server.get(f"/v1/runs/{run_id}")
        while run["state"] in LIVE:
            run = server.get(f"/v1/runs/{run_id}", {"wait": 10})
        ended.append(run)
    return ended
