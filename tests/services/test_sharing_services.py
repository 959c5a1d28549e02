"""Observations, the blackboard and the bus as use cases."""

from datetime import timedelta

import pytest

from borough.core.clock import utc_now
from borough.core.errors import Conflict, Forbidden, Invalid, NotFound
from borough.core.paging import PageRequest
from borough.governance.messages import BusMessage
from borough.governance.observations import NewObservation, ObservationFilter, first_broken
from borough.governance.services.blackboard import Swap
from borough.governance.services.memory import NewValue
from borough.governance.tokens import Role
from tests.services.records_house import Records, as_agent, operator, told

pytestmark = pytest.mark.anyio


async def test_observations_are_bound_found_and_recorded(records: Records) -> None:
    agent = await records.agent("obs.append", "obs.query")
    me = as_agent(agent)
    for number in range(3):
        new = NewObservation(action=f"step {number}", result="fine", tags=("odd",) if number % 2 else (), metadata=None)
        await records.observations.append(as_agent(agent), agent.id, new)
    found = await records.observations.find(me, agent.id, ObservationFilter())
    assert [each.action for each in found] == ["step 0", "step 1", "step 2"]
    assert first_broken(found) is None
    tagged = await records.observations.find(me, agent.id, ObservationFilter(tag="odd"))
    assert [each.action for each in tagged] == ["step 1"]
    later = ObservationFilter(since=utc_now() + timedelta(minutes=1))
    assert await records.observations.find(me, agent.id, later) == ()
    entries = await records.entries("ObservationAppend")
    assert told(entries, "kind", "detail")[-1] == ("outcome", "step 2")
    assert entries[-1]["data"]["hash"] == found[-1].hash


async def test_a_repeated_request_appends_once(records: Records) -> None:
    agent = await records.agent("obs.append")
    me = as_agent(agent)
    first = await records.observations.append(me, agent.id, NewObservation(action="a", result=""))
    again = await records.observations.append(me, agent.id, NewObservation(action="a", result=""))
    assert first == again


async def test_observations_hold_no_secrets(records: Records) -> None:
    agent = await records.agent("obs.append")
    records.scrubber.know({"github": "ghp-1234567890"})
    said = NewObservation(action="used ghp-1234567890", result="", metadata={"ghp-1234567890": ["ghp-1234567890"]})
    kept = await records.observations.append(as_agent(agent), agent.id, said)
    assert kept.action == "used [REDACTED:github]"
    assert kept.metadata == {"[REDACTED:github]": ["[REDACTED:github]"]}


async def test_observations_of_others_take_a_relation(records: Records) -> None:
    parent = await records.agent("obs.query", name="parent")
    child = await records.agent("obs.append", name="child", parent=parent.id)
    other = await records.agent("obs.append", name="other")
    for each in (child, other):
        await records.observations.append(as_agent(each), each.id, NewObservation(action="a", result=""))
    assert len(await records.observations.find(as_agent(parent), child.id, ObservationFilter())) == 1
    with pytest.raises(Forbidden):
        await records.observations.find(as_agent(parent), other.id, ObservationFilter())
    with pytest.raises(Forbidden):
        await records.observations.find(as_agent(child), child.id, ObservationFilter())
    assert len(await records.observations.find(as_agent(parent, Role.OPERATOR), other.id, ObservationFilter())) == 1
    with pytest.raises(Invalid):
        await records.observations.append(as_agent(child), child.id, NewObservation(action="", result=""))


async def test_the_blackboard_is_shared_by_those_who_may(records: Records) -> None:
    writer = await records.agent("bb.write:status/*", name="writer")
    reader = await records.agent("bb.read", name="reader")
    await records.blackboard.write(as_agent(writer), "status/a", NewValue(value="1"))
    assert (await records.blackboard.read(as_agent(reader), "status/a")).value == "1"
    for refused in (
        records.blackboard.write(as_agent(writer), "other", NewValue(value="1")),
        records.blackboard.read(as_agent(writer), "status/a"),
        records.blackboard.write(as_agent(reader), "status/a", NewValue(value="2")),
        records.blackboard.delete(as_agent(reader), "status/a"),
    ):
        with pytest.raises(Forbidden):
            await refused
    assert (await records.blackboard.keys(as_agent(reader), None, PageRequest())).items == ("status/a",)
    assert (await records.blackboard.keys(as_agent(writer), None, PageRequest())).items == ()
    await records.blackboard.delete(as_agent(writer), "status/a")
    await records.blackboard.delete(as_agent(writer), "status/a")
    with pytest.raises(NotFound):
        await records.blackboard.read(as_agent(reader), "status/a")
    details = [entry["detail"] for entry in await records.entries("BlackboardAccess") if entry["kind"] == "outcome"]
    assert details == ["write status/a", "delete status/a", "delete status/a"]


