"""The rows of pools: what every ``PoolStore`` promises."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from borough.adapters.sql.pools import KEPT_STEPS, SqlPools
from borough.core.errors import Conflict, NotFound
from borough.fleet.vms import VmId
from borough.pools.pools import Machine, Pool, PoolSettings, Step, Trouble, Use
from borough.pools.ports import PoolStore

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 4, 4, 12, tzinfo=UTC)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[PoolStore]:
    opened = await SqlPools.open(tmp_path / "state" / "pools.db")
    yield opened
    await opened.close()


def a_pool(role: str = "coder", **about: object) -> Pool:
    made = Pool(role=role, settings=PoolSettings(command=("cat", "-u")), created_at=NOON, changed_at=NOON)
    return replace(made, **about)  # type: ignore[arg-type]  # members of a pool


def a_machine(number: int, use: Use = Use.BOOTING, role: str = "coder") -> Machine:
    return Machine(
        id=f"m{number}", role=role, generation=1, use=use, since=NOON, created_at=NOON, env_id=f"e{number}",
        vm_id=VmId(f"{number:08x}-000"),
    )  # fmt: skip


def a_step(number: int) -> Step:
    return Step(at=NOON, before=0, after=number, reason=f"step {number}")


def of_its_pool(machine: Machine, pool: Pool) -> bool:
    return machine.role == pool.role


async def test_what_was_put_is_there_whole(store: PoolStore) -> None:
    trouble = Trouble(reason="no image", count=2, at=NOON, until=NOON)
    wanted = a_pool(trouble=trouble, last_step=a_step(1), settings=PoolSettings(manifest="a\nb", warm=2))
    assert await store.put("coder", lambda before: wanted if before is None else before) == (wanted, True)
    assert await store.pool("coder") == wanted
    assert await store.put("coder", lambda before: before or wanted) == (wanted, False)
    changed = await store.change("coder", lambda pool: replace(pool, generation=2))
    assert await store.pools() == (changed,)
    for missing in (store.pool("nobody"), store.change("nobody", lambda pool: pool)):
        with pytest.raises(NotFound) as caught:
            await missing
        assert caught.value.code == "pool_not_found"


async def test_a_machine_makes_legal_moves_only(store: PoolStore) -> None:
    await store.put("coder", lambda _: a_pool())
    await store.intend([a_machine(1), a_machine(2)])
    warm = await store.move(replace(a_machine(1), use=Use.WARM))
    used = await store.move(replace(warm, use=Use.STARTING, agent_name="coder-1"))
    with pytest.raises(Conflict) as caught:
        await store.move(replace(used, use=Use.WARM))
    assert caught.value.code == "illegal_use"
    assert await store.machines() == (used, a_machine(2))
    await store.forget("m1")
    await store.forget("m1")
    with pytest.raises(NotFound):
        await store.move(used)
    assert await store.machines("coder") == (a_machine(2),)
    assert await store.machines("tester") == ()


async def test_a_pool_goes_when_it_is_leaving_and_has_no_machines(store: PoolStore) -> None:
    await store.put("coder", lambda _: a_pool())
    await store.note("coder", a_step(1))
    await store.intend([a_machine(1)])
    assert not await store.remove("coder")
    await store.change("coder", lambda pool: replace(pool, leaving=True))
    assert not await store.remove("coder")
    await store.forget("m1")
    assert await store.remove("coder")
    assert not await store.remove("coder")
    assert (await store.pools(), await store.steps("coder", limit=9)) == ((), ())


async def test_a_warm_machine_is_taken_once(store: PoolStore) -> None:
    await store.put("coder", lambda _: a_pool())
    await store.intend([a_machine(1), a_machine(2, Use.WARM), a_machine(3, Use.WARM), a_machine(4, Use.WORKING)])
    taken = await asyncio.gather(*(store.take_warm(f"run {number}", of_its_pool, at=NOON) for number in range(5)))
    assert sorted(each.id for each in taken if each) == ["m2", "m3"]
    uses = {each.id: each.use for each in await store.machines()}
    assert uses == {"m1": Use.BOOTING, "m2": Use.TAKEN, "m3": Use.TAKEN, "m4": Use.WORKING}
    (again,) = [each for each in taken if each is not None and each.id == "m2"]
    assert await store.take_warm(again.taken_by or "", lambda *_: False, at=NOON) == again, "it is its own already"
    with pytest.raises(Conflict):
        await store.move(replace(again, use=Use.WARM))


async def test_nothing_is_taken_that_does_not_fit_or_whose_pool_goes(store: PoolStore) -> None:
    await store.put("coder", lambda _: a_pool())
    await store.intend([a_machine(1, Use.WARM)])
    assert await store.take_warm("run", lambda *_: False, at=NOON) is None
    await store.change("coder", lambda pool: replace(pool, leaving=True))
    assert await store.take_warm("run", of_its_pool, at=NOON) is None


async def test_the_last_steps_are_kept_newest_first(store: PoolStore) -> None:
    await store.put("coder", lambda _: a_pool())
    for number in range(KEPT_STEPS + 3):
        await store.note("coder", a_step(number))
    kept = await store.steps("coder", limit=KEPT_STEPS * 2)
    assert (len(kept), kept[0].after, kept[-1].after) == (KEPT_STEPS, KEPT_STEPS + 2, 3)
    await store.note("nobody", a_step(1))
    assert await store.steps("nobody", limit=9) == ()


async def test_everything_is_there_again_after_it_was_closed(tmp_path: Path) -> None:
    first = await SqlPools.open(tmp_path / "pools.db")
    await first.put("coder", lambda _: a_pool())
    await first.intend([a_machine(1)])
    await first.close()
    again = await SqlPools.open(tmp_path / "pools.db")
    assert (await again.pools(), await again.machines()) == ((a_pool(),), (a_machine(1),))
    await again.close()
