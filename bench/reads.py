"""Reads must not grow with finished work: the same questions with 10 and with 100,000 finished tasks."""

from collections.abc import Awaitable, Callable, Sequence

from bench.figures import Figure, Section, median, milliseconds
from bench.harness import BenchTown, town
from bench.http_load import Connection, drive
from bench.store_load import fill, overhear, until_quiet

PATHS = ("/api/scaling", "/v1/status", "/metrics")
FEW, MANY = 10, 100_000
REQUESTS = 600
BATCH = 25
GOAL = 1.2


def question(path: str) -> Callable[[Connection, int], Awaitable[object]]:
    async def ask(connection: Connection, _: int) -> None:
        (await connection.get(path)).expect(200)

    return ask


async def medians(towns: Sequence[BenchTown]) -> list[dict[str, float]]:
    """Return the median time of each question in each town, asked in turns so that all share the machine's moods."""
    desks = [await bench.connect() for bench in towns]
    times: list[dict[str, list[float]]] = [{path: [] for path in PATHS} for _ in towns]
    for measured in (False, True):
        for _ in range(REQUESTS // BATCH if measured else 1):
            for path in PATHS:
                for desk, found in zip(desks, times, strict=True):
                    run = await drive([desk], BATCH, question(path))
                    found[path] += run.latencies_s if measured else []
    for desk in desks:
        desk.close()
    return [{path: median(values) for path, values in found.items()} for found in times]


async def finish(bench: BenchTown, count: int) -> None:
    """Bring the town to ``count`` finished tasks: one through the server, the others as that one went to the store."""
    desk = await bench.connect()
    added: list[str] = []

    async def add() -> None:
        answer = (await desk.post("/v1/backlog", {"description": "overhear the enqueue"})).expect(201)
        added.append(answer.json()["task_id"])

    async def complete() -> None:
        (await desk.post(f"/v1/tasks/{added[0]}/complete", {"result": "overhear the end"})).expect(200)

    enqueue = await overhear(bench.store_socket, add, text=b"overhear the enqueue")
    end = await overhear(bench.store_socket, complete, text=b"overhear the end")
    await fill(bench.store_socket, [enqueue, end], count=count - 1)
    await until_quiet(bench.store_socket)
    text = (await desk.get("/metrics")).expect(200).body.decode()
    desk.close()
    told = [line.split()[-1] for line in text.splitlines() if line.startswith("tinytown_tasks_completed_total")]
    if not told or int(float(told[0])) != count:
        raise RuntimeError(f"the town says that {told} tasks are completed, not {count}")


async def measure() -> Section:
    with town() as small, town() as large:
        await finish(small, FEW)
        await finish(large, MANY)
        few, many = await medians([small, large])
    return Section(
        name="reads",
        title="Reads and finished work",
        how=(
            f"Median of {REQUESTS} requests, one at a time, in turns to two towns: one with {FEW} finished tasks, "
            f"one with {MANY:,}."
        ),
        figures=[
            Figure(
                what=f"`{path}`",
                value=f"{milliseconds(few[path])} and {milliseconds(many[path])}: ratio {many[path] / few[path]:.2f}",
                goal=f"ratio ≤ {GOAL}",
                met=many[path] / few[path] <= GOAL,
            )
            for path in PATHS
        ],
    )
