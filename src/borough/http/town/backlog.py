"""The shared backlog: ``/v1/backlog…``."""

from borough.auth.scopes import Scope
from borough.core.errors import Forbidden
from borough.core.ids import TaskId
from borough.http.operations import Answer, ByAttempt, Call, Operation
from borough.http.town import callers, render, wire
from borough.http.town.common import RUNNING_AGENT_ERRORS, page_request
from borough.http.town.tasks import LimitQuery, wanted, with_next


async def add(call: Call) -> object:
    body: wire.BacklogRequest = call.body
    task = await call.state.tasks.add_to_backlog(
        wanted(body.description, body, body.tags, pointer="/description"), task_id=TaskId(call.operation_key)
    )
    return wire.BacklogAdded(task_id=task.id, description=task.description)


async def listing(call: Call) -> object:
    page = await call.state.tasks.backlog(page_request(call.query))
    body = wire.BacklogList(
        backlog=[
            wire.BacklogEntry(
                task_id=task.id,
                description=task.description,
                tags=list(task.tags),
                role=task.role,
                urgent=task.urgent,
            )
            for task in page.items
        ],
        count=len(page.items),
        next_cursor=render.cursor(page),
    )
    return with_next(body, page, "/v1/backlog")


async def claim(call: Call) -> object:
    grant = call.principal.worker
    if grant is not None and call.body.agent != grant.agent_id:
        raise Forbidden(
            "an agent may only claim work for itself",
            code="not_your_agent",
            resolution=f"claim it for {grant.agent_id}",
        )
    return render.assigned(await call.state.tasks.claim(callers.task_id(call), agent=call.body.agent))


async def assign_all(call: Call) -> object:
    _, ids = await call.state.tasks.claim_all(agent=call.body.agent)
    return wire.AssignedAll(assigned=len(ids), tasks=list(ids))


async def remove(call: Call) -> object:
    task = callers.task_id(call)
    await call.state.tasks.remove_from_backlog(task)
    return wire.Removed(removed=True, task_id=task)


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/backlog",
        handler=listing,
        access=Scope.READ,
        summary="Work that waits for anybody",
        tag="backlog",
        query=LimitQuery,
        answers=(Answer(status=200, body=wire.BacklogList, description="in the order in which it will be taken"),),
        errors={"invalid_cursor": 400},
    ),
    Operation(
        method="POST",
        path="/v1/backlog",
        handler=add,
        access=Scope.WRITE,
        summary="Add work for whoever is free and fits",
        tag="backlog",
        body=wire.BacklogRequest,
        by_attempt=ByAttempt.LIVE,
        answers=(Answer(status=201, body=wire.BacklogAdded, description="it is on disk"),),
        errors={"text_too_long": 422, "invalid_role": 422, "invalid_task_id": 422},
    ),
    Operation(
        method="POST",
        path="/v1/backlog/{task_id}/claim",
        handler=claim,
        access=Scope.WRITE,
        summary="Hand a task of the backlog to an agent",
        tag="backlog",
        body=wire.AgentRequest,
        by_attempt=ByAttempt.LIVE,
        answers=(Answer(status=200, body=wire.Assigned, description="it waits in the agent's inbox"),),
        errors={
            **RUNNING_AGENT_ERRORS,
            "invalid_task_id": 400,
            "task_not_found": 404,
            "not_in_backlog": 409,
            "not_your_agent": 403,
        },
    ),
    Operation(
        method="POST",
        path="/v1/backlog/assign-all",
        handler=assign_all,
        access=Scope.WRITE,
        summary="Hand the whole backlog to an agent",
        tag="backlog",
        body=wire.AgentRequest,
        answers=(Answer(status=200, body=wire.AssignedAll, description="what it got, in order"),),
        errors=RUNNING_AGENT_ERRORS,
    ),
    Operation(
        method="DELETE",
        path="/v1/backlog/{task_id}",
        handler=remove,
        access=Scope.WRITE,
        summary="Delete a task that nobody has begun",
        tag="backlog",
        answers=(Answer(status=200, body=wire.Removed, description="it is gone"),),
        errors={"invalid_task_id": 400, "task_not_found": 404, "not_in_backlog": 404},
    ),
)
