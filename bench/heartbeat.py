"""What a worker's heartbeat costs the server and the store."""

from bench.figures import Figure, Section, milliseconds, percentile
from bench.harness import cpu_seconds, town, workers
from bench.http_load import Connection, drive

WORKERS = 16
BEATS = 6000
INTERVAL_S = 5
"""How often a worker with the default lease of 15 s beats."""


async def measure() -> Section:
    with town() as bench:
        async with workers(bench, WORKERS) as staff:
            paths = {worker.connection: f"/v1/agents/{worker.agent_id}/heartbeat" for worker in staff}

            async def beat(connection: Connection, _: int) -> None:
                (await connection.post(paths[connection], {})).expect(200)

            pids = [pid for pid in (bench.server_pid, bench.store_pid) if pid is not None]
            before = [cpu_seconds(pid) for pid in pids]
            run = await drive([worker.connection for worker in staff], BEATS, beat)
            used = [cpu_seconds(pid) - start for pid, start in zip(pids, before, strict=True)]
    server_us = used[0] / BEATS * 1e6
    return Section(
        name="heartbeat",
        title="Heartbeats",
        how=f"{WORKERS} idle workers beat {BEATS} times as fast as they can; processor time from proc(5).",
        figures=[
            Figure(what="server, processor time a beat", value=f"{server_us:.0f} µs"),
            *(
                [Figure(what="store, processor time a beat", value=f"{used[1] / BEATS * 1e6:.0f} µs")]
                if len(used) > 1
                else []
            ),
            Figure(what="beats a second", value=f"{run.rate:,.0f}/s"),
            Figure(what="p50 / p99", value=spread(run.latencies_s)),
            Figure(
                what=f"1,000 workers, one beat each {INTERVAL_S} s",
                value=f"{server_us * 1000 / INTERVAL_S / 1e6:.1%} of one core",
            ),
        ],
    )


def spread(latencies_s: list[float]) -> str:
    return f"{milliseconds(percentile(latencies_s, 50))} / {milliseconds(percentile(latencies_s, 99))}"
