"""What the port ``Events`` promises, on every server."""

import json
from datetime import timedelta

import pytest

from borough.adapters.valkey.functions import library_source
from borough.core.clock import utc_now
from borough.core.errors import Invalid
from tests.contracts.conftest import Town
from tests.contracts.kit import everything, hire, queue

pytestmark = pytest.mark.anyio


async def test_an_appended_event_comes_back(town: Town) -> None:
    subjects = {"by": "someone", "reason": 'wrong "key"\n🦀'}
    event_id = await town.events.append("login_failed", "a login failed", subjects)
    (event,) = await town.events.after("", limit=10)
    assert (event.id, event.type, event.message, dict(event.subjects)) == (
        event_id,
        "login_failed",
        "a login failed",
        subjects,
    )
    assert abs(event.at - utc_now()) < timedelta(seconds=10)


async def test_a_repeated_append_writes_once(town: Town) -> None:
    first = await town.link.call("town_append_event", "nonce", "login_failed", "text", "{}")
    assert await town.link.call("town_append_event", "nonce", "login_failed", "text", "{}") == first
    assert len(await town.events.newest(limit=10)) == 1


async def test_readers_resume_where_they_were(town: Town) -> None:
    ids = [await town.events.append("note", str(number), {}) for number in range(7)]
    assert await town.events.bounds() == (ids[0], ids[-1])
    seen, position = [], ""
    while part := await town.events.after(position, limit=3):
        seen += [event.id for event in part]
        position = part[-1].id
    assert seen == ids
    assert [event.id for event in await town.events.newest(limit=2)] == ids[-2:]


async def test_an_empty_town_has_no_events(town: Town) -> None:
    assert await town.events.bounds() is None
    assert await town.events.after("", limit=5) == ()
    assert await town.events.newest(limit=5) == ()


@pytest.mark.parametrize("event_id", ["abc", "1-2-3", "-1", "99999999999999999999", "1 2"])
async def test_what_is_no_event_id_is_refused(town: Town, event_id: str) -> None:
    with pytest.raises(Invalid) as refusal:
        await town.events.after(event_id, limit=5)
    assert refusal.value.code == "invalid_event_id"


async def test_an_agent_has_a_stream_of_its_own(town: Town) -> None:
    ada = await hire(town, "ada")
    await hire(town, "bob")
    await queue(town)
    task = await ada.must_take()
    own = await town.events.newest(limit=10, agent="ada")
    assert [event.type for event in own] == [
        "agent_spawned",
        "agent_state_changed",
        "task_leased",
    ]
    assert own[2].subjects["task_id"] == task.id
    assert {event.subjects["agent_id"] for event in own} == {ada.id}


async def test_an_agents_stream_is_bounded(town: Town) -> None:
    await hire(town, "ada")
    for _ in range(200):
        await town.agents.pause("ada")
        await town.agents.resume("ada")
    assert 100 <= len(await town.events.newest(limit=1000, agent="ada")) <= 200


async def test_the_stored_event_is_the_references(town: Town) -> None:
    await queue(town, "x" * 150 + "é" * 100)
    ((_, fields),) = await town.client.xrange(f"{town.prefix}events")
    assert set(fields) == {b"event_type", b"data"}
    data = json.loads(fields[b"data"])
    assert {"event_type", "message", "timestamp", "task_id", "new_state"} <= set(data)
    assert data["timestamp"].endswith("Z")
    assert data["message"].endswith("é…")
    assert len(data["message"].split(": ")[1].rstrip("…")) <= 200


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_399_999, "2000-02-28T23:59:59.999Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (1_709_251_199_001, "2024-02-29T23:59:59.001Z"),
        (1_735_689_599_999, "2024-12-31T23:59:59.999Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
    ],
)
async def test_timestamps_follow_the_calendar(town: Town, milliseconds: int, expected: str) -> None:
    source = library_source()
    begin, end = source.index("local function rfc3339"), source.index("local function remember")
    script = source[begin:end] + "\nreturn rfc3339(tonumber(ARGV[1]))"
    assert (await town.client.eval(script, 0, milliseconds)).decode() == expected
    assert await everything(town) == {}
