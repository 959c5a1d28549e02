"""How much memory the server and its store need with 10,000 tasks."""

from bench.enqueue import enqueue
from bench.figures import Figure, Section
from bench.harness import memory_mib, town
from bench.http_load import drive

TASKS = 10_000
GOAL_MIB = 120


async def measure() -> Section:
    with town() as bench:
        fresh = memory_mib(bench.server_pid)
        loaders = await bench.connections(32)
        await drive(loaders, TASKS, enqueue)
        for path in ("/v1/backlog", "/v1/status", "/api/scaling", "/metrics"):
            await loaders[0].get(path)
        for connection in loaders:
            connection.close()
        full = memory_mib(bench.server_pid)
        store = memory_mib(bench.store_pid) if bench.store_pid is not None else None
    return Section(
        name="memory",
        title="Memory",
        how=f"Proportional share of memory after {TASKS:,} tasks came in over 32 connections and each list was read.",
        figures=[
            Figure(what="server, just started", value=f"{fresh:.0f} MiB"),
            Figure(
                what="server, 10,000 tasks", value=f"{full:.0f} MiB", goal=f"≤ {GOAL_MIB} MiB", met=full <= GOAL_MIB
            ),
            *([Figure(what="embedded store, 10,000 tasks", value=f"{store:.0f} MiB")] if store is not None else []),
        ],
    )
