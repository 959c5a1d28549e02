"""What governance costs a call: a tool that does nothing, over HTTP, judged, recorded before and after, on disk."""

import os
import tempfile
import time

from bench.figures import Figure, Section, milliseconds, percentile
from bench.gateway import BenchGateway, gateway
from bench.http_load import Connection, Run, drive

ALONE, TOGETHER, CALLERS, ROUNDS = 400, 6000, 32, 3
FLUSHES = 200


def flush_s() -> float:
    """Return the median time of writing a page to this disk, for comparison."""
    with tempfile.TemporaryFile() as file:
        times_s = []
        for _ in range(FLUSHES):
            file.write(b"x" * 4096)
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times_s.append(time.perf_counter() - began)
    return percentile(times_s, 50)


async def call_round(bench: BenchGateway, agent: str, token: str, *, callers: int, count: int) -> Run:
    """Call from several callers, one call at a time each."""
    connections = [await bench.connect(token=token) for _ in range(callers)]

    async def call(connection: Connection, number: int) -> None:
        (await connection.post(f"/agents/{agent}/tools/echo", {"n": number})).expect(200)

    run = await drive(connections, count, call)
    for connection in connections:
        connection.close()
    return run


async def measure() -> Section:
    with gateway() as bench:
        agent = await bench.agent("bench", "tool.invoke:echo")
        token = await bench.key(agent, "bench")
        await call_round(bench, agent, token, callers=8, count=400)
        alone = [await call_round(bench, agent, token, callers=1, count=ALONE) for _ in range(ROUNDS)]
        together = [await call_round(bench, agent, token, callers=CALLERS, count=TOGETHER) for _ in range(ROUNDS)]
    one = min(alone, key=lambda run: percentile(run.latencies_s, 50))
    many = max(together, key=lambda run: run.rate)
    one_s, many_s = percentile(one.latencies_s, 50), percentile(many.latencies_s, 99)
    return Section(
        name="tool_calls",
        title="Calls of tools",
        how=(
            f"`POST /agents/{{id}}/tools/{{name}}` for `echo`, with an agent's key: judged, its intent on disk before "
            f"it runs and its outcome before it is answered (`synchronous=FULL`). Best of {ROUNDS} rounds; the daemon "
            "has one core, the load the other."
        ),
        figures=[
            Figure(what="alone, p50", value=milliseconds(one_s), goal="≤ 2 ms", met=one_s <= 0.002),
            Figure(what="alone, p99", value=milliseconds(percentile(one.latencies_s, 99))),
            Figure(what="one flush of this disk, for comparison", value=milliseconds(flush_s())),
            Figure(
                what=f"{CALLERS} at once", value=f"{many.rate:,.0f}/s", goal="at least 1,000/s", met=many.rate >= 1000
            ),
            Figure(what=f"{CALLERS} at once, p50", value=milliseconds(percentile(many.latencies_s, 50))),
            Figure(what=f"{CALLERS} at once, p99", value=milliseconds(many_s), goal="≤ 60 ms", met=many_s <= 0.06),
        ],
    )
