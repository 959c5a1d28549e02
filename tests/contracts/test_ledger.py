"""The ledger's port: on disk when it answers, whole after a crash, and found out when it is altered."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from borough.adapters.sql.engine import Database
from borough.adapters.sql.ledger import MIGRATIONS, SIGN_AFTER_S, SqlLedger
from borough.core.errors import BoroughError, Conflict, Invalid, NotFound, Unavailable
from borough.core.ids import AgentId, new_id
from borough.core.paging import PageRequest
from borough.governance.checkpoints import open_checkpoint
from borough.governance.ledger import Draft, Head, Kind, Outcome, Sealed
from borough.governance.merkle import consistency_proof, inclusion_proof, verify_consistency, verify_inclusion
from borough.governance.ports.ledger import EntryFilter, Ledger, LedgerFeed
from borough.governance.verification import Broken, Proven, checkpoint_lines, verify_export
from tests.conftest import eventually

pytestmark = pytest.mark.anyio

ADA, BOB, EVE = (AgentId(f"550e8400-e29b-41d4-a716-44665544000{n}") for n in range(3))
AT = datetime(2026, 2, 22, 12, 0, 0, 123_456, tzinfo=UTC)
ANY = EntryFilter()


def draft(**about: Any) -> Draft:
    values = {"id": new_id(), "at": AT, "agent_id": ADA, "action": "ToolInvoke", "outcome": Outcome.SUCCESS, **about}
    return Draft(**values)


def drafts(count: int, **about: Any) -> list[Draft]:
    return [draft(at=AT + timedelta(seconds=n), detail=f"no. {n}", **about) for n in range(count)]


@dataclass(frozen=True, kw_only=True)
class Store:
    """An open ledger, with a way behind it."""

    path: Path
    database: Database
    ledger: SqlLedger

    @classmethod
    async def open(cls, path: Path) -> "Store":
        database = await Database.open(path, MIGRATIONS)
        try:
            return cls(path=path, database=database, ledger=await SqlLedger.open(database))
        except BaseException:
            await database.close()
            raise

    async def close(self) -> None:
        await self.ledger.close()
        await self.database.close()

    async def reopened(self) -> "Store":
        await self.close()
        return await self.open(self.path)

    def alter(self, statement: str, values: tuple[Any, ...] = ()) -> None:
        """Change a closed ledger's file."""
        connection = apsw.Connection(str(self.path))
        connection.execute(statement, values)
        connection.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "data" / "ledger.db")
    yield opened
    await opened.close()


@pytest.fixture
def ledger(store: Store) -> Ledger:
    return store.ledger


@pytest.fixture
def feed(store: Store) -> LedgerFeed:
    return store.ledger.feed


async def exported(ledger: Ledger, first_seq: int = 0) -> bytes:
    checkpoint = await ledger.sign_now()
    lines = [line async for line in ledger.export(first_seq=first_seq, size=checkpoint.size)]
    return b"".join(lines) + checkpoint_lines(checkpoint.note)


def lines_of(data: bytes) -> list[bytes]:
    return [line + b"\n" for line in data.split(b"\n")[:-1]] + ([data.split(b"\n")[-1]] if data[-1:] != b"\n" else [])


async def proven(store: Store, first_seq: int = 0) -> Proven:
    found = verify_export(lines_of(await exported(store.ledger, first_seq)), store.ledger.key)
    assert isinstance(found, Proven), found
    return found


# -- append ------------------------------------------------------------------------------------------------------------


async def test_entries_are_sealed_in_order_and_read_back(ledger: Ledger) -> None:
    first = await ledger.append(drafts(3))
    (last,) = await ledger.append([draft()])
    assert [entry.seq for entry in (*first, last)] == [0, 1, 2, 3]
    head = await ledger.head()
    assert (head.size, head.hash, head.leaf) == (4, last.hash, last.leaf.hex())
    assert [await ledger.get(seq) for seq in range(4)] == [*first, last]
    assert await ledger.append([]) == ()


