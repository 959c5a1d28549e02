"""Memory as a use case: who may, what is kept, what is recorded."""

import pytest

from borough.core.errors import Conflict, Forbidden, Invalid, NotFound
from borough.core.ids import AgentId, new_id
from borough.core.paging import PageRequest
from borough.governance.services.memory import NewValue
from borough.governance.tokens import Role
from tests.services.records_house import Records, as_agent, operator, told

pytestmark = pytest.mark.anyio


async def test_what_is_written_is_read_and_recorded(records: Records) -> None:
    agent = await records.agent("memory.read:**", "memory.write:**")
    me = as_agent(agent)
    first = await records.memory.write(me, agent.id, "state/last", NewValue(value='{"n": 1}'))
    second = await records.memory.write(me, agent.id, "state/last", NewValue(value="[2]", ttl_s=60))
    assert (first.version, second.version) == (1, 2)
    found = await records.memory.read(me, agent.id, "state/last")
    assert (found.value, found.version) == ("[2]", 2)
    assert found.expires_at is not None
    entries = await records.entries("MemoryAccess")
    assert (
        told(entries, "kind", "outcome", "detail")
        == [
            ("intent", "pending", "write state/last"),
            ("outcome", "success", "write state/last"),
        ]
        * 2
    )
    assert entries[-1]["data"] == {"key": "state/last", "bytes": 3, "version": 2}
    assert all("agent_name" in entry and entry["agent_name"] == "reader" for entry in entries)


async def test_memory_belongs_to_the_name_and_outlives_the_id(records: Records) -> None:
    before = await records.agent("memory.read:**", "memory.write:**")
    await records.memory.write(as_agent(before), before.id, "k", NewValue(value="1"))
    await records.end(before)
    after = await records.agent("memory.read:**")
    assert (await records.memory.read(as_agent(after), after.id, "k")).value == "1"
    # And whoever may, still reads it by the id that has ended.
    assert (await records.memory.read(operator(), before.id, "k")).value == "1"


async def test_a_write_on_the_wrong_version_changes_nothing_and_tells_the_version_only(records: Records) -> None:
    agent = await records.agent("memory.write:**")
    me = as_agent(agent)
    await records.memory.write(me, agent.id, "k", NewValue(value='"first"', expected_version=0))
    with pytest.raises(Conflict) as refused:
        await records.memory.write(me, agent.id, "k", NewValue(value='"second"', expected_version=0))
    assert refused.value.code == "version_mismatch"
    assert refused.value.details["version"] == 1
    assert "value" not in refused.value.details
    assert (await records.memory.read(operator(), agent.id, "k")).value == '"first"'
    assert (await records.entries("MemoryAccess"))[-1]["outcome"] == "failure"


async def test_deleting_takes_what_is_there(records: Records) -> None:
    agent = await records.agent("memory.read:**", "memory.write:**")
    me = as_agent(agent)
    await records.memory.write(me, agent.id, "k", NewValue(value="1"))
    with pytest.raises(Conflict):
        await records.memory.delete(me, agent.id, "k", expected_version=2)
    await records.memory.delete(me, agent.id, "k", expected_version=1)
    with pytest.raises(NotFound) as gone:
        await records.memory.read(me, agent.id, "k")
    assert gone.value.code == "key_not_found"
    with pytest.raises(NotFound):
        await records.memory.delete(me, agent.id, "k")
    with pytest.raises(NotFound) as nobody:
        await records.memory.read(me, AgentId(new_id()), "k")
    assert nobody.value.code == "agent_not_found"


async def test_capabilities_are_the_callers_and_refusals_are_recorded(records: Records) -> None:
    agent = await records.agent("memory.read:state/*")
    with pytest.raises(Forbidden):
        await records.memory.write(as_agent(agent), agent.id, "state/a", NewValue(value="1"))
    with pytest.raises(Forbidden):
        await records.memory.read(as_agent(agent), agent.id, "other")
    denied = await records.entries("AccessDenied")
    assert told(denied, "outcome", "detail") == [("denied", "write_memory state/a"), ("denied", "read_memory other")]
    assert await records.entries("MemoryAccess") == []


async def test_an_agent_reaches_its_children_only(records: Records) -> None:
    parent = await records.agent("memory.read:**", name="parent")
    child = await records.agent("memory.write:**", name="child", parent=parent.id)
    other = await records.agent("memory.write:**", name="other")
    for each in (child, other):
        await records.memory.write(as_agent(each), each.id, "k", NewValue(value="1"))
    assert (await records.memory.read(as_agent(parent), child.id, "k")).version == 1
    with pytest.raises(Forbidden) as refused:
        await records.memory.read(as_agent(parent), other.id, "k")
    assert refused.value.code == "not_related"
    # An operator's key that is bound to the agent reaches all of them.
    assert (await records.memory.read(as_agent(parent, Role.OPERATOR), other.id, "k")).version == 1


async def test_keys_are_listed_as_far_as_they_match_and_may_be_read(records: Records) -> None:
    agent = await records.agent("memory.read:state/**", "memory.write:**")
    me = as_agent(agent)
    for key in ("a", "state/a", "state/b", "state/c/d", "zero"):
        await records.memory.write(me, agent.id, key, NewValue(value="1"))
    everything = await records.memory.keys(me, agent.id, None, PageRequest())
    assert everything.items == ("state/a", "state/b", "state/c/d")
    assert (await records.memory.keys(me, agent.id, "state/*", PageRequest())).items == ("state/a", "state/b")
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await records.memory.keys(operator(), agent.id, None, PageRequest(limit=2, after=after))
        seen += page.items
        after = page.after
    assert seen == ["a", "state/a", "state/b", "state/c/d", "zero"]


async def test_secrets_are_not_kept(records: Records) -> None:
    agent = await records.agent("memory.read:**", "memory.write:**")
    records.scrubber.know({"github": "ghp-1234567890"})
    entry = await records.memory.write(
        as_agent(agent), agent.id, "k", NewValue(value='{"token":"ghp-1234567890","n":1.5}')
    )
    assert entry.value == '{"token":"[REDACTED:github]","n":1.5}'
    assert b"ghp-1234567890" not in records.house.bytes_on_disk()


@pytest.mark.parametrize(
    ("key", "value", "code"), [("a*", "1", "invalid_key"), ("k", f'"{"x" * 1_048_576}"', "value_too_long")]
)
async def test_what_cannot_be_kept_is_refused(records: Records, key: str, value: str, code: str) -> None:
    agent = await records.agent("memory.write:**")
    with pytest.raises(Invalid) as refused:
        await records.memory.write(operator(), agent.id, key, NewValue(value=value))
    assert refused.value.code == code
