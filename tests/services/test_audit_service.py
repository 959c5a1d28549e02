"""Reading and proving the ledger."""

from datetime import timedelta

import orjson
import pytest

from borough.core.clock import utc_now
from borough.core.errors import Forbidden, Invalid, NotFound
from borough.core.ids import AgentId, new_id
from borough.core.paging import PageRequest
from borough.governance.actions import Action
from borough.governance.checkpoints import open_checkpoint, parse_verifier_key
from borough.governance.ledger import Outcome
from borough.governance.merkle import leaf_hash, verify_consistency, verify_inclusion
from borough.governance.ports.ledger import EntryFilter
from borough.governance.tokens import Role
from borough.governance.trust import TrustLevel
from borough.governance.verification import Broken, Proven, verify_export
from tests.services.records_house import Records, as_agent, operator

pytestmark = pytest.mark.anyio
ALL = EntryFilter()


async def some_entries(records: Records, count: int) -> None:
    for number in range(count):
        await records.recorder.event(operator(), Action.DAEMON_START, detail=str(number))


async def test_a_trail_is_what_an_agent_did_and_what_was_done_for_it(records: Records) -> None:
    mine, other = await records.agent(name="mine"), await records.agent(name="other")
    await records.recorder.event(as_agent(mine), Action.TOOL_INVOKE, detail="1")
    await records.recorder.event(as_agent(other), Action.TOOL_INVOKE, detail="2")
    await records.recorder.event(as_agent(other), Action.TOOL_INVOKE, detail="3", target=mine)
    await records.recorder.event(as_agent(mine), Action.TOOL_INVOKE, detail="4", outcome=Outcome.DENIED)
    found = await records.audit.trail(operator(), mine.id, ALL)
    assert [orjson.loads(each.canonical)["detail"] for each in found] == ["1", "3", "4"]
    newest = await records.audit.trail(operator(), mine.id, ALL, limit=2)
    assert [orjson.loads(each.canonical)["detail"] for each in newest] == ["3", "4"]
    denied = await records.audit.trail(operator(), mine.id, EntryFilter(outcomes=frozenset({"denied"})))
    assert [each.seq for each in denied] == [3]


async def test_trails_outlive_the_register(records: Records) -> None:
    agent, other = await records.agent(), await records.agent(name="other")
    await records.recorder.event(as_agent(agent), Action.TOOL_INVOKE)
    await records.end(agent)
    assert len(await records.audit.trail(operator(), agent.id, ALL)) == 1
    await records.house.stores.agents.forget(ended_before=utc_now() + timedelta(seconds=1))
    assert len(await records.audit.trail(operator(), agent.id, ALL)) == 1
    for asker, agent_id in ((operator(), AgentId(new_id())), (as_agent(other), agent.id)):
        with pytest.raises(NotFound):
            await records.audit.trail(asker, agent_id, ALL)


async def test_a_narrow_caller_sees_itself_its_descendants_and_whom_it_may_audit(records: Records) -> None:
    parent = await records.agent("audit.read:fri*", name="parent", trust=TrustLevel.PRIVILEGED)
    child = await records.agent(name="child", parent=parent.id)
    friend, other = await records.agent(name="friend"), await records.agent(name="other")
    for each in (parent, child, friend, other):
        await records.recorder.event(as_agent(each), Action.TOOL_INVOKE, detail=each.name)
    await records.recorder.event(operator(), Action.DAEMON_START, detail="operator")
    found = await records.audit.find(as_agent(parent), ALL, PageRequest())
    assert [orjson.loads(each.canonical)["detail"] for each in found.items] == ["parent", "child", "friend"]
    wanted = EntryFilter(agents=frozenset({other.id, child.id}))
    only = await records.audit.before(as_agent(parent), wanted, PageRequest(limit=10))
    assert [orjson.loads(each.canonical)["detail"] for each in only.items] == ["child"]
    with pytest.raises(Forbidden):
        await records.audit.trail(as_agent(parent), other.id, ALL)
    everything = await records.audit.find(as_agent(parent, Role.OPERATOR), ALL, PageRequest())
    assert len(everything.items) == 6  # the refusal is one of them