async def test_many_callers_make_one_chain(store: Store) -> None:
    done = await asyncio.gather(*(store.ledger.append(drafts(n % 3 + 1)) for n in range(200)))
    for group in done:
        assert [entry.seq for entry in group] == list(range(group[0].seq, group[0].seq + len(group)))
    size = sum(map(len, done))
    assert sorted(entry.seq for group in done for entry in group) == list(range(size))
    assert (await proven(store)).head == await store.ledger.head()
    assert (await store.ledger.head()).size == size


async def test_a_draft_that_is_there_is_not_written_again(ledger: Ledger) -> None:
    one, other = draft(), draft(id="not a uuid")
    (first,) = await ledger.append([one])
    again = await ledger.append([one, other, replace(other, detail="said again")])
    assert again[0] == first
    assert again[1] == again[2]
    assert (await ledger.head()).size == 2


async def test_a_draft_that_cannot_be_sealed_takes_its_group_with_it_and_nobody_elses(store: Store) -> None:
    bad = draft(detail="x" * 20_000)
    done = await asyncio.gather(
        store.ledger.append(drafts(2)),
        store.ledger.append([*drafts(2), bad]),
        store.ledger.append(drafts(2)),
        return_exceptions=True,
    )
    assert isinstance(done[1], Invalid)
    assert (await store.ledger.head()).size == 4
    assert (await proven(store)).head.size == 4


async def test_a_change_elsewhere_and_its_entry_are_one_transaction(store: Store) -> None:
    await store.database.write(lambda connection: connection.execute("CREATE TABLE memo (text TEXT) STRICT"))

    def step(connection: apsw.Connection, *, fails: bool = False) -> tuple[Sealed, ...]:
        connection.execute("INSERT INTO memo VALUES ('kept')")
        entries = store.ledger.append_within(connection, [draft()])
        if fails:
            raise LookupError("after both")
        return entries

    (entry,) = await store.database.write(step)
    with pytest.raises(LookupError):
        await store.database.write(lambda connection: step(connection, fails=True))
    assert await store.database.read(lambda connection: connection.execute("SELECT count(*) FROM memo").get) == 1
    assert entry == await store.ledger.get(0)
    assert (await store.ledger.append([draft()]))[0].seq == 1
    assert (await proven(store)).head.size == 2


async def test_after_a_restart_the_chain_goes_on(store: Store) -> None:
    await store.ledger.append(drafts(5))
    head = await store.ledger.head()
    again = await store.reopened()
    assert await again.ledger.head() == head
    assert again.ledger.key == store.ledger.key
    await again.ledger.append(drafts(3))
    assert (await proven(again)).head.size == 8
    await again.close()


# -- what cannot be written --------------------------------------------------------------------------------------------


async def test_on_a_full_disk_appends_are_refused_and_nothing_is_lost(store: Store) -> None:
    await store.ledger.append(drafts(10))

    def fill(connection: apsw.Connection) -> None:
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').get + 2}")

    await store.database.write(fill)
    done = await asyncio.gather(
        *(store.ledger.append([draft(detail="x" * 8000)]) for _ in range(20)), return_exceptions=True
    )
    refused = [one for one in done if isinstance(one, BaseException)]
    for one in refused:
        assert isinstance(one, Unavailable)
        assert one.code == "ledger_unavailable"
        assert "full" in str(one.reason)
        assert str(store.path.parent) in str(one.resolution)
    assert refused
    await store.database.write(lambda connection: connection.execute("PRAGMA max_page_count = 1000000").get)
    await store.ledger.append([draft()])
    head = await store.ledger.head()
    assert head.size == 10 + len(done) - len(refused) + 1
    assert (await proven(store)).head == head


