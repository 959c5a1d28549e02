"""The dashboard: how late 200 of them hear of what happens, what that costs at rest, how soon a page is there."""

import asyncio
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, sync_playwright

from bench.event_stream import EventStream
from bench.figures import Figure, Section, median, milliseconds, percentile
from bench.harness import cpu_seconds
from bench.http_load import Connection
from borough.cli.demo_borough import DemoBorough
from borough.client.discovery import read_record
from borough.client.http import Client

DASHBOARDS, EVENTS_PER_S, SECONDS, REST_S, VISITS = 200, 20, 10, 10, 7
SETTLED_WITHIN_S = 30.0
HOW = (
    f"`borough up` in an empty folder. {DASHBOARDS} clients follow `GET /v1/events` as dashboards do, while "
    f"{EVENTS_PER_S} tasks a second are put into the backlog for {SECONDS} s: measured from the sending of each "
    "request to the arrival of its first event at each client. At rest: nothing happens, and the server's processor "
    f"time is told as a share of one core. Pages: {VISITS} first visits with Chromium, each with an empty cache, and "
    "another after each; bytes are those on the wire of the page and its files, without what it asks the API for. "
    "Load and server share both cores."
)
_NUMBER = re.compile(rb"bench task (\d+)!")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What came of the fan-out."""

    late_s: list[float]
    gaps: int
    at_rest: float
    """Of one core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One loading of the page."""

    first_paint_s: float
    usable_s: float
    bytes: int
    files: int


async def measure() -> Section:
    with tempfile.TemporaryDirectory(prefix="bench-page-") as name:
        folder = Path(name) / "town"
        folder.mkdir()
        with DemoBorough(folder, source=folder) as borough:
            heard = await fan_out(borough)
            first, again = await asyncio.to_thread(visits, borough)  # what drives Chromium has a loop of its own
    worst = percentile(heard.late_s, 99)
    return Section(
        name="dashboard",
        title="Dashboard",
        how=HOW,
        figures=[
            Figure(what=f"delivery to {DASHBOARDS} dashboards, p50", value=milliseconds(median(heard.late_s))),
            Figure(what="delivery, p99", value=milliseconds(worst)),
            Figure(what="events delivered", value=f"{len(heard.late_s):,}"),
            Figure(
                what="streams that missed something, or heard it in another order",
                value=str(heard.gaps), goal="none", met=heard.gaps == 0,
            ),
            Figure(what=f"processor at rest with {DASHBOARDS} streams open", value=f"{100 * heard.at_rest:.1f} %"),
            Figure(what="first paint, p50", value=milliseconds(median([one.first_paint_s for one in first]))),
            Figure(what="signed in and live, p50", value=milliseconds(median([one.usable_s for one in first]))),
            Figure(what="transferred, first visit", value=_size(first)),
            Figure(what="first paint with the files kept, p50", value=_paint(again)),
            Figure(what="transferred, with the files kept", value=_size(again)),
        ],
    )  # fmt: skip


def _paint(seen: list[Visit]) -> str:
    return milliseconds(median([one.first_paint_s for one in seen]))


def _size(seen: list[Visit]) -> str:
    return (
        f"{median([one.bytes for one in seen]) / 1024:.1f} KiB, requests: {round(median([one.files for one in seen]))}"
    )


async def fan_out(borough: DemoBorough) -> Heard:
    """Open all streams, tell of many tasks, and return how late each was heard of."""
    token = (borough.folder / ".tt" / "operator.token").read_text().strip()
    record = read_record(borough.folder)
    at = urlsplit(borough.address.url)
    if record is None or at.hostname is None or at.port is None:
        raise RuntimeError("the server has gone")
    head = f"GET /v1/events HTTP/1.1\r\nHost: {at.netloc}\r\nAuthorization: Bearer {token}\r\n"
    request = f"{head}Accept: text/event-stream\r\n\r\n".encode()
    streams = [await _followed(request, at.hostname, at.port) for _ in range(DASHBOARDS)]
    await asyncio.sleep(REST_S / 2)  # what the start still does is over
    before = cpu_seconds(record.pid)
    await asyncio.sleep(REST_S)
    at_rest = (cpu_seconds(record.pid) - before) / REST_S
    asked_at = await _tell(await Connection.open(at.hostname, at.port, token=token))
    async with asyncio.timeout(SETTLED_WITHIN_S):
        while any(len(stream.came_at) < len(asked_at) for stream in streams):
            await asyncio.sleep(0.05)
    for stream in streams:
        stream.transport.close()
    whole = list(range(len(asked_at)))
    return Heard(
        late_s=[stream.came_at[number] - asked for stream in streams for number, asked in enumerate(asked_at)],
        gaps=sum(list(stream.came_at) != whole for stream in streams),
        at_rest=at_rest,
    )


async def _followed(request: bytes, host: str, port: int) -> EventStream:
    _, stream = await asyncio.get_running_loop().create_connection(lambda: EventStream(request, _NUMBER), host, port)
    if not await stream.open:
        raise RuntimeError("a stream was not opened")
    return stream


async def _tell(desk: Connection) -> list[float]:
    """Add one task after the other, at a steady pace; return when each was asked for."""
    asked_at = []
    began = time.perf_counter()
    for number in range(EVENTS_PER_S * SECONDS):
        await asyncio.sleep(max(0.0, began + number / EVENTS_PER_S - time.perf_counter()))
        asked_at.append(time.perf_counter())
        (await desk.post("/v1/backlog", {"description": f"bench task {number}!"})).expect(201)
    desk.close()
    return asked_at


LOADED = """() => {
    const [page] = performance.getEntriesByType('navigation');
    const files = performance.getEntriesByType('resource').filter((one) => one.name.includes('/assets/'));
    const paint = performance.getEntriesByName('first-contentful-paint')[0];
    return {
        paint: paint.startTime / 1000,
        bytes: [page, ...files].reduce((sum, one) => sum + one.transferSize, 0),
        files: [page, ...files].filter((one) => one.transferSize > 0).length,
    };
}"""


def visits(borough: DemoBorough) -> tuple[list[Visit], list[Visit]]:
    """Return first visits, and what a second one with the same browser is like."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise RuntimeError("there is no Chromium: apt-get install chromium")
    with sync_playwright() as playwright, Client(borough.address) as server:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        pairs = [_visited(browser, server, borough.address.url) for _ in range(VISITS)]
        browser.close()
    return [first for first, _ in pairs], [again for _, again in pairs]


def _visited(browser: Browser, server: Client, url: str) -> tuple[Visit, Visit]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    seen = []
    for _ in range(2):
        page = context.new_page()
        code = server.post("/v1/sign-in-codes")["code"]
        began = time.perf_counter()
        page.goto(f"{url}/#code={code}")
        page.get_by_role("heading", name="Overview").wait_for()
        page.get_by_text("Live", exact=True).wait_for()
        usable_s = time.perf_counter() - began
        told: dict[str, Any] = page.evaluate(LOADED)
        seen.append(
            Visit(
                first_paint_s=told["paint"], usable_s=usable_s, bytes=round(told["bytes"]), files=round(told["files"])
            )
        )
        page.close()
    context.close()
    return seen[0], seen[1]
