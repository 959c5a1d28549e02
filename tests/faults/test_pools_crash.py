"""Pools whose server dies before any of their writes: nothing is lost, nothing done twice, nothing left behind.

Town and fleet are real, in this process; machines are processes that sleep, and what workers would say is said here.
"""

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from borough.adapters.sql.pools import SqlPools
from borough.core.ids import TaskId
from borough.town.agents import TERMINAL
from borough.town.tasks import TaskState
from tests.services.pools_house import SMALL, House, opened

pytestmark = pytest.mark.anyio
WRITES = frozenset({"put", "change", "remove", "intend", "move", "forget", "note"})


class Died(BaseException):
    """The server's end, in the middle of whatever it did."""


class Dying:
    """A store before whose write of a number the server dies; from then on nothing is written any more."""

    def __init__(self, store: SqlPools, *, before: int) -> None:
        self._store = store
        self._left = before
        self.died = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in WRITES:
            return method

        async def write(*arguments: Any, **named: Any) -> Any:
            self.died = self.died or self._left == 0
            if self.died:
                raise Died
            self._left -= 1
            return await method(*arguments, **named)

        return write


async def at_rest(house: House, store: SqlPools, tasks: list[TaskId]) -> bool:
    done = [await house.task(task) for task in tasks]
    return all(task.state is TaskState.COMPLETED for task in done) and not await store.machines()


async def test_a_server_that_dies_before_any_write_loses_nothing_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, monkeypatch) as house:
        number, survived = 0, False
        while not survived:
            survived = await one_life(house, tmp_path / f"{number}.db", before=number)
            number += 1
        assert number > 15, "the server died before every write of a whole story"


async def one_life(house: House, path: Path, *, before: int) -> bool:
    """Let a server die once and another go on until all is at rest; return whether it did not die at all."""
    store = await SqlPools.open(path)
    await house.put(store, replace(SMALL, maximum=1))
    tasks = [await house.submit() for _ in range(2)]
    dying = Dying(store, before=before)
    scaler = house.autoscaler(dying)
    with suppress(Died):
        while not dying.died and not await at_rest(house, store, tasks):
            await scaler.act()
            await asyncio.sleep(0.005)
            await house.serve(store)
    await scaler.close()
    scaler = house.autoscaler(store)
    await house.until(store, scaler, lambda: at_rest(house, store, tasks))
    await scaler.close()
    for task in [await house.task(each) for each in tasks]:
        assert task.attempts == 1, "no attempt was lost: nobody took anything out of a hand"
    assert await house.environments() == []
    assert len(house.started) == len(set(house.started)), "no machine was used twice"
    assert not [agent for agent in await house.town.agents.all() if agent.state not in TERMINAL]
    await store.close()
    return not dying.died
