"""The host itself: what it has, whether it is well, who may speak to it."""

from borough.fleet.hosts import HostReport
from borough.http.fleet import render
from borough.http.fleet.dialect import Envelope, data
from borough.http.fleet.public import exposition, uptime_s, well_being
from borough.http.fleet.wire import Health
from borough.http.host import wire
from borough.http.operations import Access, Answer, Call, Operation


async def info(call: Call) -> object:
    return data(info_view(await call.state.host.report(), strict=call.state.strict))


def info_view(report: HostReport, *, strict: bool) -> wire.Info:
    """Return what a host says of itself."""
    shown = wire.Info(
        host_id=report.host_id,
        resource=render.resource_view(report.resource),
        engines=render.engine_names(report.engines, strict=strict),
        storage=report.storage.value,
        images=list(report.images),
    )
    if strict:
        return shown
    shown.image_digests = dict(report.image_digests)
    shown.image_engines = {name: sorted(engines) for name, engines in report.image_engines.items()}
    shown.own_images = sorted(report.own_images)
    shown.offers = render.offers_view(report)
    shown.pressure = render.pressure_view(report.pressure)
    shown.warnings = list(report.warnings)
    return shown


async def join(call: Call) -> object:
    credential = await call.state.door.join(call.body.token)
    report = await call.state.host.report()
    return data(wire.Joined(host_id=report.host_id, credential=credential))


async def ready(call: Call) -> object:
    await call.state.host.report()
    return Health(status="ready", uptime_secs=uptime_s(call))


async def measure(call: Call) -> str:
    return metrics_text(await call.state.host.report())


def metrics_text(report: HostReport) -> str:
    """Return what Prometheus reads of a host."""
    has = report.resource
    families = (
        ("vms", "Machines.", has.vm_count),
        ("cpus", "Processors to promise.", has.cpu_total),
        ("cpus_promised", "Processors that are promised.", has.cpu_used),
        ("memory_mib", "Memory to promise.", has.mem_total),
        ("memory_promised_mib", "Memory that is promised.", has.mem_used),
        ("disk_mib", "Disk to promise.", has.disk_total),
        ("disk_promised_mib", "Disk that is promised.", has.disk_used),
        ("memory_pressure_percent", "How long work waited for memory.", report.pressure.memory_some_avg10),
    )
    return exposition("borough_host", families)


OPERATIONS = (
    *well_being(ready, measure),
    Operation(
        method="GET",
        path="/api/info",
        handler=info,
        access=Access.CALLER,
        summary="Host info and resources",
        tag="host",
        answers=(Answer(status=200, body=Envelope[wire.Info], description="as it is now"),),
    ),
    Operation(
        method="POST",
        path="/api/join",
        handler=join,
        access=Access.PUBLIC,
        summary="Exchange the host's join token for a credential",
        tag="host",
        body=wire.Join,
        answers=(Answer(status=200, body=Envelope[wire.Joined], description="known from now on"),),
        errors={"token_refused": 403, "token_expired": 403},
        secret_answer=True,
    ),
)
