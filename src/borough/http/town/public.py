"""What anybody may ask: is it alive, is it ready, how busy is it."""

import time

from msgspec import UNSET
from starlette.responses import PlainTextResponse

from borough.core.clock import rfc3339
from borough.core.errors import Unavailable
from borough.http.operations import Access, Answer, Call, Operation, Reply, Response
from borough.http.town import metrics, wire


async def health(call: Call) -> object:
    return wire.Health(status="ok", uptime_secs=int(time.monotonic() - call.state.facts.started_monotonic))


async def ready(call: Call) -> object:
    name = call.state.facts.name
    fleet = UNSET if call.state.fleet is None else await call.state.fleet.told()
    ledger = UNSET if call.state.ledger is None else await call.state.ledger.told()
    try:
        found = await call.state.readings.ready()
    except Unavailable as error:
        return Reply(
            status=503,
            body=wire.NotReady(
                status="not_ready",
                redis="disconnected",
                dispatcher="unknown",
                town=name,
                detail=error.message,
                fleet=fleet,
                ledger=ledger,
            ),
        )
    return wire.Ready(
        status="ready",
        redis="connected",
        redis_latency_ms=round(found.latency_s * 1000, 3),
        dispatcher=found.dispatcher.value,
        town=name,
        durability=found.durability,
        fleet=fleet,
        ledger=ledger,
    )


async def measure(call: Call) -> Response:
    try:
        status, text = 200, metrics.render(await call.state.readings.measure())
    except Unavailable as error:
        status, text = 503, metrics.render_failure(error.message)
    for beside in (call.state.fleet, call.state.ledger):
        text += "" if beside is None else await beside.metrics()
    return PlainTextResponse(text, status_code=status, headers={"content-type": metrics.CONTENT_TYPE})


async def scaling(call: Call) -> object:
    found = await call.state.readings.scaling()
    return wire.Scaling(
        town=call.state.facts.name,
        timestamp=rfc3339(found.at),
        queue_depth=found.queue_depth,
        pending_tasks=found.pending_tasks,
        in_flight_tasks=found.in_flight_tasks,
        active_agents=found.active_agents,
        cold_agents=found.cold_agents,
        desired_agents=found.desired_agents,
        max_agents=found.max_agents,
        scaling_recommendation=found.recommendation.value,
    )


_METRICS = "text/plain; version=0.0.4; charset=utf-8"

OPERATIONS = (
    *(
        Operation(
            method="GET",
            path=path,
            handler=health,
            access=Access.PUBLIC,
            summary="Is the process alive",
            tag="public",
            answers=(Answer(status=200, body=wire.Health, description="it is"),),
            metered=False,
        )
        for path in ("/health", "/healthz")
    ),
    *(
        Operation(
            method="GET",
            path=path,
            handler=ready,
            access=Access.PUBLIC,
            summary="Does the store answer",
            tag="public",
            answers=(
                Answer(status=200, body=wire.Ready, description="it does"),
                Answer(status=503, body=wire.NotReady, description="it does not"),
            ),
            metered=False,
        )
        for path in ("/ready", "/readyz")
    ),
    Operation(
        method="GET",
        path="/metrics",
        handler=measure,
        access=Access.PUBLIC,
        summary="Prometheus metrics",
        tag="public",
        answers=(
            Answer(status=200, body=str, description="all families", content_type=_METRICS),
            Answer(status=503, body=str, description="the same families with zeros, and why", content_type=_METRICS),
        ),
        metered=False,
    ),
    Operation(
        method="GET",
        path="/api/scaling",
        handler=scaling,
        access=Access.PUBLIC,
        summary="The autoscaling signal",
        tag="public",
        answers=(Answer(status=200, body=wire.Scaling, description="one consistent snapshot"),),
        metered=False,
    ),
)
