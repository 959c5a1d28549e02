"""What every ``RunStore`` promises."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from borough.adapters.sql.engine import Database
from borough.adapters.sql.runs.store import SqlRuns
from borough.adapters.sql.runs.tables import RUNS
from borough.core.errors import Conflict, NotFound
from borough.core.paging import PageRequest
from borough.runs.ports import RunFilter
from borough.runs.runs import Run, moved, with_attempt
from borough.runs.states import RunState
from tests.contracts.runs_kit import NOON, a_run, an_attempt

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlRuns]:
    database = await Database.open(tmp_path / "state" / "runs.db", RUNS)
    yield await SqlRuns.open(database)
    await database.close()


async def prepared(store: SqlRuns, run: Run) -> Run:
    return await store.change(moved(run, RunState.PREPARING, at=NOON), event="run.preparing", message="it begins")


async def test_a_run_is_read_as_it_was_written(store: SqlRuns) -> None:
    run = with_attempt(a_run(labels={"a": "b"}), an_attempt())
    await store.add(run)
    assert await store.get(run.id) == run


async def test_what_is_there_stays_when_it_is_added_again(store: SqlRuns) -> None:
    run = await store.add(a_run())
    changed = await prepared(store, run)
    assert await store.add(run) == changed
    assert len(await store.events(after="", limit=10)) == 2


async def test_it_is_found_by_the_beginning_of_its_id(store: SqlRuns) -> None:
    one = await store.add(a_run("aaaa0000-0000-4000-8000-000000000001"))
    await store.add(a_run("aaaa1111-0000-4000-8000-000000000002"))
    assert await store.get("run-aaaa0000") == one
    with pytest.raises(Conflict) as ambiguous:
        await store.get("aaaa")
    assert ambiguous.value.code == "run_ambiguous"
    for unknown in ("bbbb", "aaa", ""):
        with pytest.raises(NotFound):
            await store.get(unknown)


async def test_of_two_who_change_the_same_run_one_is_told(store: SqlRuns) -> None:
    run = await store.add(a_run())
    outcomes = await asyncio.gather(prepared(store, run), prepared(store, run), return_exceptions=True)
    (refused,) = [each for each in outcomes if isinstance(each, Conflict)]
    assert refused.code == "stale_run"
    assert (await store.get(run.id)).revision == 1


async def test_every_change_is_told_with_it(store: SqlRuns) -> None:
    run = await prepared(store, await store.add(a_run()))
    told = await store.events(after="", limit=10)
    assert [event.type for event in told] == ["run.admitted", "run.preparing"]
    about = told[1].subjects
    assert (about["run_id"], about["old_state"], about["new_state"]) == (run.id, "admitted", "preparing")
    assert await store.event_bounds() == ("0", told[1].id)


async def test_who_waits_is_woken_by_the_change(store: SqlRuns) -> None:
    run = await store.add(a_run())
    waits = [
        asyncio.ensure_future(store.comes(run.id, revision=0)),
        asyncio.ensure_future(store.event_comes(after="1")),
    ]
    done, _ = await asyncio.wait(waits, timeout=0.05)
    assert not done, "nothing has changed yet"
    await prepared(store, run)
    done, _ = await asyncio.wait(waits, timeout=5)
    assert done == {*waits}
    for each in done:
        each.result()


async def test_runs_come_newest_first_in_pages_and_by_what_they_are(store: SqlRuns) -> None:
    runs = [await store.add(a_run(labels={"n": str(number % 2)})) for number in range(5)]
    first = await store.find(RunFilter(), PageRequest(limit=3))
    rest = await store.find(RunFilter(), PageRequest(limit=3, after=first.after or ""))
    assert [run.id for run in (*first.items, *rest.items)] == [run.id for run in reversed(runs)]
    assert rest.after is None
    odd = await store.find(RunFilter(labels={"n": "1"}), PageRequest())
    assert [run.id for run in odd.items] == [runs[3].id, runs[1].id]
    await prepared(store, runs[0])
    found = await store.find(RunFilter(state=RunState.PREPARING), PageRequest())
    assert [run.id for run in found.items] == [runs[0].id]


async def test_what_is_to_be_done_is_known_until_nothing_is_left(store: SqlRuns) -> None:
    run = await store.add(a_run())
    over = await store.change(moved(run, RunState.FAILED, at=NOON), event="run.failed", message="it broke")
    assert await store.unsettled() == (over,)
    await store.change(replace(over, is_clean=True), event="run.clean", message="nothing is left")
    assert await store.unsettled() == ()


async def test_what_ended_long_ago_is_forgotten_once_nothing_is_left_of_it(store: SqlRuns) -> None:
    runs = [await store.add(a_run()) for _ in range(3)]
    over = [
        await store.change(moved(run, RunState.FAILED, at=NOON), event="run.failed", message="x") for run in runs[:2]
    ]
    await store.change(replace(over[0], is_clean=True), event="run.clean", message="nothing is left")
    assert await store.forget(ended_before=NOON, limit=10) == ()
    assert await store.forget(ended_before=NOON + timedelta(seconds=1), limit=10) == (runs[0].id,)
    with pytest.raises(NotFound):
        await store.get(runs[0].id)
    assert {run.id for run in (await store.find(RunFilter(), PageRequest())).items} == {run.id for run in runs[1:]}


async def test_the_newest_run_of_an_agent_is_its_run(store: SqlRuns) -> None:
    run = await store.add(a_run())
    assert await store.of_agent(run.agent.id) == run
    assert await store.of_agent("nobody") is None
