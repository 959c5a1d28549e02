"""How busy everything was: bounded, and with holes where something could not be read."""

from datetime import timedelta
from typing import Any, cast

import anyio
import pytest

from borough.core.clock import utc_now
from borough.core.errors import Unavailable
from borough.fleet.ports.fleet import Fleet, Totals
from borough.overview.services.figures import FigureService
from borough.town.ports.readings import Readings
from borough.town.scaling import Snapshot
from borough.town.services.readings import ReadingService

pytestmark = pytest.mark.anyio


class Busy:
    """A town and a fleet with one more task at each look, of which either may be away."""

    def __init__(self) -> None:
        self.looks = 0
        self.town_is_away = False
        self.fleet_is_away = False

    async def snapshot(self) -> Snapshot:
        if self.town_is_away:
            raise Unavailable("the store is away", code="store_unavailable", resolution="wait")
        self.looks += 1
        zeros: dict[str, Any] = dict.fromkeys(
            ("assigned", "urgent", "delayed", "dead_letters", "completed_total", "missions_active"), 0
        )
        return Snapshot(
            at=utc_now(),
            backlog=self.looks,
            in_flight=2,
            agents=(),
            mission_open=False,
            mission_last_tick=None,
            **zeros,
        )

    async def totals(self) -> Totals:
        return Totals(hosts=1, cpu_total=4, cpu_used=1, mem_total=1000, mem_used=500)

    async def opened(self) -> Fleet:
        if self.fleet_is_away:
            raise Unavailable("it is being opened", code="fleet_starting", resolution="wait")
        return cast("Fleet", self)


def service(busy: Busy, **more: Any) -> FigureService:
    town = ReadingService(cast("Readings", busy), max_agents=10, idle_timeout=timedelta(seconds=60))
    return FigureService(town, busy.opened, **more)


async def test_only_the_newest_readings_are_kept() -> None:
    figures = service(Busy(), most=3)
    for _ in range(5):
        await figures.take()
        await anyio.sleep(0.002)  # moments are told in milliseconds
    kept = figures.since(None)
    assert [one.waiting for one in kept] == [3, 4, 5]
    assert {(one.underway, one.cpu, one.memory) for one in kept} == {(2, 0.25, 0.5)}
    assert [one.waiting for one in figures.since(kept[0].at)] == [4, 5]
    assert figures.since(kept[-1].at) == ()


async def test_what_is_away_leaves_a_hole() -> None:
    busy = Busy()
    figures = service(busy)
    busy.town_is_away = True
    await figures.take()
    busy.town_is_away, busy.fleet_is_away = False, True
    await figures.take()
    assert [(one.waiting, one.underway, one.cpu) for one in figures.since(None)] == [(None, None, 0.25), (1, 2, None)]