async def test_a_commit_that_fails_fails_all_and_the_ledger_goes_on_from_the_disk(store: Store) -> None:
    await store.ledger.append(drafts(3))
    failing = True
    # A hook that says true refuses the commit, like a disk that does not take it.
    store.database._connection.set_commit_hook(lambda: failing)
    done = await asyncio.gather(*(store.ledger.append([draft()]) for _ in range(5)), return_exceptions=True)
    assert [getattr(one, "code", one) for one in done] == ["ledger_unavailable"] * 5
    assert (await store.ledger.head()).size == 3
    failing = False
    (entry,) = await store.ledger.append([draft()])
    assert entry.seq == 3
    assert (await proven(store)).head.size == 4


WRITER = """
import asyncio, sys
from pathlib import Path
from tests.contracts.test_ledger import Store, draft

async def main():
    store = await Store.open(Path(sys.argv[1]))
    async def work():
        while True:
            (entry,) = await store.ledger.append([draft()])
            print(entry.seq, entry.id, flush=True)
    await asyncio.gather(*(work() for _ in range(16)))

asyncio.run(main())
"""


async def test_after_a_kill_every_acknowledged_entry_is_there_and_the_chain_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "data" / "ledger.db"
    acknowledged: dict[int, str] = {}
    for round_ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
        ) as writer:
            assert writer.stdout is not None
            for _ in range(300):
                number, entry_id = writer.stdout.readline().split()
                acknowledged[int(number)] = entry_id
            os.kill(writer.pid, signal.SIGKILL)
            for line in writer.stdout.read().splitlines():
                number, _, entry_id = line.partition(" ")
                if len(entry_id) == 36:  # the last line may have been cut anywhere
                    acknowledged[int(number)] = entry_id
        store = await Store.open(path)
        for seq, entry_id in acknowledged.items():
            assert (await store.ledger.get(seq)).id == entry_id, (round_, seq)
        assert (await proven(store)).head.size >= len(acknowledged)
        await store.close()


async def test_a_second_writer_is_refused(store: Store) -> None:
    with pytest.raises(Conflict) as refused:
        await Database.open(store.path, MIGRATIONS)
    assert refused.value.code == "store_in_use"
    again = await store.reopened()
    await again.close()


