"""Live events: nothing missed, nothing twice, nobody waits for anybody."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from borough.core.clock import utc_now
from borough.core.errors import Forbidden, Unavailable
from borough.governance.actions import Action
from borough.governance.ledger import Head, Outcome
from borough.governance.ports.ledger import EntryFilter, Ledger
from borough.governance.services import events as events_module
from borough.governance.services.asking import Asker
from borough.governance.services.events import EventService, Gap
from borough.governance.services.fanout import Frame
from borough.governance.tokens import Role
from borough.governance.trust import TrustLevel
from tests.conftest import eventually
from tests.services.records_house import Records, as_agent, open_records, operator

pytestmark = pytest.mark.anyio
ALL = EntryFilter()


class Reader:
    """Follows in the background and keeps what came."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.gaps: list[Gap] = []
        self.task: asyncio.Task[None] | None = None

    @property
    def seqs(self) -> list[int]:
        return [frame.seq for frame in self.frames]

    @property
    def details(self) -> list[str]:
        return [orjson.loads(frame.canonical)["detail"] for frame in self.frames]

    async def follow(self, batches: AsyncIterator[Any]) -> None:
        async with aclosing(cast("Any", batches)):
            async for batch in batches:
                if isinstance(batch, Gap):
                    self.gaps.append(batch)
                else:
                    self.frames += batch

    async def has(self, count: int) -> None:
        async def enough() -> bool:
            assert self.task is not None
            assert not self.task.done(), "the stream ended"
            return len(self.frames) >= count

        await eventually(enough)


class Readers:
    def __init__(self, records: Records) -> None:
        self._records = records
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, asker: Asker | None = None, wanted: EntryFilter = ALL, after: int | None = None) -> Reader:
        reader = Reader()
        batches = await self._records.events.follow(asker or operator(), wanted, after)
        reader.task = asyncio.ensure_future(reader.follow(batches))
        self._tasks.append(reader.task)
        return reader

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def readers(records: Records) -> AsyncIterator[Readers]:
    readers = Readers(records)
    yield readers
    await readers.stop()


async def happens(records: Records, *details: str) -> None:
    for detail in details:
        await records.recorder.event(operator(), Action.DAEMON_START, detail=detail)


async def test_a_stream_begins_with_what_is_new(records: Records, readers: Readers) -> None:
    await happens(records, "before")
    reader = await readers.start()
    await happens(records, "a", "b")
    await reader.has(2)
    assert reader.details == ["a", "b"]


async def test_a_stream_resumes_from_the_ledger_and_goes_on_live(records: Records, readers: Readers) -> None:
    await happens(records, *map(str, range(10)))
    reader = await readers.start(after=3)
    await reader.has(6)
    await happens(records, "10", "11")
    await reader.has(8)
    assert reader.seqs == list(range(4, 12))
    assert reader.gaps == []


async def test_nothing_is_missed_or_doubled_while_entries_come(records: Records, readers: Readers) -> None:
    await happens(records, "first")
    writing = asyncio.ensure_future(happens(records, *map(str, range(200))))
    followers = [await readers.start(after=after) for after in (-1, 0) for _ in range(5)]
    await writing
    for place, reader in enumerate(followers):
        begin = 0 if place < 5 else 1
        await reader.has(201 - begin)
        assert reader.seqs == list(range(begin, 201))


async def test_filters_choose_by_agent_action_and_outcome(records: Records, readers: Readers) -> None:
    mine, other = await records.agent(name="mine"), await records.agent(name="other")
    by_agent = await readers.start(wanted=EntryFilter(agents=frozenset({mine.id})), after=-1)
    by_action = await readers.start(wanted=EntryFilter(actions=frozenset({"ToolInvoke"})))
    by_outcome = await readers.start(wanted=EntryFilter(outcomes=frozenset({"denied"})))
    await records.recorder.event(as_agent(mine), Action.TOOL_INVOKE, detail="1")
    await records.recorder.event(as_agent(other), Action.MCP_ATTACH, detail="2", target=mine)
    await records.recorder.event(as_agent(other), Action.TOOL_INVOKE, detail="3", outcome=Outcome.DENIED)
    await records.recorder.event(as_agent(other), Action.DAEMON_STOP, detail="4", outcome=Outcome.DENIED)
    await by_outcome.has(2)
    await by_action.has(2)
    assert (by_agent.details, by_action.details, by_outcome.details) == (["1", "2"], ["1", "3"], ["3", "4"])


