"""What both programs of the fleet tell anybody: whether they are well, and what Prometheus reads."""

import time
from collections.abc import Awaitable, Callable, Iterable

from starlette.responses import PlainTextResponse

from borough.core.errors import Unavailable
from borough.http.fleet.wire import Health
from borough.http.operations import Answer, Call, Operation, Reply, Response, open_to_all

METRICS = "text/plain; version=0.0.4; charset=utf-8"
Family = tuple[str, str, float]
"""Name, help and value of a gauge."""


def well_being(
    ready: Callable[[Call], Awaitable[object]], measure: Callable[[Call], Awaitable[str]]
) -> tuple[Operation, ...]:
    """Return ``/health``, ``/ready`` and ``/metrics``; ``ready`` raises ``Unavailable`` when the program is not."""

    async def readiness(call: Call) -> object:
        try:
            return await ready(call)
        except Unavailable as error:
            return Reply(status=503, body=Health(status=f"not ready: {error.message}", uptime_secs=uptime_s(call)))

    async def metrics(call: Call) -> Response:
        return PlainTextResponse(await measure(call), headers={"content-type": METRICS})

    does = Answer(status=200, body=Health, description="it does")
    does_not = Answer(status=503, body=Health, description="it does not")
    text = Answer(status=200, body=str, description="all families", content_type=METRICS)
    return (
        open_to_all("/health", health, "Does the process answer", does),
        open_to_all("/ready", readiness, "Does the store answer", does, does_not),
        open_to_all("/metrics", metrics, "Prometheus metrics", text),
    )


async def health(call: Call) -> object:
    """Say that the process answers."""
    return Health(status="ok", uptime_secs=uptime_s(call))


def uptime_s(call: Call) -> int:
    """Return since how many seconds the program runs."""
    return int(time.monotonic() - call.state.started_monotonic)


def exposition(prefix: str, families: Iterable[Family]) -> str:
    """Return gauges as Prometheus reads them."""
    lines: list[str] = []
    for name, told, value in families:
        full = f"{prefix}_{name}"
        lines += [f"# HELP {full} {told}", f"# TYPE {full} gauge", f"{full} {value}"]
    return "\n".join(lines) + "\n"
