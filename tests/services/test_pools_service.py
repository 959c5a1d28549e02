"""Pools beside a real town and a real fleet: what they hold back, share, prolong, and give away."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from borough.adapters.sql.pools import SqlPools
from borough.core.clock import utc_now
from borough.fleet.engines import Engine
from borough.fleet.resources import Size
from borough.fleet.vms import VmState
from borough.pools.pools import Use
from borough.pools.services.warm import Wanted, WarmMachines
from borough.pools.services.watching import PROLONGED_BEFORE
from borough.town.tasks import TaskState
from tests.services.pools_house import ROLE, SMALL, House, opened

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    async with opened(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlPools]:
    kept = await SqlPools.open(tmp_path / "pools.db")
    yield kept
    await kept.close()


async def test_ready_machines_are_given_away_once_and_made_again(house: House, store: SqlPools) -> None:
    await house.put(store, replace(SMALL, maximum=0, warm=1))
    scaler, warm = house.autoscaler(store), WarmMachines(store, house.fleet.services.environments)
    wanted = Wanted(image="base", engine=Engine.BUBBLEWRAP, size=Size(cpu=1, mem_mib=64, disk_mib=100))

    async def one_is_ready() -> bool:
        return [each.use for each in await store.machines()].count(Use.WARM) == 1

    await house.until(store, scaler, one_is_ready)
    for other in (replace(wanted, image="host"), replace(wanted, egress=frozenset())):
        assert await warm.take("run-1", other) is None
        assert await warm.ready(other) is None
    seen = await warm.ready(wanted)
    taken = await warm.take("run-1", wanted)
    assert taken is not None
    assert taken == seen, "what was seen ready stays where it is until it is taken"
    assert await warm.ready(wanted) is None
    assert await warm.taken("run-") == (taken.env_id,)
    assert await warm.taken("run-2") == ()
    assert taken.state is VmState.RUNNING
    assert await warm.take("run-1", wanted) == taken, "the same claim gets the same machine"
    assert await warm.take("run-2", wanted) is None, "nobody else does"
    await house.until(store, scaler, one_is_ready)
    another = await warm.take("run-2", wanted)
    assert another is not None
    assert another.id != taken.id
    for env_id in (taken.env_id, another.env_id):
        await house.fleet.services.environments.delete(env_id, operation_id=f"end {env_id}")

    async def is_forgotten() -> bool:
        return not [each for each in await store.machines() if each.use is Use.TAKEN]

    await house.until(store, scaler, is_forgotten)
    await scaler.close()


async def test_a_pool_says_why_it_is_held_and_goes_on_when_it_is_not(house: House, store: SqlPools) -> None:
    await house.put(store, SMALL)
    full = house.autoscaler(store, max_agents=0)
    task = await house.submit()
    for _ in range(3):
        await full.act()
    held = full.seen.decisions[ROLE].held
    assert held is not None
    assert "max_agents" in held
    assert [step.reason for step in await store.steps(ROLE, limit=9)] == [f"held: {held}"], "told once"
    await full.close()
    scaler = house.autoscaler(store)

    async def is_done() -> bool:
        return (await house.task(task)).state is TaskState.COMPLETED

    await house.until(store, scaler, is_done)
    await scaler.close()


async def test_where_there_is_no_room_it_is_said_and_asked_for_again(house: House, store: SqlPools) -> None:
    await house.put(store, replace(SMALL, memory_mib=1_000_000))
    scaler = house.autoscaler(store)
    await house.submit()
    for _ in range(4):
        await scaler.act()
    trouble = (await store.pool(ROLE)).trouble
    assert trouble is not None
    assert (trouble.no_room, "mem" in trouble.reason) == (True, True)
    assert (await store.machines(), await house.environments()) == ((), [])
    assert scaler.seen.decisions[ROLE].held == trouble.reason
    await house.put(store, SMALL)
    assert (await store.pool(ROLE)).trouble is None, "other machines are other trouble"
    await scaler.close()


async def test_work_for_anybody_wakes_one_pool(house: House, store: SqlPools) -> None:
    for role in ("coder", "tester"):
        await house.put(store, SMALL, role=role)
    scaler = house.autoscaler(store)
    await house.submit(None)
    await scaler.act()
    assert [machine.role for machine in await store.machines()] == ["coder"]
    await house.submit("tester")
    await scaler.act()
    assert sorted(machine.role for machine in await store.machines()) == ["coder", "tester"]

    async def is_empty() -> bool:
        return not await store.machines()

    await house.until(store, scaler, is_empty)
    await scaler.close()


async def test_a_machine_that_works_on_is_prolonged(house: House, store: SqlPools) -> None:
    await house.put(store, replace(SMALL, minimum=1, quiet_s=60))
    scaler = house.autoscaler(store)

    async def works() -> bool:
        return [each.use for each in await store.machines()] == [Use.WORKING]

    await house.until(store, scaler, works)
    (machine,) = await store.machines()
    await house.fleet.services.environments.change(machine.env_id, lifetime_s=60)
    await scaler.act()
    environment = (await house.fleet.services.environments.detail(machine.env_id)).environment
    assert environment.expires_at - utc_now() > PROLONGED_BEFORE
    await scaler.close()
