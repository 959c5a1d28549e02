"""Memory, on disk and as the blackboard: one suite for both."""

import asyncio
from datetime import timedelta

import pytest

from borough.adapters.boards import Boards
from borough.core.errors import Conflict, Invalid
from borough.core.paging import PageRequest
from borough.governance import memory as rules
from borough.governance.memory import MemoryEntry
from borough.governance.ports.records import Memory
from tests.contracts.governance_kit import NOON, SECOND, House

pytestmark = pytest.mark.anyio
ALL = PageRequest(limit=1000)
HERE = "reader"


@pytest.fixture(params=["sql", "process"])
def memory(request: pytest.FixtureRequest, house: House) -> Memory:
    return house.stores.memory if request.param == "sql" else Boards()


async def put(memory: Memory, key: str, value: str = "1", *, ttl_s: int | None = None) -> MemoryEntry:
    return await memory.write(HERE, key, value, at=NOON, ttl_s=ttl_s)


async def listed(memory: Memory, *, at_s: int = 0) -> tuple[str, ...]:
    return (await memory.keys(HERE, at=NOON + timedelta(seconds=at_s), page=ALL)).items


async def test_what_was_written_is_read_as_it_was_spelled_and_by_its_own_namespace(memory: Memory) -> None:
    spelled = '{"b": 1.50,  "a": "ä"}'
    entry = await memory.write(HERE, "state/last-run", spelled, at=NOON, ttl_s=60)
    assert entry == MemoryEntry(
        key="state/last-run", value=spelled, version=1, updated_at=NOON, expires_at=NOON + 60 * SECOND
    )
    assert await memory.read(HERE, "state/last-run", at=NOON) == entry
    assert await memory.read("another", "state/last-run", at=NOON) is None


async def test_versions_rise_and_a_deletion_begins_anew(memory: Memory) -> None:
    assert [(await put(memory, "a")).version for _ in range(3)] == [1, 2, 3]
    assert await memory.delete(HERE, "a", at=NOON) is True
    assert await memory.delete(HERE, "a", at=NOON) is False
    assert (await put(memory, "a")).version == 1


async def test_of_many_who_create_or_write_on_one_version_one_does(memory: Memory) -> None:
    for expected in (0, 1):
        attempts = [
            memory.write(HERE, "a", str(number), at=NOON, ttl_s=None, expected_version=expected) for number in range(8)
        ]
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)
        assert sorted(type(each).__name__ for each in outcomes) == ["Conflict"] * 7 + ["MemoryEntry"]
    with pytest.raises(Conflict) as refused:
        await memory.delete(HERE, "a", at=NOON, expected_version=1)
    now = await memory.read(HERE, "a", at=NOON)
    assert now is not None
    assert (refused.value.code, refused.value.details) == ("version_mismatch", {"version": 2, "value": now.value})
    assert await memory.delete(HERE, "a", at=NOON, expected_version=2)


async def test_a_swap_goes_by_value_and_null_stands_for_nothing(memory: Memory) -> None:
    taken = await memory.swap(HERE, "lock", expected=None, new='{"by": "ada", "n": 1}', at=NOON)
    assert taken is not None
    with pytest.raises(Conflict) as refused:
        await memory.swap(HERE, "lock", expected=None, new='"bob"', at=NOON)
    assert (refused.value.code, refused.value.details) == ("value_mismatch", {"value": taken.value})
    moved = await memory.swap(HERE, "lock", expected={"n": 1, "by": "ada"}, new='"bob"', at=NOON, ttl_s=60)
    assert moved is not None
    assert (moved.version, moved.expires_at) == (2, NOON + 60 * SECOND)
    assert await memory.swap(HERE, "lock", expected="bob", new=None, at=NOON) is None
    assert await memory.read(HERE, "lock", at=NOON) is None
    assert await memory.swap(HERE, "lock", expected=None, new=None, at=NOON) is None


async def test_of_many_who_swap_one_does(memory: Memory) -> None:
    attempts = [memory.swap(HERE, "lock", expected=None, new=str(number), at=NOON) for number in range(8)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert sorted(type(each).__name__ for each in outcomes) == ["Conflict"] * 7 + ["MemoryEntry"]


async def test_what_has_expired_is_not_there(memory: Memory) -> None:
    await put(memory, "a", ttl_s=10)
    await put(memory, "b")
    late = NOON + 10 * SECOND
    assert await memory.read(HERE, "a", at=late - SECOND) is not None
    assert await memory.read(HERE, "a", at=late) is None
    assert (await listed(memory, at_s=9), await listed(memory, at_s=10)) == (("a", "b"), ("b",))
    assert await memory.delete(HERE, "a", at=late) is False
    await put(memory, "a", ttl_s=10)
    again = await memory.write(HERE, "a", "2", at=late, ttl_s=None, expected_version=0)
    assert (again.version, again.expires_at) == (1, None)


async def test_a_sweep_deletes_what_has_expired_and_no_more_than_it_may(memory: Memory) -> None:
    for number in range(5):
        await put(memory, f"short/{number}", ttl_s=1)
    await put(memory, "long", ttl_s=100)
    await put(memory, "kept")
    late = NOON + 2 * SECOND
    assert [await memory.sweep(at=late, limit=3) for _ in range(3)] == [3, 2, 0]
    assert await listed(memory) == ("kept", "long")


async def test_keys_are_paged_in_order(memory: Memory) -> None:
    names = sorted(["a", "a/b", "B", "ä", "z/9", "z/10", "\U0001f600"])
    for name in reversed(names):
        await put(memory, name)
    await memory.write("another", "x", "1", at=NOON, ttl_s=None)
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await memory.keys(HERE, at=NOON, page=PageRequest(limit=3, after=after))
        assert len(page.items) <= 3
        found += page.items
        after = page.after
    assert found == names


async def test_nothing_is_kept_of_what_is_refused(memory: Memory) -> None:
    for key, value, ttl_s in (("", "1", None), ("a*", "1", None), ("a", "1", 0), ("a", "x" * 1_048_577, None)):
        with pytest.raises(Invalid):
            await memory.write(HERE, key, value, at=NOON, ttl_s=ttl_s)
    assert await listed(memory) == ()


async def test_a_full_memory_takes_no_new_key_until_there_is_room(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MOST_KEYS", 3)
    for key in ("a", "b"):
        await put(memory, key)
    await put(memory, "short", ttl_s=1)
    for attempt in (put(memory, "c"), memory.swap(HERE, "c", expected=None, new="1", at=NOON)):
        with pytest.raises(Conflict) as refused:
            await attempt
        assert refused.value.code == "memory_full"
    assert (await put(memory, "a")).version == 2
    await memory.write("another", "c", "1", at=NOON, ttl_s=None)
    await memory.write(HERE, "c", "1", at=NOON + SECOND, ttl_s=None)
    assert await listed(memory, at_s=1) == ("a", "b", "c")
    await memory.delete(HERE, "a", at=NOON)
    await put(memory, "d")
    assert await listed(memory, at_s=1) == ("b", "c", "d")


async def test_memory_on_disk_outlives_the_daemon(house: House) -> None:
    entry = await put(house.stores.memory, "a", ttl_s=60)
    assert await (await house.reopen()).memory.read(HERE, "a", at=NOON) == entry
