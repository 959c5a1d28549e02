"""Durable enqueue through REST, alone and with 64 at once, against the bare server function over the same socket."""

from bench.figures import Figure, Section, milliseconds, percentile
from bench.harness import BenchTown, town
from bench.http_load import Connection, Run, drive
from bench.store_load import drive_store, overhear

MARK = "overhear this task"
CONCURRENT = 64
ROUNDS = 3
ALONE, TOGETHER = 1000, 6000


async def enqueue(connection: Connection, number: int) -> None:
    body = {"description": f"Task {number}: find the three largest modules and say what each is for", "tags": ["bench"]}
    (await connection.post("/v1/backlog", body)).expect(201)


async def best(bench: BenchTown, connections: int, count: int) -> Run:
    opened = await bench.connections(connections)
    runs = [await drive(opened, count, enqueue) for _ in range(ROUNDS)]
    for connection in opened:
        connection.close()
    return max(runs, key=lambda run: run.rate)


async def measure() -> Section:
    with town() as bench:
        desk = await bench.connect()
        command = await overhear(
            bench.store_socket,
            lambda: desk.post("/v1/backlog", {"description": MARK, "tags": ["bench"]}),
            text=MARK.encode(),
        )
        desk.close()
        durability = await told_durability(bench)
        alone = await best(bench, 1, ALONE)
        together = await best(bench, CONCURRENT, TOGETHER)
        bare_alone = await drive_store(bench.store_socket, command, connections=1, count=ALONE)
        bare_together = await drive_store(bench.store_socket, command, connections=CONCURRENT, count=TOGETHER)
    return Section(
        name="enqueue",
        title="Durable enqueue",
        how=(
            f"`POST /v1/backlog`, durability `{durability}`, best of {ROUNDS} runs of {ALONE} and {TOGETHER} requests. "
            "The server has one core; load and store share the other. *Bare* is the same function call, sent again "
            "to the store over its socket, without a server of ours in between."
        ),
        figures=[
            Figure(what="alone", value=f"{alone.rate:,.0f}/s"),
            Figure(what="alone, p50 / p99", value=spread(alone)),
            Figure(what="alone, bare", value=f"{bare_alone.rate:,.0f}/s"),
            Figure(what="alone, share of bare", value=f"{alone.rate / bare_alone.rate:.2f}"),
            Figure(
                what="64 at once",
                value=f"{together.rate:,.0f}/s",
                goal="at least 1,200/s; aim 3,000/s",
                met=together.rate >= 1200,
            ),
            Figure(what="64 at once, p50 / p99", value=spread(together)),
            Figure(what="64 at once, bare", value=f"{bare_together.rate:,.0f}/s"),
            Figure(what="64 at once, share of bare", value=f"{together.rate / bare_together.rate:.2f}"),
        ],
    )


def spread(run: Run) -> str:
    return f"{milliseconds(percentile(run.latencies_s, 50))} / {milliseconds(percentile(run.latencies_s, 99))}"


async def told_durability(bench: BenchTown) -> str:
    desk = await bench.connect()
    told = (await desk.get("/ready")).expect(200).json()["durability"]
    desk.close()
    return str(told)
