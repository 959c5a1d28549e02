"""Reads must not grow with finished work: the same questions with 10 and with 100,000 finished tasks."""

from collections.abc import Awaitable, Callable

from bench.figures import Figure, Section, median, milliseconds
from bench.harness import BenchTown, town
from bench.http_load import Connection, drive
from bench.store_load import fill, overhear

PATHS = ("/api/scaling", "/v1/status", "/metrics")
FEW, MANY = 10, 100_000
REQUESTS = 600
GOAL = 1.2


def question(path: str) -> Callable[[Connection, int], Awaitable[object]]:
    async def ask(connection: Connection, _: int) -> None:
        (await connection.get(path)).expect(200)

    return ask


async def medians(bench: BenchTown) -> dict[str, float]:
    """Return the median time of each question, asked in turns so that all share the machine's moods."""
    desk = await bench.connect()
    times: dict[str, list[float]] = {path: [] for path in PATHS}
    for path in PATHS * 20:
        await desk.get(path)
    for _ in range(REQUESTS // 50):
        for path in PATHS:
            times[path] += (await drive([desk], 50, question(path))).latencies_s
    desk.close()
    return {path: median(found) for path, found in times.items()}


async def measure() -> Section:
    with town() as bench:
        desk = await bench.connect()
        added: list[str] = []

        async def add() -> None:
            answer = (await desk.post("/v1/backlog", {"description": "overhear the enqueue"})).expect(201)
            added.append(answer.json()["task_id"])

        async def complete() -> None:
            (await desk.post(f"/v1/tasks/{added[0]}/complete", {"result": "overhear the end"})).expect(200)

        enqueue = await overhear(bench.store_socket, add, text=b"overhear the enqueue")
        end = await overhear(bench.store_socket, complete, text=b"overhear the end")
        await fill(bench.store_socket, [enqueue, end], count=FEW - 1)
        await expect_completed(bench, FEW)
        few = await medians(bench)
        await fill(bench.store_socket, [enqueue, end], count=MANY - FEW)
        await expect_completed(bench, MANY)
        many = await medians(bench)
        desk.close()
    return Section(
        name="reads",
        title="Reads and finished work",
        how=(f"Median of {REQUESTS} requests, one at a time, with {FEW} and with {MANY:,} finished tasks in the town."),
        figures=[
            Figure(
                what=f"`{path}`",
                value=f"{milliseconds(few[path])} → {milliseconds(many[path])}, ratio {many[path] / few[path]:.2f}",
                goal=f"ratio ≤ {GOAL}",
                met=many[path] / few[path] <= GOAL,
            )
            for path in PATHS
        ],
    )


async def expect_completed(bench: BenchTown, count: int) -> None:
    """Make sure that the measured town really has that many finished tasks."""
    desk = await bench.connect()
    text = (await desk.get("/metrics")).expect(200).body.decode()
    desk.close()
    told = [line.split()[-1] for line in text.splitlines() if line.startswith("tinytown_tasks_completed_total")]
    if not told or int(float(told[0])) != count:
        raise RuntimeError(f"the town says that {told} tasks are completed, not {count}")
