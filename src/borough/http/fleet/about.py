"""The fleet as a whole: status, images, health, metrics, and the page."""

import time
from functools import cache
from importlib.resources import files

from starlette.responses import PlainTextResponse

from borough.core.errors import Unavailable
from borough.fleet.ports.fleet import Totals
from borough.http.fleet import render, wire
from borough.http.fleet.dialect import Envelope, data
from borough.http.operations import Access, Answer, Call, Operation, Reply, Response

_METRICS = "text/plain; version=0.0.4; charset=utf-8"


async def status(call: Call) -> object:
    return data(render.status_view(await call.state.fleet.totals()))


async def images(call: Call) -> object:
    return data([render.image_view(image, strict=call.state.strict) for image in await call.state.images.all()])


async def health(call: Call) -> object:
    return wire.Health(status="ok", uptime_secs=int(time.monotonic() - call.state.started_monotonic))


async def ready(call: Call) -> object:
    uptime = int(time.monotonic() - call.state.started_monotonic)
    try:
        await call.state.fleet.event_bounds()
    except Unavailable as error:
        return Reply(status=503, body=wire.Health(status=f"not ready: {error.message}", uptime_secs=uptime))
    if call.state.ledger is not None and not call.state.strict:
        ledger = await call.state.ledger.told()
        return wire.Health(status="ready", uptime_secs=uptime, ledger=ledger)
    return wire.Health(status="ready", uptime_secs=uptime)


async def measure(call: Call) -> Response:
    totals = await call.state.fleet.totals()
    text = metrics_text(totals) + ("" if call.state.ledger is None else await call.state.ledger.metrics())
    return PlainTextResponse(text, headers={"content-type": _METRICS})


def metrics_text(totals: Totals) -> str:
    """Return the sums as Prometheus reads them."""
    families = (
        ("hosts", "Registered hosts.", totals.hosts),
        ("hosts_online", "Hosts that answer.", totals.hosts_online),
        ("vms", "Machines that are kept track of.", totals.total_vms),
        ("environments", "Environments.", totals.total_envs),
        ("cpus", "Processors of hosts that answer.", totals.cpu_total),
        ("cpus_promised", "Processors that are promised.", totals.cpu_used),
        ("memory_mib", "Memory of hosts that answer.", totals.mem_total),
        ("memory_promised_mib", "Memory that is promised.", totals.mem_used),
        ("disk_mib", "Disk of hosts that answer.", totals.disk_total),
        ("disk_promised_mib", "Disk that is promised.", totals.disk_used),
    )
    lines: list[str] = []
    for name, told, value in families:
        full = f"borough_fleet_{name}"
        lines += [f"# HELP {full} {told}", f"# TYPE {full} gauge", f"{full} {value}"]
    return "\n".join(lines) + "\n"


@cache
def _asset(name: str) -> bytes:
    return files("borough.http.fleet").joinpath("page", name).read_bytes()


async def home(_call: Call) -> Response:
    return Response(_asset("index.html"), media_type="text/html; charset=utf-8")


async def script(_call: Call) -> Response:
    return Response(_asset("fleet.js"), media_type="text/javascript; charset=utf-8")


async def style(_call: Call) -> Response:
    return Response(_asset("fleet.css"), media_type="text/css; charset=utf-8")


def _open(path: str, handler: object, summary: str, *answers: Answer) -> Operation:
    return Operation(
        method="GET",
        path=path,
        handler=handler,  # type: ignore[arg-type]  # each is a handler
        access=Access.PUBLIC,
        summary=summary,
        tag="public",
        answers=answers,
        metered=False,
    )


def _text(content_type: str) -> Answer:
    return Answer(status=200, body=str, description="as it is", content_type=content_type)


_HEALTH = Answer(status=200, body=wire.Health, description="it does")
PUBLIC = (
    _open("/health", health, "Does the process answer", _HEALTH),
    _open(
        "/ready",
        ready,
        "Does the store answer",
        _HEALTH,
        Answer(status=503, body=wire.Health, description="it does not"),
    ),
    _open("/metrics", measure, "Prometheus metrics", _text(_METRICS)),
)
PAGE = (
    _open("/", home, "Web dashboard", _text("text/html; charset=utf-8")),
    _open("/assets/fleet.js", script, "The page's program", _text("text/javascript; charset=utf-8")),
    _open("/assets/fleet.css", style, "The page's style", _text("text/css; charset=utf-8")),
)
OPERATIONS = (
    Operation(
        method="GET",
        path="/api/status",
        handler=status,
        access=Access.CALLER,
        summary="Fleet-wide resource status",
        tag="fleet",
        answers=(Answer(status=200, body=Envelope[wire.Status], description="sums; no host is asked"),),
    ),
    Operation(
        method="GET",
        path="/api/images",
        handler=images,
        access=Access.CALLER,
        summary="List images across the fleet",
        tag="images",
        answers=(Answer(status=200, body=Envelope[list[wire.Image]], description="one for each image and host"),),
    ),
)