# -- questions ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def mixed(ledger: Ledger) -> tuple[Sealed, ...]:
    """60 entries of three agents, three actions, two outcomes; some on behalf of Eve; times that jump back."""
    return await ledger.append(
        [
            draft(
                at=AT + timedelta(seconds=n - (7 if n % 10 == 0 else 0)),
                agent_id=(ADA, BOB, EVE)[n % 3],
                action=("ToolInvoke", "AgentSpawn", "SecretUse")[n // 3 % 3],
                outcome=(Outcome.SUCCESS, Outcome.DENIED)[n % 2],
                on_behalf_of=EVE if n % 5 == 0 else None,
            )
            for n in range(60)
        ]
    )


FILTERS = [
    EntryFilter(),
    EntryFilter(agents=frozenset()),
    EntryFilter(agents=frozenset({EVE})),
    EntryFilter(agents=frozenset({ADA, EVE})),
    EntryFilter(agents=frozenset({AgentId("00000000-0000-4000-8000-000000000000")})),
    EntryFilter(actions=frozenset({"AgentSpawn"})),
    EntryFilter(actions=frozenset({"AgentSpawn", "ToolInvoke"}), outcomes=frozenset({"denied"})),
    EntryFilter(agents=frozenset({BOB}), actions=frozenset({"SecretUse"}), outcomes=frozenset({"success"})),
    EntryFilter(outcomes=frozenset({"failure"})),
    EntryFilter(since=AT + timedelta(seconds=13), until=AT + timedelta(seconds=33)),
    EntryFilter(since=AT.replace(microsecond=123_000), until=AT.replace(microsecond=123_000)),
    EntryFilter(agents=frozenset({EVE}), since=AT + timedelta(seconds=20)),
    EntryFilter(actions=frozenset({"SecretUse"}), until=AT + timedelta(seconds=20)),
]


def shown(entry: Sealed) -> dict[str, Any]:
    fields: dict[str, Any] = orjson.loads(entry.canonical)
    return fields


def is_wanted(entry: Sealed, wanted: EntryFilter) -> bool:
    fields = shown(entry)
    at = datetime.fromisoformat(fields["timestamp"])
    return (
        (wanted.agents is None or bool(wanted.agents & {fields["agent_id"], fields.get("on_behalf_of")}))
        and (not wanted.actions or fields["action"] in wanted.actions)
        and (not wanted.outcomes or fields["outcome"] in wanted.outcomes)
        and (wanted.since is None or at >= wanted.since)
        and (wanted.until is None or at <= wanted.until)
    )


@pytest.mark.parametrize("wanted", FILTERS, ids=lambda wanted: str(FILTERS.index(wanted)))
async def test_exactly_the_wanted_entries_are_found(
    ledger: Ledger, mixed: tuple[Sealed, ...], wanted: EntryFilter
) -> None:
    expected = [entry for entry in mixed if is_wanted(entry, wanted)]
    assert list(await ledger.newest(wanted, limit=100)) == expected
    assert list(await ledger.newest(wanted, limit=4)) == expected[-4:]
    back: list[Sealed] = []
    position = ""
    while True:
        older = await ledger.before(wanted, PageRequest(limit=4, after=position))
        back = [*older.items, *back]
        if older.after is None:
            break
        position = older.after
    assert back == expected
    found: list[Sealed] = []
    after = ""
    while True:
        page = await ledger.find(wanted, PageRequest(limit=4, after=after))
        found += page.items
        if page.after is None:
            break
        assert page.after == str(page.items[-1].seq)
        after = page.after
    assert found == expected


async def test_a_position_that_is_none_is_refused(ledger: Ledger) -> None:
    for wrong in ("x", "-1", "1" * 30):
        with pytest.raises(Invalid) as refused:
            await ledger.find(ANY, PageRequest(after=wrong))
        assert refused.value.code == "invalid_cursor"


async def test_an_intent_is_open_until_its_outcome_is_there(store: Store) -> None:
    one, two = (draft(kind=Kind.INTENT, outcome=Outcome.PENDING) for _ in range(2))
    await store.ledger.append([one, draft(), two])
    assert [entry.id for entry in await store.ledger.open_intents()] == [one.id, two.id]
    await store.ledger.append([draft(kind=Kind.OUTCOME, intent_id=one.id)])
    again = await store.reopened()
    assert [entry.id for entry in await again.ledger.open_intents()] == [two.id]
    await again.close()


async def test_an_entry_that_is_not_there_is_not_found(ledger: Ledger) -> None:
    for seq in (0, -1, 2**40):
        with pytest.raises(NotFound) as refused:
            await ledger.get(seq)
        assert refused.value.code == "entry_not_found"


# -- checkpoints and proofs --------------------------------------------------------------------------------------------


async def test_a_checkpoint_is_over_all_that_is_on_disk(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.ledger.checkpoint()
    await store.ledger.append(drafts(7))
    signed = await store.ledger.sign_now()
    assert signed == await store.ledger.sign_now() == await store.ledger.checkpoint()
    checkpoint = open_checkpoint(signed.note, store.ledger.key)
    assert (checkpoint.size, checkpoint.root) == (7, (await store.ledger.head()).frontier.root())


async def test_what_was_written_is_signed_soon_without_being_asked_for(ledger: Ledger) -> None:
    await ledger.append(drafts(2))

    async def signed() -> bool:
        try:
            return (await ledger.checkpoint()).size == 2
        except NotFound:
            return False

    await eventually(signed, within_s=SIGN_AFTER_S + 10)


async def test_how_soon_it_is_signed_can_be_chosen(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "ledger.db", MIGRATIONS)
    ledger = await SqlLedger.open(database, sign_after_s=3600)
    await ledger.append([draft()])
    timer = ledger._timer
    assert timer is not None
    assert timer.when() - asyncio.get_running_loop().time() > 3000
    with pytest.raises(NotFound):
        await ledger.checkpoint()
    await ledger.close()  # which signs what is left
    assert (await ledger.checkpoint()).size == 1
    await database.close()


async def test_proofs_can_be_made_from_the_nodes_also_of_dropped_entries(store: Store) -> None:
    entries = await store.ledger.append(drafts(21))
    then = open_checkpoint((await store.ledger.sign_now()).note, store.ledger.key)
    await store.ledger.append(drafts(12))
    now = open_checkpoint((await store.ledger.sign_now()).note, store.ledger.key)
    await store.ledger.retain(before=AT + timedelta(seconds=15), limit=100)
    nodes = {
        (level, place): await store.ledger.node(level, place) for level in range(6) for place in range(33 >> level)
    }
    proof = inclusion_proof(5, 33, lambda level, place: nodes[level, place])
    assert verify_inclusion(leaf=entries[5].leaf, index=5, size=33, proof=proof, root=now.root)
    proof = consistency_proof(21, 33, lambda level, place: nodes[level, place])
    assert verify_consistency(old=21, new=33, old_root=then.root, new_root=now.root, proof=proof)
    with pytest.raises(NotFound):
        await store.ledger.node(1, 16)


# -- export, retention, tampering --------------------------------------------------------------------------------------


async def test_an_export_proves_itself_from_any_entry_on(store: Store) -> None:
    await store.ledger.append(drafts(9))
    for first in (0, 1, 4, 8, 9):
        found = await proven(store, first)
        assert (found.first_seq, found.head.size) == (first, 9)
    with pytest.raises(Invalid):
        await anext(store.ledger.export(first_seq=3, size=10))


async def test_an_empty_ledger_has_an_export_too(store: Store) -> None:
    assert (await proven(store)).head == Head()


async def test_any_changed_byte_of_an_export_is_found(store: Store) -> None:
    await store.ledger.append([draft(detail="é\x00" * 9, data={"n": 1}) for _ in range(5)])
    whole, key = await exported(store.ledger), store.ledger.key

    @given(st.integers(0, len(whole) - 1), st.integers(1, 255))
    @settings(max_examples=400, suppress_health_check=list(HealthCheck), deadline=None)
    def flip(place: int, change: int) -> None:
        spoiled = bytearray(whole)
        spoiled[place] ^= change
        assert isinstance(verify_export(lines_of(bytes(spoiled)), key), Broken), place

    flip()


async def test_retention_drops_the_oldest_and_carries_the_head(store: Store) -> None:
    await store.ledger.append(drafts(20))
    assert await store.ledger.retain(before=AT + timedelta(seconds=12), limit=5) == 5
    assert await store.ledger.retain(before=AT + timedelta(seconds=12), limit=100) == 7
    assert await store.ledger.retain(before=AT + timedelta(seconds=12), limit=100) == 0
    assert len(await store.ledger.newest(EntryFilter(agents=frozenset({ADA})), limit=100)) == 8
    with pytest.raises(NotFound) as refused:
        await store.ledger.get(11)
    assert "retention" in str(refused.value.reason)
    with pytest.raises(NotFound):
        await anext(store.ledger.export(first_seq=11, size=20))
    assert (await proven(store, 12)).head.size == 20
    again = await store.reopened()
    assert await again.ledger.retain(before=AT + timedelta(days=1), limit=100) == 8
    again = await again.reopened()
    assert (await again.ledger.append([draft()]))[0].seq == 20
    assert (await proven(again, 20)).head.size == 21
    await again.close()


ALTERATIONS: list[tuple[str, tuple[Any, ...]]] = [
    ("UPDATE entry SET canonical = CAST(replace(CAST(canonical AS TEXT), 'no. 5', 'no. 9') AS BLOB) WHERE seq = 5", ()),
    ("DELETE FROM entry WHERE seq = 5", ()),
    ("DELETE FROM entry WHERE seq = 9", ()),
    ("DELETE FROM entry WHERE seq = 0", ()),
    ("UPDATE tree SET nodes = zeroblob(32) WHERE seq = 4", ()),
    ("UPDATE tree SET nodes = CAST(substr(nodes, 1, 32) || zeroblob(32) AS BLOB) WHERE seq = 7", ()),
    ("UPDATE chain SET first_seq = 1", ()),
    ("UPDATE checkpoint SET note = replace(note, 'local', 'other')", ()),
]


@pytest.mark.parametrize(("statement", "values"), ALTERATIONS)
async def test_an_altered_ledger_is_not_opened(store: Store, statement: str, values: tuple[Any, ...]) -> None:
    await store.ledger.append(drafts(10))
    await store.close()
    store.alter(statement, values)
    with pytest.raises(Conflict) as refused:
        await Store.open(store.path)
    assert refused.value.code == "ledger_broken"
    assert refused.value.reason
    assert "backup" in str(refused.value.resolution)


async def test_a_cut_off_ledger_is_not_opened(store: Store) -> None:
    await store.ledger.append(drafts(10))
    await store.close()
    for table in ("entry", "tree", "posting"):
        store.alter(f"DELETE FROM {table} WHERE seq >= 8")
    with pytest.raises(Conflict) as refused:
        await Store.open(store.path)
    assert "signed" in str(refused.value.reason)


async def test_the_key_is_private_and_never_made_anew(store: Store) -> None:
    await store.ledger.append(drafts(1))
    await store.close()
    key = store.path.with_suffix(".key")
    text = key.read_text()
    *_, secret = text.strip().split("+", 4)  # base64, in which there may be a plus too
    assert len(secret) > 40
    nonsense = key.with_name("nonsense")
    nonsense.touch(mode=0o600)
    nonsense.write_text("nothing")
    assert key.stat().st_mode & 0o777 == 0o600
    spoil: list[tuple[Callable[[], object], str]] = [
        (key.unlink, "ledger_key_missing"),
        (lambda: nonsense.rename(key), "ledger_key_broken"),
        (lambda: key.chmod(0o644), "store_not_private"),
    ]
    for act, code in spoil:
        act()
        with pytest.raises(Conflict) as refused:
            await Store.open(store.path)
        assert refused.value.code == code
        assert secret not in f"{refused.value!r} {refused.value.reason}"
    key.write_text(text)
    key.chmod(0o600)
    await (await Store.open(store.path)).close()


# -- the feed ----------------------------------------------------------------------------------------------------------


async def test_every_reader_gets_every_entry_in_order_once_it_is_on_disk(ledger: Ledger, feed: LedgerFeed) -> None:
    await ledger.append(drafts(2))
    async with feed.subscribe() as one, feed.subscribe() as two:
        await asyncio.gather(*(ledger.append(drafts(2)) for _ in range(20)))
        for reader in (one, two):
            got = [await anext(reader) for _ in range(40)]
            assert [entry.seq for entry in got] == list(range(2, 42))
            assert got[-1] == await ledger.get(41)


async def test_a_slow_reader_is_cut_off_and_harms_nobody(ledger: Ledger, feed: LedgerFeed) -> None:
    async with feed.subscribe(capacity=10) as slow, feed.subscribe() as quick:
        await ledger.append(drafts(6))
        await ledger.append(drafts(6))
        assert [entry async for entry in slow] == []
        assert [(await anext(quick)).seq for _ in range(12)] == list(range(12))


async def test_readers_end_when_the_ledger_is_closed(store: Store) -> None:
    async with store.ledger.feed.subscribe() as reader:
        ending = asyncio.ensure_future(anext(reader, None))
        await store.close()
        assert await ending is None


async def test_a_closed_ledger_refuses(store: Store) -> None:
    await store.close()
    with pytest.raises(BoroughError) as refused:
        await store.ledger.append([draft()])
    assert refused.value.code == "ledger_unavailable"