async def test_an_export_proves_itself(records: Records) -> None:
    await some_entries(records, 7)
    for first in (None, 3):
        made = await records.audit.export(operator(), first_seq=first)
        whole = b"".join([line async for line in made.lines])
        proven = verify_export(whole.splitlines(keepends=True), records.ledger.key)
        assert isinstance(proven, Proven)
        assert (proven.first_seq, proven.head.size) == (first or 0, 7)
        broken = verify_export(whole.replace(b'"detail":"4"', b'"detail":"5"').splitlines(keepends=True), None)
        assert isinstance(broken, Broken)
        assert broken.seq == 4
    with pytest.raises(NotFound):
        await records.audit.export(operator(), first_seq=99)
    agent = await records.agent("audit.read:*", trust=TrustLevel.PRIVILEGED)
    with pytest.raises(Forbidden):
        await records.audit.export(as_agent(agent), first_seq=None)


async def test_an_empty_ledger_is_exported_too(records: Records) -> None:
    made = await records.audit.export(operator(), first_seq=None)
    whole = b"".join([line async for line in made.lines])
    assert isinstance(verify_export(whole.splitlines(keepends=True), records.ledger.key), Proven)


async def test_every_entry_is_proven_to_be_there(records: Records) -> None:
    await some_entries(records, 6)
    key = parse_verifier_key(await records.proofs.key(operator()))
    for seq in range(6):
        found = await records.proofs.inclusion(operator(), seq)
        signed = open_checkpoint(found.checkpoint.note, key)
        entry = await records.ledger.get(seq)
        assert found.leaf == leaf_hash(entry.canonical)
        assert verify_inclusion(leaf=found.leaf, index=seq, size=signed.size, proof=found.hashes, root=signed.root)
    with pytest.raises(NotFound):
        await records.proofs.inclusion(operator(), 6)


async def test_the_ledger_is_proven_to_have_only_grown(records: Records) -> None:
    await some_entries(records, 5)
    old = await records.proofs.checkpoint(operator())
    await some_entries(records, 6)
    found = await records.proofs.consistency(operator(), old.size, None)
    key = parse_verifier_key(await records.proofs.key(operator()))
    assert found.old_root == open_checkpoint(old.note, key).root
    assert verify_consistency(
        old=found.old, new=found.new, old_root=found.old_root, new_root=found.new_root, proof=found.hashes
    )
    for sizes in ((5, 4), (5, 99), (12, None)):
        with pytest.raises(Invalid):
            await records.proofs.consistency(operator(), *sizes)


async def test_a_check_goes_on_where_it_stopped(records: Records) -> None:
    await some_entries(records, 11)
    seen, first = 0, 0
    while True:
        found = await records.proofs.check(operator(), first_seq=first, limit=4)
        assert found.broken is None
        seen += found.entries
        if found.next_seq is None:
            break
        first = found.next_seq
    assert seen == 11
    assert found.head == (await records.ledger.head()).hash
    assert (await records.proofs.check(operator(), first_seq=99, limit=4)).entries == 0


@pytest.mark.parametrize("place", [0, 3, 6])
async def test_a_check_finds_what_was_altered(records: Records, place: int) -> None:
    await some_entries(records, 7)
    alter = "UPDATE entry SET canonical = CAST(replace(CAST(canonical AS TEXT), ?, ?) AS BLOB) WHERE seq = ?"
    values = ("DaemonStart", "DaemonStarT", place)
    await records.ledger_database.write(lambda connection: list(connection.execute(alter, values)))
    found = await records.proofs.check(operator(), first_seq=0, limit=100)
    assert found.broken is not None
    assert found.broken.seq == place
    assert found.entries == place
