"""A ledger that a program hands in to: what is handed in is there once and in order, and who writes it is fenced."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance import tables
from borough.adapters.sql.ledger import SqlLedger
from borough.adapters.sql.ledger_lease import LEASE_MS, Lease, holder, now_ms
from borough.adapters.sql.ledger_member import LedgerMember
from borough.core.clock import utc_now
from borough.core.errors import Conflict, Invalid, Unavailable
from borough.governance.ledger import Draft, Kind, Outcome, Via
from borough.governance.ports.ledger import EntryFilter

pytestmark = pytest.mark.anyio

DRAFT = Draft(
    id="a", at=utc_now(), agent_id="agent", action="town.note", outcome=Outcome.DENIED, kind=Kind.OUTCOME,
    via=Via.FLEET, agent_name="ada", detail="ä note", intent_id="x", token_name="key",
    data={"n": 1, "deep": [{"a": None}]},
)  # fmt: skip


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    """A ledger that its program has made, and closed."""
    path = tmp_path / "governance.db"
    database = await Database.open(path, tables.MIGRATIONS)
    ledger = await SqlLedger.open(database, shared=True)
    await ledger.append([replace(DRAFT, id="before")])
    await ledger.close()
    await database.close()
    return path


@pytest.fixture
async def member(file: Path) -> AsyncIterator[LedgerMember]:
    shared = LedgerMember(file, tables.MIGRATIONS, program="townhall")
    yield shared
    await shared.close()


async def entries(file: Path) -> list[dict[str, Any]]:
    database = await Database.open(file, tables.MIGRATIONS)
    ledger = await SqlLedger.open(database, shared=True)
    try:
        await ledger.keep_place()
        return [msgspec.json.decode(one.canonical) for one in await ledger.newest(EntryFilter(), limit=100)]
    finally:
        await ledger.close()
        await database.close()


async def test_what_was_handed_in_is_sealed_once_in_order_and_whole(file: Path, member: LedgerMember) -> None:
    await member.take("town:t", [DRAFT, replace(DRAFT, id="b")], up_to="2-0")
    await member.take("town:t", [replace(DRAFT, id="b"), replace(DRAFT, id="c")], up_to="3-0")
    assert await member.position("town:t") == "3-0"
    standing = await member.standing()
    assert (standing.waiting, standing.here) == (3, False)
    await member.stand()  # the place is free
    standing = await member.standing()
    assert (standing.waiting, standing.here) == (0, True)
    await member.take("town:t", [replace(DRAFT, id="a"), replace(DRAFT, id="d")], up_to="4-0")
    await member.close()
    told = await entries(file)
    assert [one["id"] for one in told] == ["before", "a", "b", "c", "d"]
    same = [{key: value for key, value in one.items() if key not in CHAINED} for one in told]
    assert same == [same[0] | {"id": one["id"]} for one in told]


async def test_what_nobody_would_seal_is_not_taken_and_what_was_left_is_sealed_at_the_start(
    file: Path, member: LedgerMember
) -> None:
    await member.take("town:t", [DRAFT], up_to="1-0")
    await member.close()
    database = await Database.open(file, tables.MIGRATIONS)
    ledger = await SqlLedger.open(database)  # it shares the ledger no more
    try:
        assert [one.id for one in await ledger.newest(EntryFilter(), limit=10)] == ["before", "a"]
        with pytest.raises(Unavailable) as refused:
            await member.take("town:t", [replace(DRAFT, id="b")], up_to="2-0")
        assert refused.value.code == "ledger_not_shared"
        assert await member.position("town:t") == "1-0"
        await member.stand()
        assert (await ledger.standing()).here
    finally:
        await member.close()
        await ledger.close()
        await database.close()


async def test_a_writer_that_was_replaced_knows_nothing_any_more_and_its_readers_read_on(
    file: Path, member: LedgerMember
) -> None:
    database = await Database.open(file, tables.MIGRATIONS)
    ledger = await SqlLedger.open(database, shared=True)
    try:
        async with ledger.feed.subscribe() as entries:
            await ledger.append([DRAFT])
            assert (await anext(entries)).id == "a"
            await database.write(lambda connection: connection.execute("UPDATE ledger_writer SET until_ms = 1").get)
            await member.take("town:t", [replace(DRAFT, id="b")], up_to="1-0")
            await member.stand()
            assert (await member.standing()).here
            (sealed,) = await ledger.append([replace(DRAFT, id="c")])
            assert [entry.id async for entry in entries] == [], "they would miss what the other wrote"
        assert sealed.seq == 3
        assert [one.id for one in await ledger.newest(EntryFilter(), limit=10)] == ["before", "a", "b", "c"]
        assert not (await member.standing()).here
        await member.stand()  # the place is not free
        assert (await ledger.standing()).here
    finally:
        await member.close()
        await ledger.close()
        await database.close()


CHAINED = ("seq", "prev_hash", "prev_leaf", "hash")


async def test_what_cannot_be_sealed_is_refused_when_it_is_handed_in(member: LedgerMember) -> None:
    with pytest.raises(Invalid, match="too long"):
        await member.take("town:t", [DRAFT, replace(DRAFT, id="b", detail="x" * 20_000)], up_to="2-0")
    assert await member.position("town:t") == ""
    assert (await member.standing()).waiting == 0


async def test_a_ledger_that_is_not_there_yet_is_joined_as_soon_as_it_is(tmp_path: Path) -> None:
    shared = LedgerMember(tmp_path / "governance.db", tables.MIGRATIONS, program="townhall")
    with pytest.raises(Unavailable) as refused:
        await shared.position("town:t")
    assert refused.value.code == "store_not_ready"
    database = await Database.open(tmp_path / "governance.db", tables.MIGRATIONS[:-1])
    await database.close()
    with pytest.raises(Unavailable) as refused:
        await shared.stand()
    assert refused.value.reason == "an older version wrote it"
    await entries(tmp_path / "governance.db")
    await shared.take("town:t", [DRAFT], up_to="1-0")
    assert (await shared.standing()).waiting == 1
    await shared.close()


async def test_a_place_that_is_held_is_nobody_else_s_and_the_clock_may_be_set_back(file: Path) -> None:
    database = await Database.open(file, tables.MIGRATIONS)
    clock = [now_ms()]
    first, second = (
        Lease(name, seizes=False, shared=True, clock=lambda: clock[0]) for name in ("first", "second")
    )  # fmt: skip
    try:
        assert await database.write(first.take)
        assert not await database.write(first.take), "it is held already"
        with pytest.raises(Conflict) as refused:
            await database.write(second.take)
        assert refused.value.code == "not_ledger_writer"
        clock[0] += LEASE_MS + 1
        assert await database.write(second.take)
        assert not await database.write(first.is_held)
        clock[0] -= 10 * LEASE_MS  # who held it then would seem to live for long
        assert await database.write(first.take)
        await database.write(first.give_up)
        assert await database.write(second.take)
        seizing = Lease("agentd", seizes=True, shared=False)
        assert await database.write(seizing.take)
        found = await database.read(holder)
        assert (found.name, found.until_ms, found.is_over(clock[0] + 10**9)) == (seizing.name, None, False)
    finally:
        await database.close()
