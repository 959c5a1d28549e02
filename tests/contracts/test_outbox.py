"""The town's events on their way into the ledger: in order, once each, and what is told where they do not get there."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance import tables
from borough.adapters.sql.governance.intake import SqlIntake
from borough.adapters.sql.ledger import SqlLedger
from borough.controllers import outbox
from borough.controllers.outbox import MOST_BEHIND_S, Outbox
from borough.controllers.outgoing import town_origin
from borough.core.errors import Unavailable
from borough.governance.ledger import Via
from borough.governance.ports.ledger import EntryFilter
from borough.governance.services.intake import IntakeService
from borough.governance.services.scrubbing import Scrubber
from borough.governance.tokens import token_sha256
from borough.town.ports.events import Events
from tests.contracts.conftest import Town

pytestmark = pytest.mark.anyio
TOKEN = "5e" * 32


class Clock:
    """A clock that stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """A ledger, and the outbox of a town that leads there."""

    def __init__(self, folder: Path, events: Events) -> None:
        self.file = folder / "ledger.db"
        self.events = events
        self.clock = Clock()

    async def open(self) -> None:
        self.database = await Database.open(self.file, tables.MIGRATIONS)
        self.ledger = await SqlLedger.open(self.database)
        self.begin()

    def begin(self) -> None:
        """Begin as after a start of the server."""
        scrubber = Scrubber(lambda digest: digest == token_sha256(TOKEN))
        intake = IntakeService(SqlIntake(self.database, self.ledger), scrubber, via=Via.TOWN)
        self.outbox = Outbox(self.events, intake, origin=town_origin("acme"), monotonic=self.clock)

    async def close(self) -> None:
        await self.ledger.close()
        await self.database.close()

    async def entries(self) -> list[dict[str, Any]]:
        found = await self.ledger.newest(EntryFilter(), limit=10_000)
        return [msgspec.json.decode(entry.canonical) for entry in found]


@pytest.fixture
async def desk(town: Town, tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path, town.events)
    await made.open()
    yield made
    await made.close()


async def test_events_come_in_order_and_once(desk: Desk) -> None:
    ids = [await desk.events.append("note", f"note {number}", {"by": "ada"}) for number in range(1200)]
    await desk.outbox.act()
    await desk.outbox.act()
    ids.append(await desk.events.append("task_failed", "failed: paint", {"task_id": "t", "agent_id": "a"}))
    await desk.outbox.act()
    found = await desk.entries()
    assert [entry["data"]["event_id"] for entry in found] == ids
    assert found[0]["action"] == "town.note"
    assert found[0]["detail"] == "note 0"
    assert found[0]["data"]["by"] == "ada"
    assert (found[-1]["outcome"], found[-1]["agent_id"], found[-1]["via"]) == ("failure", "a", "town")


async def test_a_new_server_goes_on_where_the_last_one_was(desk: Desk) -> None:
    first = await desk.events.append("note", "one", {})
    await desk.outbox.act()
    desk.begin()
    second = await desk.events.append("note", "two", {})
    await desk.outbox.act()
    assert [entry["data"]["event_id"] for entry in await desk.entries()] == [first, second]


async def test_secrets_and_what_is_too_long_do_not_get_into_the_ledger_nor_stop_it(desk: Desk) -> None:
    await desk.events.append("note", f"the token is {TOKEN}", {"reason": TOKEN})
    await desk.events.append("note", "x" * 300_000, {"more": "y" * 300_000})
    await desk.events.append("note", "after", {})
    await desk.outbox.act()
    found = await desk.entries()
    assert [entry["detail"] for entry in found[1:]] == ["it cannot be shown; its source has it", "after"]
    assert found[0]["detail"].startswith("the token is ")
    assert TOKEN not in str(found)


async def test_what_is_no_event_is_told_and_stops_nothing(desk: Desk, town: Town) -> None:
    await town.client.execute_command("XADD", f"{town.prefix}events", "*", "foreign", "entry")
    await desk.events.append("note", "after", {})
    await desk.outbox.act()
    assert [entry["action"] for entry in await desk.entries()] == ["town.unreadable", "town.note"]


async def test_a_town_whose_past_was_dropped_is_told_of(desk: Desk, town: Town) -> None:
    stream = f"{town.prefix}events"
    await desk.events.append("note", "one", {})
    await desk.outbox.act()
    await desk.events.append("note", "lost", {})
    kept = await desk.events.append("note", "kept", {})
    await town.client.execute_command("XTRIM", stream, "MINID", kept)
    desk.begin()
    await desk.outbox.act()
    assert [entry["action"] for entry in await desk.entries()] == ["town.note", "town.events_missing", "town.note"]


async def test_a_town_that_was_begun_anew_is_read_from_its_beginning(desk: Desk, town: Town) -> None:
    stream = f"{town.prefix}events"
    told = _data("far ahead")
    await town.client.execute_command("XADD", stream, "9000000000000-0", "event_type", "note", "data", told)
    await desk.outbox.act()
    await town.client.execute_command("DEL", stream)
    await desk.events.append("note", "begun anew", {})
    desk.begin()
    await desk.outbox.act()
    await desk.outbox.act()
    details = [entry["detail"] for entry in await desk.entries()]
    assert details[0] == "far ahead"
    assert details[-1] == "begun anew"
    assert len(details) == 3


def _data(message: str) -> str:
    event = {"event_type": "note", "message": message, "timestamp": "2026-01-01T00:00:00.000Z"}
    return msgspec.json.encode(event).decode()


# -- nothing new where it cannot be recorded ---------------------------------------------------------------------------


async def test_new_work_is_refused_while_the_ledger_cannot_be_written_and_let_in_when_it_can(desk: Desk) -> None:
    await desk.outbox.act()
    desk.outbox.check()
    await desk.events.append("note", "one", {})
    await desk.close()
    await desk.outbox.act()
    with pytest.raises(Unavailable) as refused:
        desk.outbox.check()
    assert refused.value.code == "ledger_behind"
    await desk.open()
    await desk.outbox.act()
    desk.outbox.check()
    assert [entry["detail"] for entry in await desk.entries()] == ["one"]


async def test_new_work_is_refused_when_nothing_was_moved_for_five_seconds(desk: Desk) -> None:
    desk.clock.now += 60
    desk.outbox.check()  # what was there at the start has its time
    await desk.outbox.act()
    desk.clock.now += MOST_BEHIND_S
    desk.outbox.check()
    desk.clock.now += 0.1
    with pytest.raises(Unavailable):
        desk.outbox.check()
    await desk.outbox.act()
    desk.outbox.check()


# -- what the town keeps -----------------------------------------------------------------------------------------------


async def test_events_are_kept_until_they_were_read(desk: Desk, town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FORGET_EVERY_S", 0.0)
    await desk.events.keep_until_read(keep=True)
    stream = f"{town.prefix}events"
    script = "for i = 1, 101500 do redis.call('XADD', KEYS[1], '*', 'event_type', 'note', 'data', ARGV[1]) end"
    await town.client.execute_command("EVAL", script, 1, stream, _data("many"))
    await desk.events.append("note", "one more", {})
    assert await town.client.execute_command("XLEN", stream) == 101_501
    oldest, newest = await desk.events.bounds() or ("", "")
    assert await desk.events.forget_read(oldest) == 0
    assert await desk.events.forget_read(newest) > 1000
    kept = await town.client.execute_command("XLEN", stream)
    assert 100_000 <= kept < 101_000
    await desk.events.keep_until_read(keep=False)
    await desk.events.append("note", "trimmed by itself", {})
    assert await town.client.execute_command("XLEN", stream) <= kept + 1
