"""Live events: how late many listeners hear of what is on disk, and whether any of them misses any of it."""

import asyncio
import re
import time

from bench.event_stream import EventStream
from bench.figures import Figure, Section, milliseconds, percentile
from bench.gateway import BenchGateway, gateway

LISTENERS, EVENTS_PER_S, SECONDS = 500, 20, 10
SETTLED_WITHIN_S = 30.0
_ID = re.compile(rb"(?:^|\n)id: (\d+)\n")


async def listen(bench: BenchGateway) -> EventStream:
    head = f"GET /events?action=ObservationAppend&outcome=success HTTP/1.1\r\nHost: {bench.host}:{bench.port}\r\n"
    request = f"{head}Authorization: Bearer {bench.operator}\r\nAccept: text/event-stream\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    _, listener = await loop.create_connection(lambda: EventStream(request, _ID), bench.host, bench.port)
    if not await listener.open:
        raise RuntimeError("a stream was not opened")
    return listener


async def tell(bench: BenchGateway, agent: str, token: str) -> list[float]:
    """Record one observation after the other, at a steady pace; return when each was asked for."""
    desk, asked_at = await bench.connect(token=token), []
    began = time.perf_counter()
    for number in range(EVENTS_PER_S * SECONDS):
        await asyncio.sleep(max(0.0, began + number / EVENTS_PER_S - time.perf_counter()))
        asked_at.append(time.perf_counter())
        body = {"action": "tick", "result": str(number)}
        (await desk.post(f"/agents/{agent}/observations", body)).expect(201)
    desk.close()
    return asked_at


async def measure() -> Section:
    with gateway() as bench:
        agent = await bench.agent("bench", "obs.append")
        token = await bench.key(agent, "bench")
        listeners = [await listen(bench) for _ in range(LISTENERS)]
        asked_at = await tell(bench, agent, token)
        async with asyncio.timeout(SETTLED_WITHIN_S):
            while any(len(listener.order) < len(asked_at) for listener in listeners):
                await asyncio.sleep(0.05)
        for listener in listeners:
            listener.transport.close()
    whole = listeners[0].order
    gaps = sum(listener.order != whole for listener in listeners) + (len(whole) != len(asked_at))
    late_s = [
        listener.came_at[seq] - asked for listener in listeners for seq, asked in zip(whole, asked_at, strict=True)
    ]
    worst_s = percentile(late_s, 99)
    return Section(
        name="live_events",
        title="Live events",
        how=(
            f"{LISTENERS} clients follow `GET /events` while {EVENTS_PER_S} observations a second are recorded for "
            f"{SECONDS} s. Measured from the sending of each to its arrival at each client, so its way to the disk is "
            "in it; the daemon has one core, all clients the other."
        ),
        figures=[
            Figure(what="delivery, p50", value=milliseconds(percentile(late_s, 50))),
            Figure(what="delivery, p99", value=milliseconds(worst_s), goal="≤ 250 ms", met=worst_s <= 0.25),
            Figure(what="events delivered", value=f"{len(late_s):,}"),
            Figure(what="streams with a gap, or out of order", value=str(gaps), goal="none", met=gaps == 0),
        ],
    )
