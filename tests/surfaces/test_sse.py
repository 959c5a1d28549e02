"""Server-sent events: encoding, endings, and that nothing is left behind."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from borough.core.errors import Invalid
from borough.http.sse import EventStream, encode_comment, encode_event, last_event_id
from borough.http.surfaces import Policies
from tests.surfaces.asgi import ask
from tests.surfaces.demo import DemoState, as_, demo_table

FIRST = b'id: 1-0\nevent: tick\ndata: {"n": 1}\n\n'


def test_events_are_encoded_line_by_line() -> None:
    assert encode_event('{"n": 1}', event_id="1-0", event="tick") == FIRST
    assert encode_event("a\nb\r\nc\rd") == b"data: a\ndata: b\ndata: c\ndata: d\n\n"
    assert encode_event(b"", event_id="1\n2", event="x\ry") == b"id: 1 2\nevent: x y\ndata: \n\n"
    assert encode_comment("gap\nhere") == b": gap here\n\n"


def test_the_last_id_is_read_from_its_header() -> None:
    assert last_event_id({}) is None
    assert last_event_id({"last-event-id": " "}) is None
    assert last_event_id({"last-event-id": "1700000000000-3"}) == "1700000000000-3"
    for bad in ("é", "a" * 129, "a\0b"):
        with pytest.raises(Invalid) as caught:
            last_event_id({"last-event-id": bad})
        assert caught.value.code == "invalid_last_event_id"


@pytest.mark.anyio
async def test_a_stream_that_ends_by_itself_is_complete() -> None:
    state = DemoState()
    state.released.set()
    got = await ask(demo_table(state), "GET", "/events", headers=as_("reader"))
    assert got.status == 200
    assert got.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "content-length" not in got.headers
    assert got.body == b": \n\n" + FIRST + b"id: 2-0\ndata: two\ndata: lines\n\n"


@pytest.mark.anyio
@pytest.mark.parametrize("end", ["client", "server"])
async def test_a_stream_ends_with_its_client_and_with_its_server(end: str) -> None:
    state, left, stopping = DemoState(), asyncio.Event(), asyncio.Event()
    before = asyncio.all_tasks()
    table = demo_table(state, Policies(stopping=stopping, timeout_s=0.001))
    asking = asyncio.ensure_future(ask(table, "GET", "/events", headers=as_("reader"), leaves_after=left))
    await state.entered.wait()
    (left if end == "client" else stopping).set()
    got = await asyncio.wait_for(asking, 60)
    assert got.body == b": \n\n" + FIRST
    assert state.closed.is_set()
    assert asyncio.all_tasks() == before


@pytest.mark.anyio
async def test_comments_keep_a_silent_stream_alive() -> None:
    beats, enough = 0, asyncio.Event()

    async def silent() -> AsyncIterator[bytes]:
        await enough.wait()
        yield encode_event("done")

    async def send(message: Any) -> None:
        nonlocal beats
        beats += message.get("body") == b": \n\n"
        if beats > 2:
            enough.set()

    stream = EventStream(silent(), ends=asyncio.Event().wait, keep_alive_s=0.001)  # type: ignore[arg-type]  # never
    await asyncio.wait_for(stream({"type": "http"}, _nothing, send), 60)
    assert beats > 2


@pytest.mark.anyio
async def test_a_source_that_fails_is_heard_and_leaves_the_answer_unfinished() -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield encode_event("one")
        raise RuntimeError("the source broke")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    before = asyncio.all_tasks()
    with pytest.raises(RuntimeError, match="the source broke"):
        await EventStream(failing(), ends=asyncio.Event().wait)({"type": "http"}, _nothing, send)  # type: ignore[arg-type]  # never
    assert sent[-1]["more_body"] is True
    assert asyncio.all_tasks() == before


@pytest.mark.anyio
async def test_cancelling_a_stream_closes_its_source() -> None:
    state = DemoState()
    before = asyncio.all_tasks()
    asking = asyncio.ensure_future(ask(demo_table(state), "GET", "/events", headers=as_("reader")))
    await state.entered.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert state.closed.is_set()
    assert asyncio.all_tasks() == before


async def _nothing() -> Any:
    await asyncio.Event().wait()
