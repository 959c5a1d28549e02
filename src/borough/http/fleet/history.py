"""What is under way and what happened: ``/api/operations``, ``/api/events``."""

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from borough.fleet.services.events import EventFilter, EventService, Gap
from borough.http import sse
from borough.http.fleet import render, wire
from borough.http.fleet.common import Limit, PageQuery, Ticket, page_request, paged
from borough.http.fleet.dialect import Envelope, data
from borough.http.operations import Access, Answer, Call, Operation, Reply

_Word = Annotated[str, Meta(min_length=1, max_length=128)]


class WaitQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    wait: Annotated[float, Meta(ge=0, le=300, description="seconds to wait for the end")] = 0


class EventsQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    after: Annotated[str, Meta(max_length=20, pattern="^[0-9]*$")] = ""
    limit: Limit = 100
    type: _Word | None = None
    env: _Word | None = None
    vm: _Word | None = None
    host: _Word | None = None
    operation: _Word | None = None
    ticket: Ticket | None = None


async def operations(call: Call) -> object:
    page = page_request(call.query.limit, call.query.cursor)
    found = await call.state.fleet.operations(running=False, page=page)
    return paged([render.operation_view(each) for each in found.items], found.after, limit=page.limit)


async def operation(call: Call) -> object:
    found = await call.state.operations.wait(call.path["id"], timeout_s=call.query.wait)
    return data(render.operation_view(found))


async def events(call: Call) -> object:
    query: EventsQuery = call.query
    service: EventService = call.state.events
    wanted = _wanted(query)
    if "text/event-stream" not in call.headers.get("accept", ""):
        found, looked = await service.after(wanted, after=query.after, limit=query.limit)
        headers = {"link": f'<?after={looked}&limit={query.limit}>; rel="next"'} if looked != query.after else {}
        return Reply(status=200, body=data([render.event_view(event) for event in found]), headers=headers)
    after = sse.last_event_id(call.headers) or query.after or None
    if after is not None:
        await service.after(wanted, after=after, limit=1)  # refused before the stream begins, if it is no id
    return sse.EventStream(_chunks(service, wanted, after), ends=call.disconnected)


def _wanted(query: EventsQuery) -> EventFilter:
    named = {"env_id": query.env, "vm_id": query.vm, "host_id": query.host, "operation_id": query.operation}
    return EventFilter(type=query.type, subjects={name: value for name, value in named.items() if value is not None})


async def _chunks(service: EventService, wanted: EventFilter, after: str | None) -> AsyncIterator[bytes]:
    async for item in service.follow(wanted, after=after):
        if isinstance(item, Gap):
            told = msgspec.json.encode({"missed_after": item.after, "resumes_at": item.resumes_at})
            yield sse.encode_event(told, event="gap")
        else:
            yield sse.encode_event(msgspec.json.encode(render.event_view(item)), event_id=item.id, event=item.type)


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/operations",
        handler=operations,
        access=Access.CALLER,
        summary="List operations",
        tag="history",
        query=PageQuery,
        answers=(Answer(status=200, body=Envelope[list[wire.Operation]], description="newest first"),),
    ),
    Operation(
        method="GET",
        path="/api/operations/{id}",
        handler=operation,
        access=Access.CALLER,
        summary="How an operation stands; with `wait`, as soon as it is over",
        tag="history",
        query=WaitQuery,
        answers=(Answer(status=200, body=Envelope[wire.Operation], description="over, or as it is"),),
        errors={"operation_not_found": 404},
        streaming=True,
    ),
    Operation(
        method="GET",
        path="/api/events",
        handler=events,
        access=Access.CALLER,
        summary="What happened; with `Accept: text/event-stream`, what happens",
        description=(
            "The stream resumes after `Last-Event-ID`. Where events are no longer kept so far back, "
            "an event `gap` comes first."
        ),
        tag="history",
        query=EventsQuery,
        streaming=True,
        by_ticket=True,
        answers=(
            Answer(status=200, body=Envelope[list[wire.Event]], description="after `after`, oldest first"),
            Answer(status=200, body=str, description="a stream", content_type="text/event-stream"),
        ),
        errors={"invalid_last_event_id": 400},
    ),
)
