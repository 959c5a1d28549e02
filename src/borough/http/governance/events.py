"""Live events: entries of the ledger as server-sent events, and the tickets with which browsers open a stream."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from borough.core.clock import rfc3339
from borough.core.errors import Invalid
from borough.governance.actions import meant_by
from borough.governance.ports.ledger import EntryFilter
from borough.governance.services.events import Gap
from borough.governance.services.fanout import Frame
from borough.governance.tokens import TICKET_LIFETIME
from borough.http import sse
from borough.http.governance.audit import ActionWord, OutcomeWord
from borough.http.governance.common import LEDGER_ERRORS, REFUSALS, asker, parse_agent
from borough.http.operations import Access, Answer, Call, Operation

UNREAD_FOR_S = 60.0
"""How long a client may leave what it was sent unread until it is cut off."""
_SEQ = re.compile(r"[0-9]{1,15}\Z")


class EventsQuery(Struct, kw_only=True):
    cursor: Annotated[str, Meta(description="the id of the last event that was read")] | None = msgspec.field(
        name="_cursor", default=None
    )
    agent: list[Annotated[str, Meta(max_length=64, description="an agent's id")]] = []
    action: list[ActionWord] = []
    outcome: list[OutcomeWord] = []
    ticket: Annotated[str, Meta(description="instead of the header, for browsers")] | None = None


class StreamTicket(Struct, kw_only=True):
    """Opens one stream, once: ``/events?ticket=…``."""

    ticket: str
    expires_at: str
    expires_in_secs: int


async def events(call: Call) -> sse.EventStream:
    query: EventsQuery = call.query
    who = asker(call)
    resumed = _last_event_id(call)
    # What the reference's page reserves is passed over where it is none of ours.
    cursor = int(query.cursor) if query.cursor and _SEQ.match(query.cursor) else None
    wanted = EntryFilter(
        agents=frozenset(parse_agent(text) for text in query.agent) if query.agent else None,
        actions=frozenset(name for word in query.action for name in meant_by(word)),
        outcomes=frozenset(query.outcome),
    )
    batches = await call.state.events.follow(who, wanted, cursor if resumed is None else resumed)
    pace = _Pace(_chunks(batches, named_gaps=resumed is not None), unread_for_s=UNREAD_FOR_S)
    ends = (call.disconnected, lambda: call.state.tokens.ended(who), pace.unread)
    return sse.EventStream(pace.chunks(), ends=lambda: _first(ends), headers={"cache-control": "no-cache"})


async def ticket(call: Call) -> StreamTicket:
    made = await call.state.tokens.new_ticket(asker(call))
    return StreamTicket(
        ticket=made.word,
        expires_at=rfc3339(made.expires_at),
        expires_in_secs=int(TICKET_LIFETIME.total_seconds()),
    )


async def _chunks(batches: AsyncIterator[tuple[Frame, ...] | Gap], *, named_gaps: bool) -> AsyncGenerator[bytes]:
    try:
        async for batch in batches:
            yield _gap(batch, named=named_gaps) if isinstance(batch, Gap) else b"".join(map(_event, batch))
    finally:
        if isinstance(batches, AsyncGenerator):
            await batches.aclose()


@lru_cache(maxsize=4096)
def _event(frame: Frame) -> bytes:
    """Return an entry as an event. Frames are shared, so each is encoded once for all streams."""
    return sse.encode_event(frame.canonical, event_id=str(frame.seq))


def _gap(gap: Gap, *, named: bool) -> bytes:
    told = sse.encode_comment(f"gap: entries after {gap.after} and before {gap.resumes_at} are gone")
    if not named:
        # A named event would be one too many for readers of the reference's page, who know of none.
        return told
    data = msgspec.json.encode({"missed_after": gap.after, "resumes_at": gap.resumes_at})
    return told + sse.encode_event(data, event="gap")


class _Pace:
    """Passes chunks on, and notices when one is not taken by the client for too long."""

    def __init__(self, chunks: AsyncGenerator[bytes], *, unread_for_s: float) -> None:
        self._chunks = chunks
        self._unread_for_s = unread_for_s
        self._too_long = asyncio.Event()

    async def chunks(self) -> AsyncGenerator[bytes]:
        loop = asyncio.get_running_loop()
        try:
            async for chunk in self._chunks:
                timer = loop.call_later(self._unread_for_s, self._too_long.set)
                try:
                    yield chunk
                finally:
                    timer.cancel()
        finally:
            await self._chunks.aclose()

    async def unread(self) -> None:
        """Return when the client has not read for too long."""
        await self._too_long.wait()


async def _first(waits: tuple[Callable[[], Awaitable[None]], ...]) -> None:
    """Return as soon as one of ``waits`` does."""
    tasks = [asyncio.ensure_future(wait()) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


def _last_event_id(call: Call) -> int | None:
    given = sse.last_event_id(call.headers)
    if given is None:
        return None
    if not _SEQ.match(given):
        raise Invalid(
            "the Last-Event-ID is not one that this server gave out",
            code="invalid_last_event_id",
            resolution="send the id of the last event that was read, or no such header",
        )
    return int(given)


OPERATIONS = (
    Operation(
        method="GET",
        path="/events",
        handler=events,
        access=Access.CALLER,
        summary="What happens, as it happens",
        description=(
            "Each event is one entry of the ledger, and its id the entry's number. The stream goes on after "
            "`Last-Event-ID` (or `_cursor`); where entries are gone, a comment says so, and an event `gap` to those "
            "who sent the header. A client that is slow misses nothing; one that does not read at all is cut off."
        ),
        tag="events",
        query=EventsQuery,
        streaming=True,
        by_ticket=True,
        answers=(Answer(status=200, body=str, description="a stream", content_type="text/event-stream"),),
        errors={
            **REFUSALS,
            **LEDGER_ERRORS,
            "agent_not_found": 404,
            "invalid_last_event_id": 400,
            "too_many_streams": 503,
        },
    ),
    Operation(
        method="POST",
        path="/stream-tickets",
        handler=ticket,
        access=Access.CALLER,
        summary="A ticket for one stream, for browsers, which cannot send the header",
        tag="events",
        secret_answer=True,
        answers=(Answer(status=201, body=StreamTicket, description="open /events?ticket=… with it"),),
        errors=REFUSALS,
    ),
)
