"""The fleet as a whole: status, images, health, metrics, and the page."""

from functools import cache
from importlib.resources import files

from borough.fleet.ports.fleet import Totals
from borough.http.fleet import render, wire
from borough.http.fleet.dialect import Envelope, data
from borough.http.fleet.public import exposition, uptime_s, well_being
from borough.http.operations import Access, Answer, Call, Operation, Response, open_to_all


async def status(call: Call) -> object:
    return data(render.status_view(await call.state.fleet.totals()))


async def images(call: Call) -> object:
    return data([render.image_view(image, strict=call.state.strict) for image in await call.state.images.all()])


async def ready(call: Call) -> object:
    await call.state.fleet.event_bounds()
    told = wire.Health(status="ready", uptime_secs=uptime_s(call))
    if call.state.ledger is not None and not call.state.strict:
        told.ledger = await call.state.ledger.told()
    return told


async def measure(call: Call) -> str:
    text = metrics_text(await call.state.fleet.totals())
    return text if call.state.ledger is None else text + await call.state.ledger.metrics()


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
    return exposition("borough_fleet", families)


@cache
def _asset(name: str) -> bytes:
    return files("borough.http.fleet").joinpath("page", name).read_bytes()


async def home(_call: Call) -> Response:
    return Response(_asset("index.html"), media_type="text/html; charset=utf-8")


async def script(_call: Call) -> Response:
    return Response(_asset("fleet.js"), media_type="text/javascript; charset=utf-8")


async def style(_call: Call) -> Response:
    return Response(_asset("fleet.css"), media_type="text/css; charset=utf-8")


def _text(content_type: str) -> Answer:
    return Answer(status=200, body=str, description="as it is", content_type=content_type)


PUBLIC = well_being(ready, measure)
PAGE = (
    open_to_all("/", home, "Web dashboard", _text("text/html; charset=utf-8")),
    open_to_all("/assets/fleet.js", script, "The page's program", _text("text/javascript; charset=utf-8")),
    open_to_all("/assets/fleet.css", style, "The page's style", _text("text/css; charset=utf-8")),
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
