"""Tasks: ``/v1/tasks…`` and ``/v1/dead-letters…``."""

from typing import Annotated, Literal

from msgspec import Meta

from borough.auth.scopes import Scope
from borough.core.ids import TaskId
from borough.core.paging import Page
from borough.http.operations import Access, Answer, ByAttempt, Call, Operation, Reply
from borough.http.town import callers, render, views, wire, worker_wire
from borough.http.town.common import (
    AGENT_ERRORS,
    ENDING_ERRORS,
    RUNNING_AGENT_ERRORS,
    TASK_ERRORS,
    PageQuery,
    page_request,
)
from borough.town.ports.tasks import TaskFilter
from borough.town.services.tasks import Wanted
from borough.town.tasks import Task, TaskState


class FindQuery(PageQuery, kw_only=True, forbid_unknown_fields=True):
    state: TaskState | None = None
    agent: wire.Ref | None = None
    role: wire.Role | None = None
    tag: wire.Tag | None = None
    order: Annotated[Literal["oldest", "newest"], Meta(description="which come first")] = "oldest"


class LimitQuery(PageQuery, kw_only=True):
    """Pages of reference routes, which ignore parameters they do not know."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000


def wanted(description: str, options: wire.WorkOptions, tags: list[str], *, pointer: str) -> Wanted:
    """Return the work that a body describes."""
    return Wanted(
        description=description,
        pointer=pointer,
        role=options.role,
        urgent=options.urgent,
        tags=tuple(tags),
        parent_id=callers.optional_task_id(options.parent_id, "/parent_id"),
        max_attempts=options.max_attempts,
        timeout_s=options.timeout_secs,
    )


def with_next(body: object, page: Page[Task] | Page[object], path: str) -> Reply | object:
    """Return ``body``, with a ``Link`` to the next page if there is one."""
    following = render.cursor(page)
    if following is None:
        return body
    return Reply(status=200, body=body, headers={"Link": f'<{path}?cursor={following}>; rel="next"'})


async def assign(call: Call) -> object:
    body: wire.AssignRequest = call.body
    made = await call.state.tasks.assign(
        wanted(body.task, body, body.tags, pointer="/task"), task_id=TaskId(call.operation_key), agent=body.agent
    )
    return render.assigned(made)


async def pending(call: Call) -> object:
    page = await call.state.tasks.pending(page_request(call.query))
    body = wire.PendingList(
        tasks=[render.pending_task(assignment) for assignment in page.items],
        count=len(page.items),
        next_cursor=render.cursor(page),
    )
    return with_next(body, page, "/v1/tasks/pending")


def _listed(page: Page[Task], path: str) -> object:
    body = views.TaskList(
        tasks=[render.task_view(task) for task in page.items],
        count=len(page.items),
        next_cursor=render.cursor(page),
    )
    return with_next(body, page, path)


async def find(call: Call) -> object:
    query: FindQuery = call.query
    filters = TaskFilter(
        state=query.state,
        agent=query.agent,
        role=query.role,
        tag=query.tag,
        newest_first=query.order == "newest",
    )
    return _listed(await call.state.tasks.find(filters, page_request(query)), "/v1/tasks")


async def dead_letters(call: Call) -> object:
    page = await call.state.tasks.find(TaskFilter(state=TaskState.FAILED), page_request(call.query))
    return _listed(page, "/v1/dead-letters")


async def show(call: Call) -> object:
    return render.task_detail(*await call.state.tasks.get(callers.task_id(call)))


async def explain(call: Call) -> object:
    return render.explanation(await call.state.tasks.explain(callers.task_id(call)))


async def complete(call: Call) -> object:
    task, body = callers.task_id(call), call.body or wire.CompleteRequest()
    done = await call.state.tasks.complete(task, result=body.result, ending=callers.ending(call, task, body.epoch))
    return render.task_view(done)


async def fail(call: Call) -> object:
    task, body = callers.task_id(call), call.body
    failed = await call.state.tasks.fail(
        task, reason=body.reason, final=body.final, ending=callers.ending(call, task, body.epoch)
    )
    return render.task_view(failed)


async def release(call: Call) -> object:
    task, body = callers.task_id(call), call.body
    how = callers.ending(call, task, body.epoch)
    return render.task_view(await call.state.tasks.release(task, epoch=how.epoch, reason=body.reason))


async def cancel(call: Call) -> object:
    body = call.body or wire.CancelRequest()
    cancelled = await call.state.tasks.cancel(callers.task_id(call), reason=body.reason, by=callers.name_of(call))
    return render.task_view(cancelled)


async def retry(call: Call) -> object:
    return render.task_view(await call.state.tasks.replay(callers.task_id(call), by=callers.name_of(call)))


async def replay(call: Call) -> object:
    body = call.body or wire.ReplayRequest()
    ids = await call.state.tasks.replay_dead_letters(limit=body.limit, by=callers.name_of(call))
    return views.Replayed(replayed=len(ids), tasks=list(ids))


_TASK = (Answer(status=200, body=views.TaskView, description="the task as it is now"),)
_TASKS = (Answer(status=200, body=views.TaskList, description="tasks, oldest first"),)

OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/tasks/assign",
        handler=assign,
        access=Scope.WRITE,
        summary="Give new work to one agent",
        tag="tasks",
        body=wire.AssignRequest,
        by_attempt=ByAttempt.LIVE,
        answers=(Answer(status=201, body=wire.Assigned, description="it waits in the agent's inbox"),),
        errors={**RUNNING_AGENT_ERRORS, "text_too_long": 422, "invalid_role": 422, "invalid_task_id": 422},
    ),
    Operation(
        method="GET",
        path="/v1/tasks/pending",
        handler=pending,
        access=Scope.READ,
        summary="Work in inboxes that nobody has begun",
        tag="tasks",
        query=LimitQuery,
        answers=(Answer(status=200, body=wire.PendingList, description="oldest first"),),
        errors={"invalid_cursor": 400},
    ),
    Operation(
        method="GET",
        path="/v1/tasks",
        handler=find,
        access=Scope.READ,
        summary="Find tasks",
        tag="tasks",
        query=FindQuery,
        answers=_TASKS,
        errors={**AGENT_ERRORS, "invalid_cursor": 400},
    ),
    Operation(
        method="GET",
        path="/v1/tasks/{task_id}",
        handler=show,
        access=Scope.READ,
        summary="One task: state, attempts, result, history with reasons",
        tag="tasks",
        answers=(Answer(status=200, body=views.TaskDetail, description="the task"),),
        errors=TASK_ERRORS,
    ),
    Operation(
        method="GET",
        path="/v1/tasks/{task_id}/explain",
        handler=explain,
        access=Scope.READ,
        summary="Why a task stands where it stands, since when, what next",
        tag="tasks",
        answers=(Answer(status=200, body=views.Explanation, description="the reason"),),
        errors=TASK_ERRORS,
    ),
    Operation(
        method="POST",
        path="/v1/tasks/{task_id}/complete",
        ends=True,
        handler=complete,
        access=Scope.WRITE,
        summary="End a task well",
        description=(
            "With an epoch, or with the token of an attempt, only the holder of that lease may; "
            "repeating it changes nothing."
        ),
        tag="tasks",
        body=wire.CompleteRequest,
        body_optional=True,
        by_attempt=ByAttempt.FENCED,
        answers=_TASK,
        errors=ENDING_ERRORS,
    ),
    Operation(
        method="POST",
        path="/v1/tasks/{task_id}/fail",
        ends=True,
        handler=fail,
        access=Scope.WRITE,
        summary="End an attempt badly",
        description="The task is tried again after a pause while attempts are left; then it is a dead letter.",
        tag="tasks",
        body=wire.FailRequest,
        by_attempt=ByAttempt.FENCED,
        answers=_TASK,
        errors=ENDING_ERRORS,
    ),
    Operation(
        method="POST",
        path="/v1/tasks/{task_id}/release",
        ends=True,
        handler=release,
        access=Access.WORKER,
        summary="Give a leased task back unharmed",
        tag="workers",
        body=worker_wire.ReleaseRequest,
        by_attempt=ByAttempt.FENCED,
        metered=False,
        answers=_TASK,
        errors=ENDING_ERRORS,
    ),
    Operation(
        method="POST",
        path="/v1/tasks/{task_id}/cancel",
        ends=True,
        handler=cancel,
        access=Scope.WRITE,
        summary="End a task that is no longer wanted",
        tag="tasks",
        body=wire.CancelRequest,
        body_optional=True,
        answers=_TASK,
        errors={**TASK_ERRORS, "text_too_long": 422, "task_finished": 409},
    ),
    Operation(
        method="POST",
        path="/v1/tasks/{task_id}/retry",
        handler=retry,
        access=Scope.WRITE,
        summary="Put a failed, cancelled or delayed task back to work",
        tag="tasks",
        answers=_TASK,
        errors={**TASK_ERRORS, "not_replayable": 409},
    ),
    Operation(
        method="GET",
        path="/v1/dead-letters",
        handler=dead_letters,
        access=Scope.READ,
        summary="Tasks that are out of attempts",
        tag="tasks",
        query=PageQuery,
        answers=_TASKS,
        errors={"invalid_cursor": 400},
    ),
    Operation(
        method="POST",
        path="/v1/dead-letters/replay",
        handler=replay,
        access=Scope.WRITE,
        summary="Put the oldest dead letters back to work",
        tag="tasks",
        body=wire.ReplayRequest,
        body_optional=True,
        answers=(Answer(status=200, body=views.Replayed, description="what was put back"),),
    ),
)
