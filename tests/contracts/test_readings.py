"""What the port ``Readings`` promises, on every server."""

import json
from datetime import UTC, datetime

import pytest
import valkey.asyncio

from borough.adapters.valkey.town.readings import ValkeyReadings
from borough.core.errors import Unavailable
from borough.town.tasks import TaskState
from tests.contracts.conftest import PlainLink, Town
from tests.contracts.kit import AT_ONCE, LATER, add_agent, assign, hire, new_message, queue

pytestmark = pytest.mark.anyio


async def test_a_snapshot_counts_work_where_it_is(town: Town) -> None:
    ada = await hire(town, "ada")
    await add_agent(town, "new")
    for role in (None, "docs"):
        for urgent in (False, True):
            await queue(town, role=role, urgent=urgent)
    await assign(town, "ada", urgent=True)
    await assign(town, "new")
    await town.mailbox.send(new_message(urgent=True), to="new", task=None)
    await town.mailbox.send(new_message(urgent=True), to="supervisor", task=None)
    before = await town.readings.snapshot()
    assert (before.backlog, before.assigned, before.urgent, before.in_flight) == (4, 2, 2, 0)
    task = await ada.must_take()
    during = await town.readings.snapshot()
    assert (during.backlog, during.assigned, during.urgent, during.in_flight) == (4, 1, 1, 1)
    await town.tasks.fail(task.id, epoch=1, reason="x", retry=LATER, final=False, by="ada")
    after = await town.readings.snapshot()
    assert (after.in_flight, after.delayed, after.dead_letters, after.completed_total) == (0, 1, 0, 0)
    assert after.at >= before.at
    assert [agent.state for agent in after.agents] == ["idle", "starting"]
    assert [agent.lease_expires_at is None for agent in after.agents] == [False, True]


async def test_counts_name_every_state(town: Town) -> None:
    await hire(town, "ada")
    tasks = [await queue(town) for _ in range(4)]
    await assign(town, "ada")
    await town.tasks.complete(tasks[0].id, epoch=None, result="", by="me")
    await town.tasks.cancel(tasks[1].id, reason="", by="me")
    await town.tasks.fail(tasks[2].id, epoch=None, reason="", retry=AT_ONCE, final=True, by="me")
    assert await town.readings.counts() == {
        TaskState.PENDING: 1,
        TaskState.ASSIGNED: 1,
        TaskState.RUNNING: 0,
        TaskState.DELAYED: 0,
        TaskState.COMPLETED: 1,
        TaskState.FAILED: 1,
        TaskState.CANCELLED: 1,
    }


async def test_what_waits_is_told_by_role(town: Town) -> None:
    assert await town.readings.waiting() == {None: 0}
    ada = await hire(town, "ada", role_id="docs")
    for role in (None, "docs", "code"):
        for urgent in (False, True):
            await queue(town, role=role, urgent=urgent)
    await assign(town, "ada")
    assert await town.readings.waiting() == {None: 2, "docs": 2, "code": 2}
    await ada.must_take()
    assert await town.readings.waiting() == {None: 1, "docs": 2, "code": 2}


async def test_the_same_snapshot_is_in_the_streams(town: Town) -> None:
    """An outside scaler that reads ``docket:tasks`` sees what we say: unread, and in flight by XPENDING."""
    ada = await hire(town, "ada")
    for _ in range(3):
        await queue(town)
    cancelled = await queue(town)
    await town.tasks.cancel(cancelled.id, reason="", by="me")
    await ada.must_take()
    stream = f"{town.prefix}docket:tasks"
    in_flight = (await town.client.xpending(stream, "workers"))["pending"]
    unread = await town.client.xlen(stream) - in_flight
    snapshot = await town.readings.snapshot()
    assert (snapshot.backlog, snapshot.in_flight) == (unread, in_flight) == (2, 1)


async def test_missions_are_read_where_others_write_them(town: Town) -> None:
    tick = "2026-04-04T18:00:00.123456789Z"
    records = {
        "m1": json.dumps({"state": "running", "dispatcher_last_tick_at": tick}),
        "m2": json.dumps({"state": "completed", "dispatcher_last_tick_at": "2030-01-01T00:00:00Z"}),
        "m3": json.dumps({"state": "blocked", "dispatcher_last_tick_at": None}),
        "m4": "not json",
        "m5": json.dumps({"state": "running", "dispatcher_last_tick_at": "soon"}),
        "m6": "[1]",
    }
    empty = await town.readings.snapshot()
    assert (empty.missions_active, empty.mission_open, empty.mission_last_tick) == (0, False, None)
    for mission_id, record in records.items():
        await town.client.set(f"{town.prefix}mission:{mission_id}", record)
        await town.client.sadd(f"{town.prefix}mission:active", mission_id)
    await town.client.sadd(f"{town.prefix}mission:active", "gone")
    snapshot = await town.readings.snapshot()
    assert (snapshot.missions_active, snapshot.mission_open) == (7, True)
    assert snapshot.mission_last_tick == datetime(2026, 4, 4, 18, 0, 0, 123456, tzinfo=UTC)


async def test_the_cost_of_a_snapshot_does_not_grow_with_finished_tasks(town: Town) -> None:
    await hire(town, "ada")
    await queue(town, role="docs")

    async def commands() -> int:
        before = (await town.client.info("stats"))["total_commands_processed"]
        await town.readings.snapshot()
        return (await town.client.info("stats"))["total_commands_processed"] - before

    few = await commands()
    assert few > 10, "the server counts the commands inside functions"
    for _ in range(100):
        task = await queue(town, role="docs")
        await town.tasks.complete(task.id, epoch=None, result="", by="me")
    assert await commands() == few


async def test_the_round_trip_is_measured(town: Town) -> None:
    assert 0 < await town.readings.ping() < 5


async def test_durability_is_what_the_server_is_set_to(town: Town) -> None:
    assert await town.readings.durability() == "always"


async def test_a_store_that_does_not_answer_is_unavailable(tmp_path) -> None:
    client = valkey.asyncio.Valkey(unix_socket_path=str(tmp_path / "nobody"))

    async def durability() -> str:
        return "none"

    with pytest.raises(Unavailable) as refusal:
        await ValkeyReadings(PlainLink(client, "tt:x:"), durability=durability).ping()
    assert refusal.value.code == "store_unavailable"
    assert refusal.value.resolution
    await client.aclose()
