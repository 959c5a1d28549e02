"""The fleet's events on their way into the ledger: in order, once each, with who acted, kept until read."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from borough.adapters.sql.engine import Database
from borough.adapters.sql.fleet import history
from borough.adapters.sql.fleet.outgoing import OutgoingEvents
from borough.adapters.sql.governance import tables
from borough.adapters.sql.governance.intake import SqlIntake
from borough.adapters.sql.ledger import SqlLedger
from borough.bootstrap.fleet import FleetController, open_fleet
from borough.bootstrap.fleet_record import FleetRecord
from borough.controllers import outbox
from borough.controllers.outbox import Outbox
from borough.controllers.outgoing import fleet_origin
from borough.core.acting import acting_as
from borough.core.errors import Unavailable
from borough.fleet.hosts import HostState
from borough.governance.ledger import Via
from borough.governance.ports.ledger import EntryFilter
from borough.governance.services.intake import IntakeService
from borough.governance.services.scrubbing import Scrubber
from tests.conftest import eventually
from tests.contracts.fleet_kit import MOST, NOON, ControllerFile, a_host, a_spec, planned
from tests.services.fleet_house import settings_of_controller

pytestmark = pytest.mark.anyio


class Desk:
    """A ledger, and the outbox of a fleet that leads there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = ControllerFile(folder / "state" / "ctl.db")

    async def open(self) -> None:
        self.database = await Database.open(self.folder / "ledger.db", tables.MIGRATIONS)
        self.ledger = await SqlLedger.open(self.database)
        await self.begin()

    async def begin(self) -> None:
        """Begin as after a start of the server."""
        await self.file.open()
        self.file.fleet.keep_events_until_read()
        intake = IntakeService(SqlIntake(self.database, self.ledger), Scrubber(lambda _digest: False), via=Via.FLEET)
        origin = fleet_origin(await self.file.fleet.store_id())
        self.outbox = Outbox(OutgoingEvents(self.file.fleet), intake, origin=origin)

    async def close(self) -> None:
        await self.file.close()
        await self.ledger.close()
        await self.database.close()

    async def entries(self) -> list[dict[str, Any]]:
        found = await self.ledger.newest(EntryFilter(), limit=10_000)
        return [msgspec.json.decode(entry.canonical) for entry in found]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path)
    await made.open()
    yield made
    await made.close()


async def test_what_happens_is_recorded_once_with_who_asked_for_it(desk: Desk) -> None:
    with acting_as("ada"):
        await desk.file.fleet.add_host(a_host("h1"), most=MOST)
        await planned(desk.file.fleet, "e1", [a_spec()])
    await desk.outbox.act()
    await desk.file.close()
    await desk.begin()
    await desk.file.fleet.set_host_state("h1", HostState.OFFLINE, at=NOON)
    await desk.outbox.act()
    await desk.outbox.act()
    found = await desk.entries()
    assert [entry["action"] for entry in found] == [
        "fleet.host.registered",
        "fleet.vm.planned",
        "fleet.env.created",
        "fleet.operation.started",
        "fleet.host.offline",
    ]
    assert [entry["data"]["by"] for entry in found] == ["ada"] * 4 + ["controller"]
    assert {entry["via"] for entry in found} == {"fleet"}
    assert (found[1]["outcome"], found[-1]["outcome"]) == ("success", "failure")
    assert "h1" in found[1]["detail"]


async def test_a_refused_placement_is_recorded_as_denied(desk: Desk) -> None:
    await desk.file.fleet.append_event("env.refused", "e1 is not made: no host", {"env_id": "e1", "by": "ada"})
    await desk.outbox.act()
    (entry,) = await desk.entries()
    assert (entry["outcome"], entry["data"]["env_id"], entry["data"]["by"]) == ("denied", "e1", "ada")


async def test_a_file_that_was_begun_anew_is_another_fleet_s(desk: Desk) -> None:
    for number in range(3):
        await desk.file.fleet.append_event("note", f"note {number}", {})
    await desk.outbox.act()
    await desk.file.close()
    for file in (desk.folder / "state").glob("ctl.db*"):
        file.unlink()
    await desk.begin()
    await desk.file.fleet.append_event("note", "begun anew", {})
    await desk.outbox.act()
    assert [entry["detail"] for entry in await desk.entries()] == ["note 0", "note 1", "note 2", "begun anew"]


async def test_events_are_kept_until_they_were_read(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FORGET_EVERY_S", 0.0)
    monkeypatch.setattr(history, "EVENTS_KEPT", 10)
    monkeypatch.setattr(history, "_PRUNE_EVERY", 5)
    fleet = desk.file.fleet
    for number in range(30):
        await fleet.append_event("note", f"note {number}", {})
    assert await fleet.event_bounds() == ("0", "30")
    await fleet.forget_read_events(up_to="7")
    assert await fleet.event_bounds() == ("7", "30")
    await desk.outbox.act()
    assert await fleet.event_bounds() == ("20", "30")
    assert len(await desk.entries()) == 23


async def test_nothing_new_begins_in_a_fleet_whose_ledger_cannot_be_written(desk: Desk, tmp_path: Path) -> None:
    intake = IntakeService(SqlIntake(desk.database, desk.ledger), Scrubber(lambda _digest: False), via=Via.FLEET)
    async with open_fleet(settings_of_controller(tmp_path), recorded=True) as fleet, AsyncExitStack() as undo:

        async def opened() -> FleetController:
            return fleet

        record = FleetRecord(intake, opened)
        await record.begin(fleet, undo)
        record.check()
        await desk.ledger.close()
        await desk.database.close()
        await fleet.services.fleet.append_event("note", "one", {})

        async def is_refused() -> bool:
            try:
                record.check()
            except Unavailable as error:
                return error.code == "ledger_behind"
            return False

        await eventually(is_refused)
