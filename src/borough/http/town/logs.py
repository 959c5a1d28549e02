"""Logs of attempts: ``/v1/tasks/{task_id}/log``."""

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from starlette.responses import Response

from borough.auth.scopes import Scope
from borough.core.errors import Invalid
from borough.core.ids import TaskId
from borough.http import sse
from borough.http.operations import Access, Answer, ByAttempt, Call, Operation
from borough.http.town import callers, worker_wire
from borough.http.town.common import ENDING_ERRORS, TASK_ERRORS
from borough.http.town.events import wants_stream
from borough.town.services.logs import LogService


class LogQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    epoch: Annotated[int, Meta(ge=1, description="of which lease; the last by default")] | None = None
    offset: Annotated[int, Meta(ge=0, description="bytes to skip")] = 0


class AppendQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    offset: Annotated[int, Meta(ge=0)]


async def read(call: Call) -> object:
    task, query, service = callers.task_id(call), call.query, call.state.logs
    if wants_stream(call):
        await call.state.tasks.get(task)  # an unknown task is refused while a status can still say so
        chunks = _chunks(service, task, query.epoch, query.offset)
        return sse.EventStream(chunks, ends=call.disconnected)
    part = await service.read(task, epoch=query.epoch, offset=query.offset)
    headers = {
        "content-type": "text/plain; charset=utf-8",
        "x-log-size": str(part.size),
        "x-log-epoch": str(part.epoch),
        "x-content-type-options": "nosniff",
    }
    return Response(part.data, headers=headers)


async def _chunks(service: LogService, task: TaskId, epoch: int | None, offset: int) -> AsyncIterator[bytes]:
    async for part in service.follow(task, epoch=epoch, offset=offset):
        data = msgspec.json.encode(
            {"epoch": part.epoch, "offset": part.offset, "text": part.data.decode(errors="replace")}
        )
        yield sse.encode_event(data, event="log")
    yield sse.encode_event(b"{}", event="end")


async def append(call: Call) -> object:
    task = callers.task_id(call)
    how = callers.ending(call, task, None)
    if how.epoch is None:
        raise Invalid("only an attempt's own token may write its log", code="not_an_attempt")
    size = await call.state.logs.append(task, epoch=how.epoch, offset=call.query.offset, data=call.body)
    return worker_wire.LogSize(size=size)


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/tasks/{task_id}/log",
        handler=read,
        access=Scope.READ,
        summary="What the agent CLI printed; with `Accept: text/event-stream`, while it prints",
        description="At most 256 KiB at once; `X-Log-Size` says how much there is.",
        tag="tasks",
        query=LogQuery,
        streaming=True,
        answers=(
            Answer(status=200, body=str, description="a part of the log", content_type="text/plain; charset=utf-8"),
            Answer(status=200, body=str, description="a live tail", content_type="text/event-stream"),
        ),
        errors={**TASK_ERRORS, "log_not_found": 404},
    ),
    Operation(
        method="POST",
        path="/v1/tasks/{task_id}/log",
        ends=True,
        handler=append,
        access=Access.WORKER,
        summary="Write to the log of an attempt",
        description="What is already there is not written twice.",
        tag="workers",
        query=AppendQuery,
        body=bytes,
        by_attempt=ByAttempt.FENCED,
        metered=False,
        answers=(Answer(status=200, body=worker_wire.LogSize, description="how long the log is now"),),
        errors={**ENDING_ERRORS, "log_hole": 409, "not_an_attempt": 403},
    ),
)
