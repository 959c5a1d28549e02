"""Many streams as one: told once for everybody, resumed anywhere, and nothing lost for whoever is slow."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import pytest

from borough.core.errors import Invalid, Unavailable
from borough.overview.occurrences import (
    Context,
    Gap,
    Occurrence,
    Positions,
    Wanted,
    decode_positions,
    encode_positions,
    order,
)
from borough.overview.services.streams import EventStreamService, Told

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ALL = Wanted(contexts=frozenset(Context))


class Kept:
    """A stream that is kept in memory. It may be cut off, be put back, and not be there yet."""

    def __init__(self, context: Context, *, there: bool = True) -> None:
        self.context = context
        self.there = there
        self.first = 1
        self.count = 0
        self._news = asyncio.Event()

    def happens(self, times: int = 1) -> None:
        self.count += times
        self._news.set()

    async def bounds(self) -> tuple[str, str]:
        self._check()
        return str(self.first - 1), str(self.count)

    async def after(self, position: str, *, limit: int) -> tuple[Sequence[Occurrence], str]:
        self._check()
        begin = max(int(position or 0) + 1, self.first)
        found = [self._one(number) for number in range(begin, self.count + 1)][:limit]
        return found, found[-1].position if found else position

    async def newest(self, *, limit: int) -> Sequence[Occurrence]:
        self._check()
        return [self._one(number) for number in range(self.first, self.count + 1)][-limit:]

    async def comes(self, *, after: str) -> None:
        while self.count <= int(after or 0):
            self._news.clear()
            await self._news.wait()

    def _check(self) -> None:
        if not self.there:
            raise Unavailable("it is being opened", code="fleet_starting")

    def _one(self, number: int) -> Occurrence:
        kind = "odd.one" if number % 2 else "even.one"
        id_ = f"{self.context.value}:{number}"
        return Occurrence(
            context=self.context,
            position=str(number),
            id=id_,
            at=NOON,
            kind=kind,
            message=id_,
            subject=None,
            subjects={"vm_id": str(number % 3)},
        )


class Reader:
    """A listener that reads on in a task of its own; it may stand still."""

    def __init__(self, service: EventStreamService, wanted: Wanted, after: Positions | None) -> None:
        self.told: list[Told | Gap] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self._follow = service.follow(wanted, after)

    async def run(self) -> None:
        async for item in await self._follow:
            self.told.append(item)
            await self.reads.wait()

    def ids(self, context: Context | None = None) -> list[str]:
        all_ids = [item.occurrence.id for item in self.told if isinstance(item, Told)]
        return all_ids if context is None else [id_ for id_ in all_ids if id_.startswith(context.value)]

    async def has(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.told) < count:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def reading(
    service: EventStreamService, after: Positions | None = None, wanted: Wanted = ALL
) -> AsyncIterator[Reader]:
    reader = Reader(service, wanted, after)
    task = asyncio.create_task(reader.run())
    listening = service._hub.listening
    try:
        async with asyncio.timeout(60):
            while service._hub.listening == listening or not service._hub.positions:
                await asyncio.sleep(0.005)
        yield reader
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def town() -> Kept:
    return Kept(Context.TOWN)


@pytest.fixture
def fleet() -> Kept:
    return Kept(Context.FLEET)


def numbers(context: Context, first: int, last: int) -> list[str]:
    return [f"{context.value}:{number}" for number in range(first, last + 1)]


async def test_everybody_is_told_the_same_objects_in_the_order_of_each_context(town: Kept, fleet: Kept) -> None:
    service = EventStreamService((town, fleet))
    async with reading(service) as ada, reading(service) as bob:
        for _ in range(50):
            town.happens()
            fleet.happens(2)
            await asyncio.sleep(0)
        await ada.has(150)
        await bob.has(150)
    assert ada.ids(Context.TOWN) == numbers(Context.TOWN, 1, 50)
    assert ada.ids(Context.FLEET) == numbers(Context.FLEET, 1, 100)
    assert all(one is other for one, other in zip(ada.told, bob.told, strict=True))


async def test_a_stream_is_resumed_at_every_place_without_loss_and_without_anything_twice(
    town: Kept, fleet: Kept
) -> None:
    service = EventStreamService((town, fleet))
    async with reading(service) as whole:
        for _ in range(20):
            town.happens()
            fleet.happens()
            await asyncio.sleep(0.001)
        await whole.has(40)
    for place, told in enumerate(whole.told):
        assert isinstance(told, Told)
        async with reading(service, decode_positions(told.cursor)) as rest:
            town.happens()
            await rest.has(39 - place + town.count - 20)
        assert sorted(whole.ids()[: place + 1] + rest.ids()) == sorted(
            numbers(Context.TOWN, 1, town.count) + numbers(Context.FLEET, 1, 20)
        )


async def test_whoever_is_slow_loses_the_queue_and_no_event(town: Kept, fleet: Kept) -> None:
    service = EventStreamService((town, fleet), capacity=10)
    async with reading(service) as slow, reading(service) as fast:
        slow.reads.clear()
        for _ in range(100):
            town.happens()
            fleet.happens()
            await asyncio.sleep(0)
        await fast.has(200)
        assert len(slow.told) < 100
        slow.reads.set()
        await slow.has(200)
    for reader in (slow, fast):
        assert reader.ids(Context.TOWN) == numbers(Context.TOWN, 1, 100)
        assert reader.ids(Context.FLEET) == numbers(Context.FLEET, 1, 100)


async def test_a_filter_passes_over_what_is_not_wanted_also_when_it_reads_what_was(town: Kept, fleet: Kept) -> None:
    service = EventStreamService((town, fleet))
    wanted = Wanted(contexts=frozenset({Context.FLEET}), kind="odd", subject="1")
    fleet.happens(12)
    async with reading(service, {Context.FLEET: "0"}, wanted) as reader:
        fleet.happens(12)
        town.happens(5)
        await reader.has(4)
    assert reader.ids() == ["fleet:1", "fleet:7", "fleet:13", "fleet:19"]


async def test_what_is_no_longer_kept_is_told_first(town: Kept, fleet: Kept) -> None:
    service = EventStreamService((town, fleet))
    fleet.count, fleet.first = 30, 21
    async with reading(service, {Context.FLEET: "5", Context.TOWN: "0"}) as reader:
        town.happens()
        await reader.has(12)
    (gap,) = [item for item in reader.told if isinstance(item, Gap)]
    assert (gap.context, gap.after, gap.resumes_at) == (Context.FLEET, "5", "20")
    assert reader.ids(Context.FLEET) == numbers(Context.FLEET, 21, 30)


async def test_a_store_that_was_begun_anew_is_told_of_too(town: Kept, fleet: Kept) -> None:
    service = EventStreamService((town, fleet))
    fleet.happens(3)
    async with reading(service, {Context.FLEET: "900"}) as reader:
        fleet.happens()
        await reader.has(2)
    assert isinstance(reader.told[0], Gap)
    assert reader.ids() == ["fleet:4"]


async def test_a_context_that_is_opened_later_comes_in_where_its_reader_had_been(town: Kept) -> None:
    fleet = Kept(Context.FLEET, there=False)
    fleet.count = 7
    service = EventStreamService((town, fleet))
    async with reading(service, {Context.FLEET: "4"}) as resumed, reading(service) as fresh:
        town.happens()
        await resumed.has(1)
        fleet.there = True
        await resumed.has(4)
        fleet.happens()
        await fresh.has(2)
        await resumed.has(5)
    assert resumed.ids(Context.FLEET) == numbers(Context.FLEET, 5, 8)
    assert fresh.ids() == ["town:1", "fleet:8"]


async def test_a_list_and_the_stream_after_it_fit_together(town: Kept, fleet: Kept) -> None:
    service = EventStreamService((town, fleet))
    town.happens(3)
    fleet.happens(2)
    found, cursor = await service.newest(ALL, limit=4)
    assert len(found) == 4
    fleet.happens()
    async with reading(service, decode_positions(cursor)) as reader:
        await reader.has(1)
    assert reader.ids() == ["fleet:3"]


def test_cursors_are_words_that_say_where_each_stream_was_read() -> None:
    positions = {Context.TOWN: "1700000000000-12", Context.FLEET: "9" * 18, Context.GOVERNANCE: "", Context.RUNS: "5"}
    word = encode_positions(positions)
    assert len(word) <= 128
    assert decode_positions(word) == positions
    assert decode_positions("1700000000000-0") == {Context.TOWN: "1700000000000-0"}
    assert decode_positions("fleet:12") == {Context.FLEET: "12"}
    assert order("12") < order("100") < order("100-1")
    for wrong in ("", "c.", "c.!!!!", "fleet:x", "moon:1", "c." + "QUJD", word[:-3] + "???"):
        with pytest.raises(Invalid):
            decode_positions(wrong)
