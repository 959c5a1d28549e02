"""Claim and complete: how many a second, and how soon after the enqueue a waiting worker has the task."""

import asyncio
import time

from bench.enqueue import enqueue
from bench.figures import Figure, Section, milliseconds, percentile
from bench.harness import BenchTown, Worker, town, workers
from bench.http_load import drive

WORKERS = 16
WAITING = 4
TASKS = 5000
SINGLE_TASKS = 500
PAUSE_S = 0.02
"""Between two enqueues while latency is measured: the town is awake, not busy."""


async def drain(bench: BenchTown, *, count: int, agents: int) -> float:
    """Complete ``count`` tasks with ``agents`` workers; return the seconds it took."""
    loaders = await bench.connections(32)
    await drive(loaders, count, enqueue)
    for connection in loaders:
        connection.close()
    async with workers(bench, agents) as staff:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            done = [group.create_task(work_off(worker)) for worker in staff]
        seconds = time.perf_counter() - began
    completed = sum(task.result() for task in done)
    if completed != count:
        raise RuntimeError(f"{completed} tasks were completed, {count} were enqueued")
    return seconds


async def work_off(worker: Worker) -> int:
    completed = 0
    while (lease := await worker.claim()) is not None:
        await worker.complete(lease)
        completed += 1
    return completed


async def latencies(bench: BenchTown) -> list[float]:
    """Return, for each of many single tasks, the time from sending the enqueue to a worker's having it."""
    began: dict[str, float] = {}
    taken: list[float] = []

    async def wait_and_work(worker: Worker) -> None:
        while len(taken) < SINGLE_TASKS:
            lease = await worker.claim(wait_s=5)
            if lease is not None:
                taken.append(time.perf_counter() - began[lease["task"]["description"]])
                await worker.complete(lease)

    async with workers(bench, WAITING) as staff:
        desk = await bench.connect()
        async with asyncio.TaskGroup() as group:
            for worker in staff:
                group.create_task(wait_and_work(worker))
            for number in range(SINGLE_TASKS):
                await asyncio.sleep(PAUSE_S)
                name = f"latency {number}"
                began[name] = time.perf_counter()
                (await desk.post("/v1/backlog", {"description": name})).expect(201)
        desk.close()
    return taken


async def measure() -> Section:
    with town() as bench:
        seconds = await drain(bench, count=TASKS, agents=WORKERS)
    with town() as bench:
        waits = await latencies(bench)
    p50, p99 = percentile(waits, 50), percentile(waits, 99)
    return Section(
        name="work",
        title="Claim and complete",
        how=(
            f"{TASKS} tasks wait in the backlog; {WORKERS} workers each claim and complete one at a time over "
            f"HTTP, each step on disk before its answer. Latency: {WAITING} workers wait in long polls, one task comes "
            f"every {PAUSE_S * 1000:.0f} ms, measured from sending the enqueue to a worker's having the task."
        ),
        figures=[
            Figure(what="claim and complete", value=f"{TASKS / seconds:,.0f} tasks/s"),
            Figure(what="enqueue to worker, p50", value=milliseconds(p50), goal="≤ 10 ms; aim 5 ms", met=p50 <= 0.010),
            Figure(what="enqueue to worker, p99", value=milliseconds(p99), goal="≤ 40 ms; aim 20 ms", met=p99 <= 0.040),
        ],
    )
