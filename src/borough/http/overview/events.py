"""Events of all contexts: ``/v1/events``, as a list or as a stream, with everything that the town's have."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from borough.auth.scopes import Scope
from borough.core.clock import rfc3339
from borough.http import sse
from borough.http.operations import Answer, Call, Operation
from borough.http.overview.services import OverviewServices, narrowed
from borough.http.overview.wire import ContextWord, Subject, subject_view
from borough.http.town import views, wire
from borough.http.town.common import AGENT_ERRORS
from borough.http.town.events import EventsQuery as TownQuery
from borough.http.town.events import wants_stream
from borough.http.town.render import event_members
from borough.overview.occurrences import Context, Gap, Occurrence, Wanted, decode_positions
from borough.overview.services.streams import Told

Kind = Annotated[str, Meta(min_length=1, max_length=64, description="or all that begin with it and a dot")]
Named = Annotated[str, Meta(min_length=1, max_length=200, description="the id of whatever an event names")]


class EventsQuery(TownQuery, kw_only=True, forbid_unknown_fields=True):
    context: ContextWord | None = None
    kind: Kind | None = None
    subject: Named | None = None


class EventView(views.EventView, kw_only=True, omit_defaults=True):
    """An event of any context. What the town's own have is there for all of them."""

    at: wire.Timestamp
    context: ContextWord
    kind: str
    subject: Subject | None = None
    data: dict[str, Any] = msgspec.field(default_factory=dict)


class EventList(Struct, kw_only=True):
    events: list[EventView]
    count: int
    cursor: Annotated[str, Meta(description="a stream goes on from here: send it as `Last-Event-ID`")]


async def events(call: Call) -> object:
    query: EventsQuery = call.query
    services: OverviewServices = call.state
    wanted = Wanted(
        contexts=narrowed(call.principal, query.context) & services.streams.contexts,
        kind=query.kind or query.type,
        subject=query.subject,
        subjects=await _named(services, query),
    )
    if not wants_stream(call):
        found, cursor = await services.streams.newest(wanted, limit=query.limit)
        return EventList(events=[event_view(each) for each in found], count=len(found), cursor=cursor)
    resumed = sse.last_event_id(call.headers)
    after = None if resumed is None else decode_positions(resumed)
    told = await services.streams.follow(wanted, after)
    return sse.EventStream(_chunks(told), ends=call.disconnected)


async def _named(services: OverviewServices, query: EventsQuery) -> Mapping[str, str]:
    named: dict[str, str] = {}
    if query.agent is not None:
        named["agent_id"] = await services.agent_id(query.agent)
    if query.task is not None:
        named["task_id"] = query.task
    return named


async def _chunks(told: AsyncIterator[Told | Gap]) -> AsyncGenerator[bytes]:
    try:
        async for item in told:
            yield _gap(item) if isinstance(item, Gap) else _event(item)
    finally:
        if isinstance(told, AsyncGenerator):
            await told.aclose()


@lru_cache(maxsize=4096)
def _event(told: Told) -> bytes:
    """Return an event as it is sent. Each is one object for all listeners, and so is encoded once."""
    data = msgspec.json.encode(event_view(told.occurrence))
    return sse.encode_event(data, event_id=told.cursor, event=told.occurrence.kind)


def _gap(gap: Gap) -> bytes:
    told = {"context": gap.context.value, "missed_after": gap.after, "resumes_at": gap.resumes_at}
    return sse.encode_event(msgspec.json.encode(told), event="gap")


def event_view(occurrence: Occurrence) -> EventView:
    """Return an occurrence as it goes over the wire."""
    members = event_members(occurrence.subjects) if occurrence.context is Context.TOWN else {}
    return EventView(
        id=occurrence.id,
        event_type=occurrence.kind,
        message=occurrence.message,
        timestamp=rfc3339(occurrence.at),
        at=rfc3339(occurrence.at),
        context=occurrence.context.value,
        kind=occurrence.kind,
        subject=None if occurrence.subject is None else subject_view(occurrence.subject),
        data=occurrence.data or {},
        **members,
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/events",
        handler=events,
        access=Scope.READ,
        summary="What happened lately anywhere; with `Accept: text/event-stream`, what happens",
        description=(
            "The town's, the fleet's and governance's events in one stream, each with its `context`. It resumes after "
            "`Last-Event-ID` in all of them; where history no longer reaches back so far, an event `gap` comes first. "
            "Whoever lacks the scope `admin`, or any credential, sees the town's alone."
        ),
        tag="events",
        query=EventsQuery,
        streaming=True,
        answers=(
            Answer(status=200, body=EventList, description="the newest, oldest first"),
            Answer(status=200, body=str, description="a stream", content_type="text/event-stream"),
        ),
        errors={**AGENT_ERRORS, "invalid_last_event_id": 400, "invalid_task_id": 400, "too_many_streams": 503},
    ),
)
