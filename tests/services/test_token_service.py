"""Keys, tickets, failed logins and counted reads."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from borough.core.clock import utc_now
from borough.core.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from borough.core.ids import new_id
from borough.governance.ledger import Via
from borough.governance.services.asking import Asker
from borough.governance.services.logins import MOST_ADDRESSES
from borough.governance.services.tallies import Tally
from borough.governance.tokens import Role, TokenScope, token_sha256
from tests.services.records_house import Records, as_agent, operator, told

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


async def asking(records: Records, token: str) -> Asker:
    caller = await records.tokens.authenticate(token)
    return Asker(caller=caller, via=Via.HTTP, request_id=new_id(), operation_key=new_id())


async def test_a_key_is_shown_once_and_speaks_for_its_agent(records: Records, tmp_path: Path) -> None:
    agent = await records.agent()
    made = await records.tokens.create(operator(), name="ci", agent_id=agent.id)
    assert made.warning is None
    assert len(made.token) == 64
    caller = await records.tokens.authenticate(made.token)
    assert (caller.token_name, caller.agent_id, caller.role) == ("ci", agent.id, Role.OPERATOR)
    assert [key.name for key in await records.tokens.all(operator())] == ["ci"]
    assert made.token not in repr(made)
    files = b"".join(each.read_bytes() for each in tmp_path.iterdir() if each.is_file())
    assert made.token.encode() not in files
    assert token_sha256(made.token).encode() in files
    entries = await records.entries("ApiKeyCreate")
    assert told(entries, "kind", "outcome", "via") == [("intent", "pending", "ipc"), ("outcome", "success", "ipc")]


async def test_a_key_may_be_made_before_its_agent(records: Records) -> None:
    made = await records.tokens.create(operator(), name="ci", agent_id=new_id())
    assert made.warning is not None
    with pytest.raises(Conflict) as taken:
        await records.tokens.create(operator(), name="ci", agent_id=new_id())
    assert taken.value.code == "token_exists"
    with pytest.raises(Invalid):
        await records.tokens.create(operator(), name="two words", agent_id=new_id())


@pytest.mark.parametrize("token", ["", "f" * 64, "F" * 64, "f" * 63, "é" * 64])
async def test_other_tokens_are_nobodys(records: Records, token: str) -> None:
    with pytest.raises(Forbidden) as refused:
        await records.tokens.authenticate(token)
    assert refused.value.code == "invalid_credentials"


async def test_revocation_holds_at_once_and_for_good(records: Records) -> None:
    token = await records.key(await records.agent())
    await records.tokens.revoke(operator(), "ci")
    with pytest.raises(Forbidden):
        await records.tokens.authenticate(token)
    assert await records.tokens.all(operator()) == ()
    with pytest.raises(NotFound):
        await records.tokens.revoke(operator(), "ci")
    with pytest.raises(NotFound):
        await records.tokens.rotate(operator(), "other", overlap=timedelta(0))


async def test_rotation_may_overlap(records: Records) -> None:
    agent = await records.agent()
    old = await records.key(agent)
    new = (await records.tokens.rotate(operator(), "ci", overlap=timedelta(hours=1))).token
    for token in (old, new):
        assert (await records.tokens.authenticate(token)).agent_id == agent.id
    newest = (await records.tokens.rotate(operator(), "ci", overlap=timedelta(0))).token
    assert (await records.tokens.authenticate(newest)).agent_id == agent.id
    for token in (old, new):
        with pytest.raises(Forbidden):
            await records.tokens.authenticate(token)


async def test_keys_expire(records: Records) -> None:
    token = await records.key(await records.agent(), expires_at=utc_now() + timedelta(milliseconds=200))
    watched = asyncio.ensure_future(records.tokens.ended(await asking(records, token)))
    async with asyncio.timeout(60):
        await watched
    with pytest.raises(Forbidden):
        await records.tokens.authenticate(token)


async def test_a_key_cannot_hand_on_more_than_it_has(records: Records) -> None:
    agent = await records.agent()
    narrow = frozenset({TokenScope.TOKENS_MANAGE, TokenScope.AUDIT_READ})
    bound = await asking(records, await records.key(agent, scopes=narrow))
    made = await records.tokens.create(bound, name="second", agent_id=agent.id)
    assert made.stored.scopes == narrow
    with pytest.raises(Forbidden) as refused:
        await records.tokens.create(bound, name="third", agent_id=agent.id, scopes=[TokenScope.SECRETS_MANAGE])
    assert refused.value.code == "scope_escalation"
    await records.key(agent, name="strong")
    with pytest.raises(Forbidden):
        await records.tokens.rotate(bound, "strong", overlap=timedelta(0))
    with pytest.raises(Forbidden):
        await records.tokens.create(as_agent(agent), name="fourth", agent_id=agent.id)


async def test_open_streams_are_told_when_their_key_is_revoked(records: Records) -> None:
    agent = await records.agent()
    revoked = asyncio.ensure_future(records.tokens.ended(await asking(records, await records.key(agent))))
    rotated = asyncio.ensure_future(records.tokens.ended(await asking(records, await records.key(agent, "second"))))
    other = asyncio.ensure_future(records.tokens.ended(await asking(records, await records.key(agent, "third"))))
    person = asyncio.ensure_future(records.tokens.ended(operator()))
    await asyncio.sleep(0)
    await records.tokens.revoke(operator(), "ci")
    await records.tokens.rotate(operator(), "second", overlap=timedelta(0))
    async with asyncio.timeout(60):
        await asyncio.gather(revoked, rotated)
    assert not other.done()
    assert not person.done()
    for task in (other, person):
        task.cancel()
    await asyncio.gather(other, person, return_exceptions=True)


async def test_a_ticket_opens_one_stream_once(records: Records) -> None:
    asker = await asking(records, await records.key(await records.agent()))
    word = (await records.tokens.new_ticket(asker)).word
    assert await records.tokens.take_ticket(word) == asker.caller
    assert await records.tokens.take_ticket(word) is None
    second = (await records.tokens.new_ticket(asker)).word
    await records.tokens.revoke(operator(), "ci")
    assert await records.tokens.take_ticket(second) is None
    assert await records.tokens.take_ticket("word") is None
    unbound = (await records.tokens.new_ticket(operator())).word
    assert await records.tokens.take_ticket(unbound) == operator().caller


async def test_failed_logins_are_recorded_once_and_then_in_sum(records: Records) -> None:
    now = utc_now()
    for _ in range(1000):
        records.logins.failed("192.0.2.1", "token")
    assert await records.logins.flush(at=now) == 1
    for _ in range(500):
        records.logins.failed("192.0.2.1", "token")
    assert await records.logins.flush(at=now) == 0
    assert await records.logins.flush(at=now + timedelta(minutes=2)) == 1
    entries = await records.entries("AuthFailure")
    assert [entry["data"]["count"] for entry in entries] == [1000, 500]
    assert told(entries, "outcome", "agent_name", "via") == [("denied", "", "http")] * 2


async def test_no_number_of_addresses_fills_the_ledger(records: Records) -> None:
    for number in range(5000):
        records.logins.failed(f"2001:db8::{number:x}", "token")
    recorded = await records.logins.flush(everything=True)
    assert recorded <= 2 * (MOST_ADDRESSES + 1)  # a minute may have ended meanwhile
    counts = [entry["data"]["count"] for entry in await records.entries("AuthFailure")]
    assert sum(counts) == 5000


async def test_reads_are_recorded_in_sum_by_principal_and_route(records: Records) -> None:
    agent = await records.agent()
    me = as_agent(agent, via=Via.HTTP)
    for _ in range(3):
        records.reads.note(me, "/agents")
    records.reads.note(me, "/audit")
    records.reads.note(operator(), "/agents")
    assert await records.reads.flush(at=utc_now() + timedelta(minutes=2)) >= 3
    entries = await records.entries("ReadsAggregated")
    counted: dict[tuple[str, str], int] = {}
    for entry in entries:
        who = (entry["token_name"], entry["data"]["route"])
        counted[who] = counted.get(who, 0) + entry["data"]["count"]
    assert counted == {("key", "/agents"): 3, ("key", "/audit"): 1, ("operator", "/agents"): 1}
    assert await records.reads.flush(everything=True) == 0


async def test_what_could_not_be_recorded_is_kept(records: Records) -> None:
    records.reads.note(operator(), "/agents")
    records.logins.failed("192.0.2.1", "token")
    await records.ledger_database.close()
    for service in (records.reads, records.logins):
        with pytest.raises(Unavailable):
            await service.flush(everything=True)
        with pytest.raises(Unavailable):
            await service.flush(everything=True)


def test_a_tally_counts_each_exactly_once() -> None:
    tally: Tally[str] = Tally(most_keys=2)
    for key in "aabcd":
        tally.add(key, at=NOON)
    assert tally.take(at=NOON + timedelta(seconds=59)) == []
    due = tally.take(at=NOON + timedelta(seconds=60))
    assert [(each.key, each.count) for each in due] == [("a", 2), ("b", 1), (None, 2)]
    assert tally.take(at=NOON + timedelta(hours=1)) == []
    tally.give_back(due[0])
    assert [(each.key, each.count) for each in tally.take(at=NOON, everything=True)] == [("a", 2)]
