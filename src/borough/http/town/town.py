"""The town as a whole: ``/v1/town``, ``/v1/status``, ``/v1/reset``."""

from msgspec import Struct

from borough.auth.scopes import Scope
from borough.core.clock import utc_now
from borough.http.operations import Answer, Call, Operation
from borough.http.town import render, views, wire
from borough.http.town.services import TownFacts


class StatusQuery(Struct, kw_only=True):
    deep: bool = False


async def town(call: Call) -> object:
    facts: TownFacts = call.state.facts
    return wire.Town(name=facts.name, root=facts.root, redis_url=facts.redis_url)


async def status(call: Call) -> object:
    facts, agents, now = call.state.facts, await call.state.agents.all(), utc_now()
    confined = call.state.agents.confinement
    counts = await call.state.readings.counts() if call.query.deep else None
    return wire.Status(
        name=facts.name,
        root=facts.root,
        redis_url=facts.redis_url,
        agent_count=len(agents),
        agents=[render.agent_full(agent, confined(agent), now=now) for agent in agents],
        tasks=None if counts is None else {state.value: count for state, count in counts.items()},
    )


async def reset(call: Call) -> object:
    body: wire.ResetRequest = call.body
    removed = await call.state.administration.reset(confirm=body.confirm, agents_only=body.agents_only)
    return views.ResetDone(removed=removed)


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/town",
        handler=town,
        access=Scope.READ,
        summary="Which town this is",
        tag="town",
        answers=(Answer(status=200, body=wire.Town, description="the password in the URL is hidden"),),
    ),
    Operation(
        method="GET",
        path="/v1/status",
        handler=status,
        access=Scope.READ,
        summary="The town and its agents",
        tag="town",
        query=StatusQuery,
        answers=(Answer(status=200, body=wire.Status, description="with counts of tasks if deep=true"),),
    ),
    Operation(
        method="POST",
        path="/v1/reset",
        handler=reset,
        access=Scope.ADMIN,
        summary="Delete everything of the town, or its agents",
        tag="town",
        body=wire.ResetRequest,
        answers=(Answer(status=200, body=views.ResetDone, description="how many records went"),),
        errors={"not_confirmed": 409},
    ),
)
