"""A small table of operations with one of each kind, for the tests of the machinery below the handlers."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct
from starlette.responses import PlainTextResponse

from borough.auth.principals import Principal, WorkerGrant
from borough.auth.scopes import Scope
from borough.core.errors import Conflict, Forbidden, NotFound, Unavailable
from borough.core.ids import AgentId, TaskId
from borough.http.operations import Access, Answer, ByAttempt, Call, Operation, Reply
from borough.http.sse import EventStream, encode_event
from borough.http.surfaces import Policies, Surface
from borough.http.table import OperationTable


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Filter(Struct, kw_only=True, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=1000, description="How many at most")] = 100
    deep: bool = False
    colour: Colour | None = None
    tag: list[str] = []


class Loose(Struct, kw_only=True):
    deep: bool = False


class Part(Struct, kw_only=True):
    size: Annotated[int, Meta(ge=1)]


class Thing(Struct, kw_only=True):
    name: Annotated[str, Meta(min_length=1)]
    weight: float = 0.0
    tags: list[Annotated[str, Meta(max_length=8)]] = []
    parts: dict[str, Part] = {}


class StrictThing(Struct, kw_only=True, forbid_unknown_fields=True):
    name: str = "nameless"


class Made(Struct, kw_only=True):
    id: str
    name: str


class Seen(Struct, kw_only=True):
    limit: int
    deep: bool
    colour: str | None
    tag: list[str]


class Echo(Struct, kw_only=True):
    value: str


@dataclass(slots=True)
class DemoState:
    made: list[str] = field(default_factory=list)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)


PEOPLE: Mapping[str, Principal] = {
    "reader": Principal(id="reader", scopes=frozenset({Scope.READ})),
    "writer": Principal(id="writer", scopes=frozenset({Scope.READ, Scope.WRITE})),
    "other": Principal(id="other", scopes=frozenset({Scope.READ, Scope.WRITE})),
    "admin": Principal(id="admin", scopes=frozenset({Scope.ADMIN})),
    "worker": Principal(
        id="worker:a", scopes=frozenset(), worker=WorkerGrant(agent_id=AgentId("a"), incarnation=1, task_id=None)
    ),
    **{
        f"attempt-{epoch}": Principal(
            id=f"attempt:{epoch}",
            scopes=frozenset({Scope.READ, Scope.WRITE}),
            worker=WorkerGrant(agent_id=AgentId("a"), incarnation=1, task_id=TaskId("t"), epoch=epoch),
        )
        for epoch in (1, 2)
    },
}


async def authenticate(headers: Mapping[str, str], _client: str) -> Principal:
    token = headers.get("authorization", "").removeprefix("Bearer ")
    if not token:
        raise Forbidden("a credential is needed", code="authentication_required")
    if token not in PEOPLE:
        raise Forbidden("the credential is not good", code="invalid_credentials")
    return PEOPLE[token]


async def health(_call: Call) -> Echo:
    return Echo(value="ok")


async def find(call: Call) -> Seen:
    query: Filter = call.query
    return Seen(limit=query.limit, deep=query.deep, colour=query.colour, tag=query.tag)


async def loose(call: Call) -> Echo:
    return Echo(value=str(call.query.deep))


async def make(call: Call) -> Made:
    call.state.made.append(call.body.name)
    return Made(id=call.operation_key, name=call.body.name)


async def make_strictly(call: Call) -> Reply:
    return Reply(status=202, body=Echo(value=call.body.name), headers={"X-Seen": "yes"})


async def show(call: Call) -> Echo:
    if call.path["thing"] == "gone":
        raise NotFound("no such thing", code="thing_not_found", reason="it went", resolution="make one")
    if call.path["thing"] == "teapot":
        raise Conflict("it is a teapot", code="teapot", details={"size": 3})
    return Echo(value=call.path["thing"])


async def show_part(call: Call) -> Echo:
    return Echo(value=f"{call.path['thing']}/{call.path['part']}")


async def show_note(call: Call) -> Echo:
    return Echo(value=f"{call.path['thing']}: {call.path['note']}")


async def remove(_call: Call) -> None:
    return None


async def upload(call: Call) -> Echo:
    return Echo(value=str(len(call.body)))


async def text(_call: Call) -> PlainTextResponse:
    return PlainTextResponse("plain")


async def broken(_call: Call) -> Echo:
    raise RuntimeError("the inner secret")


async def unavailable(call: Call) -> Echo:
    call.state.made.append("tried")
    raise Unavailable("the store is down", code="store_unavailable")


async def wait(call: Call) -> Echo:
    call.state.entered.set()
    await call.state.released.wait()
    return Echo(value="released")


async def until_gone(call: Call) -> Echo:
    call.state.entered.set()
    await call.disconnected()
    return Echo(value="gone")


async def work(call: Call) -> Echo:
    return Echo(value=call.principal.id)


async def _ticks(state: DemoState) -> AsyncIterator[bytes]:
    try:
        yield encode_event('{"n": 1}', event_id="1-0", event="tick")
        state.entered.set()
        await state.released.wait()
        yield encode_event("two\nlines", event_id="2-0")
    finally:
        state.closed.set()


async def events(call: Call) -> EventStream:
    return EventStream(_ticks(call.state), ends=call.disconnected)


def _row(method: str, path: str, handler: object, access: Scope | Access, answer: Answer, **more: object) -> Operation:
    name = handler.__name__.strip("_").replace("_", " ")  # type: ignore[attr-defined]  # a function
    return Operation(
        method=method, path=path, handler=handler, access=access, summary=name.capitalize(), tag="demo",
        answers=(answer,), **more,  # type: ignore[arg-type]  # rows of a test
    )  # fmt: skip


def _ok(body: object, status: int = 200, content_type: str = "application/json") -> Answer:
    return Answer(status=status, body=body, description="Done", content_type=content_type)


OPERATIONS: tuple[Operation, ...] = (
    _row("GET", "/health", health, Access.PUBLIC, _ok(Echo)),
    _row("GET", "/things", find, Scope.READ, _ok(Seen), query=Filter),
    _row("GET", "/loose", loose, Scope.READ, _ok(Echo), query=Loose),
    _row("POST", "/things", make, Scope.WRITE, _ok(Made, 201), body=Thing),
    _row(
        "POST",
        "/strict",
        make_strictly,
        Scope.WRITE,
        _ok(Echo, 202),
        body=StrictThing,
        body_optional=True,
        by_attempt=ByAttempt.LIVE,
    ),
    _row("GET", "/things/{thing}", show, Scope.READ, _ok(Echo), errors={"thing_not_found": 404, "teapot": 418}),
    _row("DELETE", "/things/{thing}", remove, Scope.MANAGE, _ok(None, 204)),
    _row("GET", "/things/{thing}/parts/{part}", show_part, Scope.READ, _ok(Echo)),
    _row("GET", "/things/{thing}/notes/{note...}", show_note, Scope.READ, _ok(Echo)),
    _row("GET", "/things/{thing}/notes", show, Scope.READ, _ok(Echo)),
    _row("PUT", "/things/{thing}/log", upload, Scope.WRITE, _ok(Echo), body=bytes, body_limit_bytes=64),
    _row("GET", "/text", text, Scope.READ, _ok(str, 200, "text/plain")),
    _row("POST", "/broken", broken, Scope.WRITE, _ok(Echo)),
    _row("POST", "/unavailable", unavailable, Scope.WRITE, _ok(Echo), errors={"store_unavailable": 503}),
    _row("POST", "/wait", wait, Scope.WRITE, _ok(Echo)),
    _row("POST", "/until-gone", until_gone, Scope.WRITE, _ok(Echo), streaming=True),
    _row("POST", "/work", work, Access.WORKER, _ok(Echo), metered=False),
    _row("POST", "/secret", make, Scope.WRITE, _ok(Made, 201), body=Thing, secret_answer=True),
    _row("GET", "/events", events, Scope.READ, _ok(bytes, 200, "text/event-stream"), streaming=True),
)


async def grant_is_live(grant: WorkerGrant) -> bool:
    return grant.epoch == 2


def demo_table(state: DemoState, policies: Policies | None = None) -> OperationTable:
    surface = Surface(operations=OPERATIONS, state=state, authenticate=authenticate, grant_is_live=grant_is_live)
    return OperationTable([surface], policies or Policies())


def as_(who: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {who}", **{name.replace("_", "-"): value for name, value in more.items()}}
