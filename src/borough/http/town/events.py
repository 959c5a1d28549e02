"""Events: ``/v1/events``, as a list or as a stream."""

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from borough.auth.scopes import Scope
from borough.http import sse
from borough.http.operations import Answer, Call, Operation
from borough.http.town import callers, render, views, wire
from borough.http.town.common import AGENT_ERRORS
from borough.town.services.events import EventFilter, EventService, Gap, event_order


class EventsQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=1000, description="of the list; a stream has no end")] = 100
    agent: wire.Ref | None = None
    task: wire.Uuid | None = None
    type: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


def wants_stream(call: Call) -> bool:
    """Tell whether the caller asked for server-sent events."""
    return "text/event-stream" in call.headers.get("accept", "")


async def events(call: Call) -> object:
    query: EventsQuery = call.query
    service: EventService = call.state.events
    wanted = await service.wanted(
        agent=query.agent, task_id=callers.optional_task_id(query.task, "/task"), type_=query.type
    )
    if not wants_stream(call):
        found = await service.newest(wanted, limit=query.limit)
        return views.EventList(events=[render.event_view(event) for event in found], count=len(found))
    after = sse.last_event_id(call.headers)
    if after is not None:
        event_order(after)  # refused before the stream begins, while a status can still say so
    return sse.EventStream(_chunks(service, wanted, after), ends=call.disconnected)


async def _chunks(service: EventService, wanted: EventFilter, after: str | None) -> AsyncIterator[bytes]:
    async for item in service.follow(wanted, after=after):
        if isinstance(item, Gap):
            told = msgspec.json.encode({"missed_after": item.after, "resumes_at": item.resumes_at})
            yield sse.encode_event(told, event="gap")
        else:
            data = msgspec.json.encode(render.event_view(item))
            yield sse.encode_event(data, event_id=item.id, event=item.type)


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/events",
        handler=events,
        access=Scope.READ,
        summary="What happened lately; with `Accept: text/event-stream`, what happens",
        description=(
            "The stream resumes after `Last-Event-ID`. Where history no longer reaches back so far, "
            "an event `gap` comes first."
        ),
        tag="events",
        query=EventsQuery,
        streaming=True,
        answers=(
            Answer(status=200, body=views.EventList, description="the newest, oldest first"),
            Answer(status=200, body=str, description="a stream", content_type="text/event-stream"),
        ),
        errors={**AGENT_ERRORS, "invalid_last_event_id": 400, "invalid_task_id": 400},
    ),
)
