"""Finding out which engines a host has."""

import asyncio
from pathlib import Path
from typing import cast

import pytest

from borough.adapters.engines.bhyve.driver import BhyveMachines, BhyveSettings
from borough.adapters.engines.registry import available
from borough.core.errors import Unavailable
from borough.fleet.engines import Engine, Offer
from borough.fleet.ports.machines import EngineDriver

pytestmark = pytest.mark.anyio


class Probed:
    """As much of an engine as is asked of it here."""

    def __init__(self, engine: Engine, *, after: asyncio.Event | None = None, fails: bool = False) -> None:
        self.engine = engine
        self.asked = asyncio.Event()
        self._after = after
        self._fails = fails

    async def probe(self) -> Offer | None:
        self.asked.set()
        if self._after is not None:
            await self._after.wait()
        if self._fails:
            raise Unavailable("it broke")
        return Offer(engine=self.engine)


async def test_all_are_asked_at_once_and_one_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    docker = Probed(Engine.DOCKER)
    # This one answers only once the other was asked: one after the other would never end.
    qemu = Probed(Engine.QEMU, after=docker.asked)
    absent = BhyveMachines(BhyveSettings(state=tmp_path, marker="m"), bridged=True)
    drivers = [cast("EngineDriver", each) for each in (qemu, absent, docker)]
    found = await available(drivers, within_s=10.0)
    assert [offer.engine for offer in found.offers] == [Engine.QEMU, Engine.DOCKER]
    assert list(found.drivers) == [Engine.QEMU, Engine.DOCKER]
    assert not found.reasons


async def test_one_that_fails_or_says_nothing_keeps_nobody_waiting() -> None:
    silent, broken, well = (
        Probed(Engine.QEMU, after=asyncio.Event()),
        Probed(Engine.JAIL, fails=True),
        Probed(Engine.DOCKER),
    )
    found = await available([cast("EngineDriver", each) for each in (silent, broken, well)], within_s=0.05)
    assert list(found.drivers) == [Engine.DOCKER]
    assert "within 0.05 s" in found.reasons[Engine.QEMU]
    assert found.reasons[Engine.JAIL] == "it broke"