async def test_a_gap_is_told_where_entries_are_gone(records: Records, readers: Readers) -> None:
    await happens(records, *map(str, range(6)))
    assert await records.ledger.retain(before=utc_now() + timedelta(seconds=1), limit=4) == 4
    reader = await readers.start(after=1)
    await reader.has(2)
    assert reader.gaps == [Gap(after=1, resumes_at=4)]
    assert reader.seqs == [4, 5]
    whole = await readers.start(after=3)
    await whole.has(2)
    assert whole.gaps == []


async def test_a_reader_who_knows_more_than_the_ledger_is_told(records: Records, readers: Readers) -> None:
    await happens(records, "0")
    reader = await readers.start(after=500)

    async def told() -> bool:
        return bool(reader.gaps)

    await eventually(told)
    await happens(records, "1")
    await reader.has(1)
    assert reader.gaps == [Gap(after=500, resumes_at=1)]
    assert reader.seqs == [1]


async def test_a_slow_reader_misses_nothing_and_harms_nobody(tmp_path: Path) -> None:
    async with AsyncExitStack() as undo:
        records = await open_records(tmp_path, undo, capacity=16)
        readers = Readers(records)
        undo.push_async_callback(readers.stop)
        quick = await readers.start()
        batches = cast("Any", await records.events.follow(operator(), ALL, None))
        undo.push_async_callback(batches.aclose)
        first = asyncio.ensure_future(anext(batches))
        await happens(records, "0")
        seen = [frame.seq for frame in await first]
        await happens(records, *map(str, range(1, 300)))  # while nobody takes anything from `batches`
        await quick.has(300)
        assert quick.seqs == list(range(300))
        while len(seen) < 300:
            seen += [frame.seq for frame in await anext(batches)]
        assert seen == list(range(300))


async def test_all_readers_share_one_frame(records: Records, readers: Readers) -> None:
    first, second = await readers.start(), await readers.start()
    await happens(records, "a")  # this one may still come from the ledger
    await first.has(1)
    await second.has(1)
    await happens(records, "b")
    await first.has(2)
    await second.has(2)
    assert first.frames[1] is second.frames[1]


class LateHead:
    """A ledger whose head is told, once, as it was a moment before: its entries can be read already."""

    def __init__(self, ledger: Ledger, late: Head) -> None:
        self._ledger = ledger
        self._late: Head | None = late

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def head(self) -> Head:
        late, self._late = self._late, None
        return late or await self._ledger.head()


async def test_what_can_be_read_before_the_head_tells_of_it_is_no_gap_and_comes_once(records: Records) -> None:
    ledger = LateHead(records.ledger, await records.ledger.head())
    readers = Readers(replace(records, events=EventService(cast("Any", ledger), records.ledger.feed, records.gate)))
    try:
        await happens(records, "a")
        reader = await readers.start(after=0)
        await happens(records, "b")
        await reader.has(1)
        assert (reader.seqs, reader.gaps) == ([1], [])
    finally:
        await readers.stop()


async def test_a_narrow_reader_sees_its_descendants_also_those_that_come_later(
    records: Records, readers: Readers
) -> None:
    parent, other = await records.agent(name="parent"), await records.agent(name="other")
    reader = await readers.start(as_agent(parent))
    bound = await readers.start(as_agent(parent, Role.OPERATOR))
    child = await records.agent(name="child", parent=parent.id)
    for each in (other, child, parent):
        await records.recorder.event(as_agent(each), Action.TOOL_INVOKE, detail=each.name)
    await reader.has(2)
    await bound.has(3)
    assert reader.details == ["child", "parent"]
    assert bound.details == ["other", "child", "parent"]
    again = await readers.start(as_agent(parent), after=-1)
    await again.has(2)
    assert again.details == ["child", "parent"]
    auditor = await records.agent("audit.read", name="auditor", trust=TrustLevel.PRIVILEGED)
    everything = await readers.start(as_agent(auditor), after=-1)
    await everything.has(3)


async def test_a_stream_ends_when_its_agent_has_ended(
    records: Records, readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "SEEN_ANEW_EVERY", timedelta(0))
    agent = await records.agent()
    reader = await readers.start(as_agent(agent))
    await records.end(agent)
    await happens(records, "a")
    assert reader.task is not None
    async with asyncio.timeout(60):
        await reader.task
    assert reader.frames == []
    with pytest.raises(Forbidden):
        await readers.start(as_agent(agent))


async def test_there_is_a_limit(records: Records, readers: Readers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "MOST_STREAMS", 1)
    reader = await readers.start()
    await happens(records, "a")
    await reader.has(1)
    with pytest.raises(Unavailable) as refused:
        await readers.start()
    assert refused.value.code == "too_many_streams"
