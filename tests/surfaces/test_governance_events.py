"""`/events` on the wire: as the reference page has it, and what it lacks."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from borough.core.clock import utc_now
from borough.governance.actions import Action
from borough.governance.tokens import Role
from borough.http.governance import events as events_module
from tests.conftest import eventually
from tests.services.records_house import as_agent, operator
from tests.surfaces.records_app import App, Stream, open_app

pytestmark = pytest.mark.anyio


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    async with open_app(tmp_path) as app:
        yield app


async def happens(app: App, *details: str) -> None:
    for detail in details:
        await app.records.recorder.event(operator(), Action.DAEMON_START, detail=detail)


async def test_each_event_is_one_data_line_with_an_entry(app: App) -> None:
    async with app.stream() as stream:
        assert stream.status == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["cache-control"] == "no-cache"
        assert stream.headers["x-accel-buffering"] == "no"
        await happens(app, "one\nline", "two")
        await stream.has(2)
        for event in stream.events:
            assert set(event) == {"id", "data"}, "a named event would pass readers by"
        assert [entry["detail"] for entry in stream.entries] == ["one\nline", "two"]
        assert {"id", "agent_id", "action", "timestamp", "prev_hash", "hash"} <= set(stream.entries[0])
        entry = await app.records.ledger.get(0)
        assert stream.events[0]["data"].encode() == entry.canonical
        assert stream.ids == [0, 1]


@pytest.mark.parametrize("how", ["header", "query", "both"])
async def test_a_stream_resumes_after_the_last_event(app: App, how: str) -> None:
    await happens(app, *map(str, range(6)))
    headers = {} if how == "query" else {"last-event-id": "2"}
    target = {"header": "/events", "query": "/events?_cursor=2", "both": "/events?_cursor=5"}[how]
    async with app.stream(target, headers=headers) as stream:
        await happens(app, "6")
        await stream.has(4)
        assert stream.ids == [3, 4, 5, 6]


@pytest.mark.parametrize("target", ["/events?_cursor=abc", "/events?_cursor=", "/events?_cursor=-1", "/events?other=1"])
async def test_what_the_page_reserves_is_passed_over_where_it_is_not_ours(app: App, target: str) -> None:
    await happens(app, "before")
    async with app.stream(target) as stream:
        assert stream.status == 200
        await happens(app, "after")
        await stream.has(1)
        assert stream.ids == [1]


async def test_a_gap_is_a_comment_and_an_event_only_for_those_who_resume_by_the_header(app: App) -> None:
    await happens(app, *map(str, range(5)))
    await app.records.ledger.retain(before=utc_now() + timedelta(seconds=1), limit=3)
    async with app.stream(headers={"last-event-id": "0"}) as stream:
        await stream.has(3)
        assert stream.events[0] == {"event": "gap", "data": '{"missed_after":0,"resumes_at":3}'}
        assert any(block.get("comment", "").startswith("gap: entries after 0 and before 3") for block in stream.blocks)
        assert stream.ids == [3, 4]
    async with app.stream("/events?_cursor=0") as plain:
        await plain.has(2)
        assert [set(event) for event in plain.events] == [{"id", "data"}] * 2
        assert any(block.get("comment", "").startswith("gap: ") for block in plain.blocks)


async def test_filters_choose(app: App) -> None:
    agent = await app.records.agent()
    target = f"/events?agent={agent.id}&action=tool_invoked&outcome=success"
    async with app.stream(target) as stream:
        await app.records.recorder.event(as_agent(agent), Action.MCP_ATTACH)
        await app.records.recorder.event(operator(), Action.TOOL_INVOKE)
        await app.records.recorder.event(as_agent(agent), Action.TOOL_INVOKE, detail="this")
        await stream.has(1)
        assert [entry["detail"] for entry in stream.entries] == ["this"]


async def test_revoking_the_key_ends_the_stream(app: App) -> None:
    agent = await app.records.agent()
    token, other = await app.records.key(agent), await app.records.key(agent, "other")
    async with app.stream(token=token) as stream, app.stream(token=other) as going_on:
        await happens(app, "a")
        await stream.has(1)
        assert (await app.ask("DELETE", "/tokens/ci")).status == 204
        await stream.over()
        assert stream.ended
        await happens(app, "b")
        await going_on.has(4)  # the revocation is an intent and an outcome


async def test_a_client_that_does_not_read_is_cut_off_and_the_others_go_on(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "UNREAD_FOR_S", 0.2)
    async with app.stream() as stuck, app.stream() as reader:
        stuck.reading.clear()
        await happens(app, *map(str, range(20)))
        await reader.has(20)
        assert reader.ids == list(range(20))
        await stuck.over()
        assert not stuck.ended, "the answer was left unfinished, so that the server closes the connection"
        await happens(app, "more")
        await reader.has(21)


async def test_a_stream_ends_with_its_client_and_with_the_server(app: App) -> None:
    async with app.stream() as stream:
        await happens(app, "a")
        await stream.has(1)
    assert stream.task.done()
    async with app.stream() as second:
        app.stopping.set()
        await second.over()
        assert second.ended


async def test_an_agents_key_sees_its_own_and_what_descends(app: App) -> None:
    agent, other = await app.records.agent(name="mine"), await app.records.agent(name="other")
    token = await app.records.key(agent, role=Role.AGENT)
    async with app.stream(token=token) as stream:
        await app.records.recorder.event(as_agent(other), Action.TOOL_INVOKE)
        await app.records.recorder.event(as_agent(agent), Action.TOOL_INVOKE)
        await stream.has(1)
        assert [entry["agent_id"] for entry in stream.entries] == [agent.id]


async def test_a_ticket_opens_one_stream_without_a_header(app: App) -> None:
    agent = await app.records.agent()
    made = await app.ask("POST", "/stream-tickets", token=await app.records.key(agent))
    assert (made.status, made.json()["expires_in_secs"]) == (201, 60)
    word = made.json()["ticket"]
    async with app.stream(f"/events?ticket={word}", token=None) as stream:
        assert stream.status == 200
        await happens(app, "a")
        await stream.has(1)
    async with app.stream(f"/events?ticket={word}", token=None) as second:
        assert second.status == 401
    async with app.stream(token=None) as nobody:
        assert nobody.status == 401
    assert (await app.ask("GET", f"/audit?ticket={word}", token="x")).status == 401


async def test_a_strange_last_event_id_is_refused_before_the_stream_begins(app: App) -> None:
    async with app.stream(headers={"last-event-id": "abc"}) as stream:
        assert stream.status == 400


async def test_many_streams_cost_one_encoding_each_entry(app: App) -> None:
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(app.stream()) for _ in range(50)]

        async def all_listen() -> bool:
            return app.records.events._fanout.listening == len(streams)

        await eventually(all_listen)
        # The first ones may still come from the ledger, which each stream reads for itself.
        for told in range(1, 20):
            if await encoded(app, streams, told) == 1:
                break
        for more in range(told + 1, told + 11):
            assert await encoded(app, streams, more) == 1
        for stream in streams:
            assert stream.ids == sorted(set(stream.ids))


async def encoded(app: App, streams: list[Stream], count: int) -> int:
    """Return how often the next entry is encoded until every stream has so many."""
    before = events_module._event.cache_info().misses
    await happens(app, "x")
    for stream in streams:
        await stream.has(count)
    return events_module._event.cache_info().misses - before
