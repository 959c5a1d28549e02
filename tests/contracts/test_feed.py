"""The event feed: who is told, in which order, and what survives a lost connection."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from borough.adapters.valkey.batches import Bounds
from borough.adapters.valkey.client import Client, connect
from borough.adapters.valkey.feed import WORK_EVENTS, Feed, decode_event
from borough.core.events import Event
from borough.core.ids import AgentId
from tests.conftest import eventually
from tests.contracts.servers import LIBRARY, Server, binary_named, running_cluster, running_server

pytestmark = pytest.mark.anyio

NEVER_S = 3600.0
"""A tick that does not come within a test."""
ADA = AgentId("11111111-1111-4111-8111-111111111111")
BOB = AgentId("22222222-2222-4222-8222-222222222222")


@pytest.fixture(scope="module", params=["valkey", "redis", "cluster"])
def server(request: pytest.FixtureRequest):
    if request.param == "cluster":
        with running_cluster() as running:
            yield running
    else:
        with running_server(binary=binary_named(request.param)) as running:
            yield running


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    connected = await connect(server.url, town="acme", library=LIBRARY)
    await connected.command("DEL", f"{connected.prefix}events")
    yield connected
    await connected.close()


@pytest.fixture
async def feed(client: Client) -> AsyncIterator[Feed]:
    started = Feed(client, tick_s=NEVER_S)
    await started.start()
    yield started
    await started.close()


async def emit(client: Client, event_type: str, **data: object) -> str:
    event_id: bytes = await client.call("p_event", event_type, json.dumps({"message": event_type, **data}))
    return event_id.decode()


async def take(events: AsyncIterator[Event], count: int) -> list[Event]:
    async with asyncio.timeout(60):
        return [await anext(events) for _ in range(count)]


async def rung_of(waits: list["asyncio.Task[bool]"], count: int) -> list[int]:
    """Wait until ``count`` of ``waits`` were rung; return which."""
    await eventually(lambda: _holds(sum(wait.done() for wait in waits) >= count))
    return [number for number, wait in enumerate(waits) if wait.done() and wait.result()]


async def settle(feed: Feed, client: Client) -> None:
    """Return when everything emitted so far has been handed on: a marker comes through last."""
    async with feed.subscribe() as events:
        marker = await emit(client, "marker")
        async with asyncio.timeout(60):
            async for event in events:
                if event.id == marker:
                    break
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_subscribers_get_every_event_from_now_on_in_order(feed: Feed, client: Client) -> None:
    await emit(client, "before")
    await settle(feed, client)
    async with feed.subscribe() as one, feed.subscribe() as two:
        ids = [await emit(client, "note", agent_id=ADA, number=number) for number in range(20)]
        for events in (one, two):
            got = await take(events, 20)
            assert [event.id for event in got] == ids
            assert got[3].subjects == {"agent_id": ADA, "number": "3"}
            assert got[3].message == "note"


async def test_a_slow_subscriber_is_cut_off_and_the_others_go_on(feed: Feed, client: Client) -> None:
    async with feed.subscribe(capacity=5) as slow, feed.subscribe() as quick:
        ids = [await emit(client, "note") for _ in range(10)]
        assert [event.id for event in await take(quick, 10)] == ids
        assert [event.id async for event in slow] == ids[:5]
        again = await emit(client, "note")
        assert (await take(quick, 1))[0].id == again


async def test_as_many_are_woken_as_there_is_work_the_longest_waiting_first(feed: Feed, client: Client) -> None:
    async with AsyncExitStack() as line:
        bells = [await line.enter_async_context(feed.work_arrives(timeout_s=30)) for _ in range(5)]
        waits = [asyncio.create_task(bell.wait(30)) for bell in bells]
        await asyncio.gather(*(emit(client, "task_queued") for _ in range(2)))
        assert await rung_of(waits, 2) == [0, 1]
        await emit(client, "task_completed")
        await emit(client, "anything", work=True)
        assert await rung_of(waits, 3) == [0, 1, 2]
        await settle(feed, client)
        assert [wait.done() for wait in waits] == [True, True, True, False, False]
        for wait in waits:
            wait.cancel()


@pytest.mark.parametrize("event_type", sorted(WORK_EVENTS))
async def test_each_kind_of_new_work_rings(feed: Feed, client: Client, event_type: str) -> None:
    async with feed.work_arrives(timeout_s=30) as bell:
        await emit(client, event_type)
        assert await bell.wait(10)


async def test_a_ring_before_the_wait_is_not_missed(feed: Feed, client: Client) -> None:
    async with feed.work_arrives(timeout_s=30) as bell:
        await emit(client, "task_queued")
        await settle(feed, client)
        assert await bell.wait(0.001)
        assert not await bell.wait(0.001)
        await emit(client, "task_queued")
        assert await bell.wait(10)


async def test_who_leaves_without_looking_passes_its_ring_on(feed: Feed, client: Client) -> None:
    async with AsyncExitStack() as first:
        await first.enter_async_context(feed.work_arrives(timeout_s=30))
        async with feed.work_arrives(timeout_s=30) as second:
            await emit(client, "task_queued")
            await settle(feed, client)
            assert not await second.wait(0.001)
            await first.aclose()
            assert await second.wait(0.001)


async def test_a_cancelled_waiter_does_not_swallow_work(feed: Feed, client: Client) -> None:
    async def stand_and_wait() -> None:
        async with feed.work_arrives(timeout_s=30) as bell:
            await bell.wait(30)

    first = asyncio.create_task(stand_and_wait())
    await asyncio.sleep(0)
    async with feed.work_arrives(timeout_s=30) as second:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await emit(client, "task_queued")
        assert await second.wait(10)


async def test_a_ring_is_passed_on_to_those_who_stood_there_and_then_ends(feed: Feed, client: Client) -> None:
    """Nobody can take the work: each is asked once, then it is quiet."""
    rings = [0, 0, 0]

    async def unable(number: int) -> None:
        async with feed.work_arrives(timeout_s=30) as bell:
            while await bell.wait(30):
                rings[number] += 1
                bell.pass_on()
                bell.pass_on()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(unable(number)) for number in range(3)]
        await asyncio.sleep(0)
        await emit(client, "task_queued")
        await eventually(lambda: _holds(rings == [1, 1, 1]))
        for _ in range(20):
            await asyncio.sleep(0)
        assert rings == [1, 1, 1]
        for task in tasks:
            task.cancel()


async def test_the_tick_rings_all_who_stand_in_line(client: Client) -> None:
    feed = Feed(client, tick_s=0.05)
    await feed.start()
    async with feed.work_arrives(timeout_s=30) as one, feed.work_arrives(timeout_s=30) as two:
        assert await asyncio.gather(one.wait(10), two.wait(10)) == [True, True]
        assert await one.wait(10)
    await feed.close()


async def test_the_tick_comes_although_events_never_stop(client: Client) -> None:
    feed = Feed(client, tick_s=0.05)
    await feed.start()

    async def chatter() -> None:
        while True:
            await emit(client, "note")

    noise = asyncio.create_task(chatter())
    async with feed.work_arrives(timeout_s=30) as bell:
        assert await bell.wait(10)
        assert await bell.wait(10)
    noise.cancel()
    await asyncio.gather(noise, return_exceptions=True)
    await feed.close()


async def test_a_wait_ends_with_its_own_time_or_that_of_the_place_in_line(feed: Feed) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with feed.work_arrives(timeout_s=0.05) as bell:
        assert not await bell.wait(30)
    async with feed.work_arrives(timeout_s=30) as bell:
        assert not await bell.wait(0.05)
    assert loop.time() - began < 5


async def test_an_agent_is_woken_by_its_own_events_only(feed: Feed, client: Client) -> None:
    async with feed.agent_changes(ADA) as ada, feed.agent_changes(ADA) as twin, feed.agent_changes(BOB) as bob:
        await emit(client, "agent_paused", agent_id=ADA)
        assert await asyncio.gather(ada.wait(10), twin.wait(10)) == [True, True]
        assert not await bob.wait(0.001)
        await emit(client, "task_assigned", agent_id=BOB)
        assert await bob.wait(10)
        assert not await ada.wait(0.001)
    assert feed._agent_bells == {}


async def test_an_entry_that_is_no_event_stops_nobody(feed: Feed, client: Client) -> None:
    async with feed.subscribe() as events:
        await client.command("XADD", f"{client.prefix}events", "*", "foo", "bar")
        await client.command("XADD", f"{client.prefix}events", "*", "event_type", "x", "data", "[1]")
        good = await emit(client, "note")
        assert (await take(events, 1))[0].id == good


@pytest.mark.parametrize("kind", ["valkey", "redis", "cluster"])
async def test_no_event_is_lost_or_told_twice_when_the_server_is_killed(kind: str) -> None:
    running = running_cluster() if kind == "cluster" else running_server(binary=binary_named(kind))
    with running as mortal:
        client = await connect(mortal.url, town="acme", library=LIBRARY, bounds=Bounds(retry_s=20))
        feed = Feed(client)
        await feed.start()
        done = asyncio.Event()
        emitted = 0

        async def emitter(number: int) -> None:
            nonlocal emitted
            while not done.is_set():
                await client.call("p_add", f"{number}-{emitted}")
                emitted += 1

        async with feed.subscribe(capacity=100_000) as events, feed.agent_changes(ADA) as bell:
            async with asyncio.TaskGroup() as group:
                for number in range(4):
                    group.create_task(emitter(number))
                for _ in range(2):
                    goal = emitted + 100
                    await eventually(lambda goal=goal: _holds(emitted >= goal))
                    await asyncio.to_thread(mortal.kill)
                    await asyncio.to_thread(mortal.start)
                goal = emitted + 100
                await eventually(lambda: _holds(emitted >= goal))
                done.set()
            assert await bell.wait(10), "after a loss everybody looks for themselves"
            stored = await client.command("XRANGE", f"{client.prefix}events", "-", "+")
            expected = [entry[0].decode() for entry in stored]
            assert [event.id for event in await take(events, len(expected))] == expected
        await feed.close()
        await client.close()


async def test_subscribers_are_cut_off_when_events_may_be_missing() -> None:
    with running_server() as mortal:
        client = await connect(mortal.url, town="acme", library=LIBRARY)
        feed = Feed(client)
        await feed.start()
        async with feed.subscribe() as events:
            first = await emit(client, "note")
            assert (await take(events, 1))[0].id == first
            await client.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await client.command("DEL", "tt:acme:events")
            await emit(client, "note")
            async with asyncio.timeout(60):
                left = [event async for event in events]
            assert len(left) <= 1
        await feed.close()
        await client.close()


async def test_closing_ends_subscriptions(feed: Feed) -> None:
    async with feed.subscribe() as events:
        await feed.close()
        assert [event async for event in events] == []


@pytest.mark.parametrize(
    "fields",
    [{}, {b"event_type": b"x", b"data": b"["}, {b"event_type": b"x", b"data": b'{"timestamp": "yesterday"}'}],
)
def test_what_is_no_event_is_refused(fields: dict[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode_event("1-0", fields)


def test_an_event_is_read_whole() -> None:
    data = {
        "message": "m",
        "timestamp": "2026-11-22T01:02:03.004+01:00",
        "task_id": "t",
        "attempt": 2,
        "reason": None,
        "tags": ["a"],
    }
    event, is_work = decode_event("5-1", {b"event_type": b"task_started", b"data": json.dumps(data).encode()})
    assert event.at.isoformat() == "2026-11-22T00:02:03.004000+00:00"
    assert event.subjects == {"task_id": "t", "attempt": "2", "tags": '["a"]'}
    assert (event.id, event.type, event.message, is_work) == ("5-1", "task_started", "m", False)
    undated, _ = decode_event("1000-0", {b"event_type": b"x"})
    assert undated.at.timestamp() == 1


async def _holds(value: object) -> bool:
    return bool(value)
