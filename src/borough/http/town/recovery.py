"""Recovery: ``/v1/recover``, ``/v1/reclaim…``."""

from borough.auth.scopes import Scope
from borough.core.errors import Invalid
from borough.http.operations import Answer, Call, Operation
from borough.http.town import callers, render, wire
from borough.http.town.common import RUNNING_AGENT_ERRORS
from borough.town.services.recovery import OrphanAction

_ACTIONS = {
    "": OrphanAction.LIST,
    "backlog": OrphanAction.TO_BACKLOG,
    **{action.value: action for action in OrphanAction},
}


async def recover(call: Call) -> object:
    found = await call.state.recovery.recover()
    return wire.Recovered(checked=found.checked, recovered=len(found.names), agents=list(found.names))


async def reclaim(call: Call) -> object:
    body: wire.ReclaimRequest = call.body
    moved = await call.state.recovery.reclaim(of=body.from_, to_backlog=body.to_backlog, to=body.to)
    destination = "Backlog" if body.to_backlog else f'Agent("{body.to}")' if body.to else "Listed"
    return wire.Reclaimed(
        reclaimed=len(moved), destination=destination, tasks=[render.pending_task(item) for item in moved]
    )


async def orphans(call: Call) -> object:
    body = call.body or wire.OrphansRequest()
    action = _ACTIONS.get(body.action)
    if action is None:
        raise Invalid(
            f"{body.action!r} is nothing to do with orphans",
            code="unknown_action",
            resolution="use list, to_backlog, cancel or delete",
            details={"pointer": "/action"},
        )
    found = await call.state.recovery.orphans(action, by=callers.name_of(call))
    return wire.Orphans(
        action=action.value,
        count=len(found),
        orphans=[
            wire.Orphan(
                task_id=orphan.task.id,
                assigned_to=orphan.task.assigned_to or "",
                state=orphan.task.state.value,
                reason=orphan.reason,
            )
            for orphan in found
        ],
    )


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/recover",
        handler=recover,
        access=Scope.MANAGE,
        summary="Find agents that fell silent, now",
        description="The server does this by itself all the time; this does it at once and tells what it found.",
        tag="recovery",
        answers=(Answer(status=200, body=wire.Recovered, description="who was found lost"),),
    ),
    Operation(
        method="POST",
        path="/v1/reclaim",
        handler=reclaim,
        access=Scope.MANAGE,
        summary="Move what waits for ended agents; without a destination only look",
        tag="recovery",
        body=wire.ReclaimRequest,
        answers=(Answer(status=200, body=wire.Reclaimed, description="what moved, or would"),),
        errors={**RUNNING_AGENT_ERRORS, "two_destinations": 422, "agent_not_ended": 409},
    ),
    Operation(
        method="POST",
        path="/v1/reclaim/orphan-tasks",
        handler=orphans,
        access=Scope.MANAGE,
        summary="Find unfinished tasks whose agent is gone, and settle them",
        tag="recovery",
        body=wire.OrphansRequest,
        body_optional=True,
        answers=(Answer(status=200, body=wire.Orphans, description="what was found"),),
        errors={"unknown_action": 400},
    ),
)