async def test_a_swap_takes_the_expected_value(records: Records) -> None:
    writer = await records.agent("bb.write", name="writer")
    both = await records.agent("bb.write", "bb.read", name="both")
    held = await records.blackboard.swap(as_agent(writer), "lock", Swap(expected=None, new='{"by": "a"}'))
    assert held is not None
    for asker, told_value in ((as_agent(writer), False), (as_agent(both), True)):
        with pytest.raises(Conflict) as taken:
            await records.blackboard.swap(asker, "lock", Swap(expected=None, new='"b"'))
        assert taken.value.code == "value_mismatch"
        assert ("value" in taken.value.details) is told_value
    assert await records.blackboard.swap(as_agent(writer), "lock", Swap(expected={"by": "a"}, new=None)) is None
    assert (await records.blackboard.keys(operator(), None, PageRequest())).items == ()


async def test_messages_reach_those_who_listen(records: Records) -> None:
    author = await records.agent("bus.publish:build.*", name="author")
    listener = await records.agent("bus.subscribe:build.**", name="listener")
    await records.bus.subscribe(as_agent(listener), listener.id, "build.*")
    assert await records.bus.subscriptions(as_agent(listener), listener.id) == ("build.*",)
    assert await records.bus.publish(as_agent(author), "build.done", '{"ok": true}') == 1
    mail = await records.bus.poll(as_agent(listener), listener.id)
    assert [(each.topic, each.payload, each.from_agent_id) for each in mail.messages] == [
        ("build.done", '{"ok": true}', author.id)
    ]
    assert (await records.bus.poll(as_agent(listener), listener.id)).messages == ()
    assert await records.bus.unsubscribe(as_agent(listener), listener.id, "build.*")
    assert await records.bus.publish(as_agent(author), "build.done", "1") == 0
    entries = [entry for entry in await records.entries("BusPublish") if entry["kind"] == "outcome"]
    assert [entry["data"]["mailboxes"] for entry in entries] == [1, 0]


async def test_the_bus_takes_the_capabilities_of_both(records: Records) -> None:
    silent = await records.agent(name="silent")
    author = await records.agent("bus.publish", name="author")
    with pytest.raises(Forbidden):
        await records.bus.publish(as_agent(silent), "build.done", "1")
    with pytest.raises(Forbidden):
        await records.bus.publish(operator(), "build.done", "1", agent_id=silent.id)
    assert await records.bus.publish(operator(), "build.done", "1", agent_id=author.id) == 0
    with pytest.raises(Forbidden) as reserved:
        await records.bus.publish(as_agent(author), "scarab.escalation.x", "1")
    assert reserved.value.code == "reserved_topic"
    with pytest.raises(Invalid):
        await records.bus.publish(operator(), "a*", "1")
    with pytest.raises(Forbidden):
        await records.bus.subscribe(as_agent(author), author.id, "**")
    with pytest.raises(Forbidden):
        await records.bus.poll(as_agent(author), silent.id)


async def test_a_wide_pattern_hears_no_more_than_its_agent_may(records: Records) -> None:
    listener = await records.agent("bus.subscribe:build.*", name="listener")
    # As text the pattern matches the scope, but it reaches deeper.
    await records.bus.subscribe(as_agent(listener), listener.id, "build.**")
    await records.bus.publish(operator(), "build.a", "1")
    await records.bus.publish(operator(), "build.a.secret", "2")
    for topic in (f"scarab.escalation.{listener.id}", "scarab.escalation.another"):
        await records.bus_store.subscribe(listener.id, topic)
        await records.bus_store.publish(BusMessage(topic=topic, payload="3", published_at=utc_now()))
    mail = await records.bus.poll(as_agent(listener), listener.id)
    assert [each.topic for each in mail.messages] == ["build.a", f"scarab.escalation.{listener.id}"]
    (entry,) = await records.entries("BusPoll")
    assert entry["data"] == {"messages": 2, "withheld": 2}
