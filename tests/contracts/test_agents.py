"""What the port ``Agents`` promises, on every server."""

from datetime import timedelta

import pytest

from borough.core.errors import Conflict, NotFound
from borough.core.ids import AgentId, new_id
from borough.town.agents import AgentState, NewAgent
from borough.town.tasks import TaskState
from tests.conftest import eventually
from tests.contracts.conftest import Town
from tests.contracts.kit import (
    AT_ONCE,
    FIRST,
    LATER,
    LEASE,
    PROCESS,
    Worker,
    add_agent,
    assign,
    events_of,
    everything,
    hire,
    new_message,
    queue,
)

pytestmark = pytest.mark.anyio


def new_agent(name: str = "ada", **about: object) -> NewAgent:
    return NewAgent(**{"id": AgentId(new_id()), "name": name, "cli": "claude", **about})


async def test_a_new_agent_is_starting(town: Town) -> None:
    parent = await add_agent(town, "parent")
    new = new_agent(role_id="docs", nickname="Adele", parent_agent_id=parent)
    agent = await town.agents.add(new, max_agents=10)
    assert (agent.id, agent.name, agent.cli, agent.role_id, agent.nickname) == (
        new.id,
        "ada",
        "claude",
        "docs",
        "Adele",
    )
    assert (agent.parent_agent_id, agent.state, agent.incarnation) == (parent, AgentState.STARTING, 1)
    assert (agent.spawn_mode, agent.lease_expires_at, agent.process) == ("fresh", None, None)
    assert agent.created_at == agent.last_heartbeat == agent.last_active_at == agent.state_since
    assert await town.agents.get("ada") == agent
    assert [entry.event for entry in await town.agents.history("ada")] == ["agent_spawned"]


async def test_adding_the_same_agent_twice_changes_nothing(town: Town) -> None:
    new = new_agent()
    agent = await town.agents.add(new, max_agents=1)
    before = await everything(town)
    assert await town.agents.add(new, max_agents=1) == agent
    assert await everything(town) == before


async def test_names_are_taken_once_and_the_town_has_a_limit(town: Town) -> None:
    await add_agent(town, "ada")
    before = await everything(town)
    with pytest.raises(Conflict) as taken:
        await town.agents.add(new_agent(), max_agents=10)
    with pytest.raises(Conflict) as full:
        await town.agents.add(new_agent("bob"), max_agents=1)
    with pytest.raises(NotFound) as orphan:
        await town.agents.add(new_agent("bob", parent_agent_id=AgentId(new_id())), max_agents=9)
    codes = (taken.value.code, full.value.code, orphan.value.code)
    assert codes == ("agent_exists", "town_full", "parent_not_found")
    assert await everything(town) == before
    await town.agents.add(new_agent("bob"), max_agents=1, at_most=False)
    await town.agents.kill("ada", reason="x")
    # Whoever was added whatever the limit says does not count for it.
    assert (await town.agents.add(new_agent("eve"), max_agents=1)).name == "eve"


async def test_an_ended_agent_is_adopted_with_its_inbox(town: Town) -> None:
    ada = await hire(town, "ada", role_id="docs")
    await assign(town, "ada")
    with pytest.raises(Conflict):
        await town.agents.add(new_agent(adopt=True), max_agents=9)
    await town.agents.kill("ada", reason="x")
    with pytest.raises(Conflict):
        await town.agents.add(new_agent(), max_agents=9)
    adoption = new_agent(adopt=True)
    adopted = await town.agents.add(adoption, max_agents=1)
    assert (adopted.id, adopted.incarnation, adopted.state) == (ada.id, 3, AgentState.STARTING)
    assert (adopted.role_id, adopted.process, adopted.inbox_len) == (None, None, 1)
    assert await town.agents.add(adoption, max_agents=1) == adopted
    await town.leases.start(ada.id, incarnation=3, process=PROCESS, lease=LEASE)
    assert (await Worker(town, ada.id, "ada", incarnation=3).must_take()).attempts == 1


async def test_references_of_every_kind_are_understood(town: Town) -> None:
    agent_id = await add_agent(town, "ada", nickname="Countess", role_id="math")
    for reference in (
        agent_id,
        agent_id.upper(),
        agent_id.replace("-", ""),
        "{" + agent_id + "}",
        f"urn:uuid:{agent_id}",
        "ada",
        " ADA ",
        "countess",
        "Countess [math]",
        agent_id[:4],
    ):
        assert (await town.agents.get(reference)).id == agent_id, reference


async def test_an_agent_without_a_role_is_labelled_by_its_name(town: Town) -> None:
    agent_id = await add_agent(town, "ada", nickname="Countess")
    assert (await town.agents.get("countess [ADA]")).id == agent_id


async def test_ambiguous_references_name_their_candidates(town: Town) -> None:
    await add_agent(town, "ada", nickname="Twin")
    await add_agent(town, "bob", nickname="Twin", role_id="docs")
    await queue(town)
    before = await everything(town)
    with pytest.raises(Conflict) as refusal:
        await town.tasks.claim_all(agent="twin")
    assert refusal.value.code == "agent_ambiguous"
    assert refusal.value.reason is not None
    assert "Twin [ada]" in refusal.value.reason
    assert "Twin [docs]" in refusal.value.reason
    assert await everything(town) == before
    assert (await town.agents.get("twin [docs]")).name == "bob"


async def test_a_name_wins_over_a_nickname(town: Town) -> None:
    await add_agent(town, "ada", nickname="bob")
    bob = await add_agent(town, "bob")
    assert (await town.agents.get("bob")).id == bob


async def test_unknown_agents_and_the_supervisor_have_no_record(town: Town) -> None:
    for reference in ("nobody", new_id(), "supervisor", " CONDUCTOR ", "00000000-0000-0000-0000-000000000001", "%a"):
        for act in (town.agents.get, town.agents.history, town.agents.pause, town.agents.close, town.agents.resume):
            with pytest.raises(NotFound) as refusal:
                await act(reference)
            assert refusal.value.code == "agent_not_found"
        with pytest.raises(NotFound):
            await town.agents.kill(reference, reason="x")
    assert await everything(town) == {}


async def test_all_agents_are_listed_oldest_first(town: Town) -> None:
    for name in ("zoe", "ada", "mia"):
        await add_agent(town, name)
    assert [agent.name for agent in await town.agents.all()] == ["zoe", "ada", "mia"]


async def test_a_killed_agent_is_fenced_and_its_task_released(town: Town) -> None:
    ada = await hire(town, "ada")
    queued = [(await queue(town)).id for _ in range(2)]
    task = await ada.must_take()
    before = await town.agents.get("ada")
    assert await town.agents.kill("ada", reason="out of hand") == before
    assert (before.state, before.process) == (AgentState.WORKING, PROCESS)
    killed = await town.agents.get("ada")
    assert (killed.state, killed.reason, killed.incarnation) == (AgentState.STOPPED, "out of hand", 2)
    assert (killed.current_task, killed.lease_expires_at) == (None, None)
    released, _ = await town.tasks.get(task.id)
    assert (released.state, released.attempts) == (TaskState.PENDING, 0)
    assert released.epoch > task.epoch
    assert [waiting.id for waiting in (await town.tasks.backlog(FIRST)).items] == queued
    stored = await everything(town)
    assert await town.agents.kill("ada", reason="again") == killed
    assert await everything(town) == stored


async def test_a_killed_agents_inbox_keeps_its_task(town: Town) -> None:
    ada = await hire(town, "ada")
    await assign(town, "ada")
    task = await ada.must_take()
    await town.agents.kill("ada", reason="x")
    back, _ = await town.tasks.get(task.id)
    assert (back.state, back.assigned_to) == (TaskState.ASSIGNED, ada.id)
    assert [(orphan.task.id, orphan.reason) for orphan in await town.agents.orphans()] == [(task.id, "agent_terminal")]


async def test_a_new_incarnation_begins_afresh(town: Town) -> None:
    ada = await hire(town, "ada")
    await queue(town)
    task = await ada.must_take()
    await town.tasks.complete(task.id, epoch=1, result="", by="ada")
    old = await town.agents.get("ada")
    begun = await town.agents.begin("ada", reason="restart")
    assert (begun.state, begun.rounds_completed, begun.tasks_completed) == (AgentState.STARTING, 0, 1)
    assert begun.incarnation > old.incarnation
    assert begun.last_active_at == begun.last_heartbeat == begun.state_since
    assert begun.last_active_at >= old.last_active_at
    assert (begun.lease_expires_at, begun.process, begun.reason) == (None, None, "restart")
    with pytest.raises(Conflict):
        await ada.take()
    started = await town.leases.start(ada.id, incarnation=begun.incarnation, process=PROCESS, lease=LEASE)
    assert started.state is AgentState.IDLE


async def test_pause_and_resume(town: Town) -> None:
    ada = await hire(town, "ada")
    with pytest.raises(Conflict) as refusal:
        await town.agents.resume("ada")
    assert refusal.value.code == "agent_not_paused"
    await queue(town)
    await ada.must_take()
    paused = await town.agents.pause("ada")
    assert paused.state is AgentState.PAUSED
    stored = await everything(town)
    assert await town.agents.pause("ada") == paused
    assert await everything(town) == stored
    resumed = await town.agents.resume("ada")
    assert (resumed.state, resumed.last_active_at) == (AgentState.WORKING, resumed.state_since)
    assert (await events_of(town))[-2:] == ["agent_interrupted", "agent_resumed"]


async def test_a_paused_agent_whose_task_ends_resumes_idle(town: Town) -> None:
    ada = await hire(town, "ada")
    await queue(town)
    task = await ada.must_take()
    await town.agents.pause("ada")
    await town.tasks.complete(task.id, epoch=1, result="", by="ada")
    assert (await town.agents.get("ada")).state is AgentState.PAUSED
    assert (await town.agents.resume("ada")).state is AgentState.IDLE


async def test_ended_and_draining_agents_are_not_paused_nor_closed_twice(town: Town) -> None:
    await hire(town, "ada")
    closed = await town.agents.close("ada")
    assert closed.state is AgentState.DRAINING
    assert await town.agents.close("ada") == closed
    for act in (town.agents.pause, town.agents.close):
        with pytest.raises(Conflict) as refusal:
            await act("ada")
        assert refusal.value.code == "agent_not_running"
        await town.agents.kill("ada", reason="x")


async def test_ended_agents_are_pruned_and_their_work_goes_to_the_backlog(town: Town) -> None:
    ada, bob = await hire(town, "ada"), await hire(town, "bob")
    work = [(await assign(town, "ada", f"{n}", urgent=n == 2)).task.id for n in range(3)]
    await town.mailbox.send(new_message(), to="ada", task=None)
    await town.agents.kill("ada", reason="x")
    stored = await everything(town)
    before = await town.agents.get("ada")
    assert await town.agents.prune(every=False, dry_run=True) == (before,)
    assert await everything(town) == stored
    assert await town.agents.prune(every=False, dry_run=False) == (before,)
    assert [agent.name for agent in await town.agents.all()] == ["bob"]
    assert [task.id for task in (await town.tasks.backlog(FIRST)).items] == [work[2], work[0], work[1]]
    assert not [key for key in await everything(town) if ada.id.encode() in key]
    assert (await bob.must_take()).id == work[2]
    assert await town.agents.prune(every=False, dry_run=False) == ()
    assert (await add_agent(town, "ada")) != ada.id


async def test_pruning_everybody_kills_first(town: Town) -> None:
    ada = await hire(town, "ada")
    task = (await assign(town, "ada")).task
    await ada.must_take()
    assert [agent.name for agent in await town.agents.prune(every=True, dry_run=False)] == ["ada"]
    assert await town.agents.all() == ()
    assert [waiting.id for waiting in (await town.tasks.backlog(FIRST)).items] == [task.id]
    with pytest.raises(NotFound):
        await ada.take()


async def test_a_delayed_task_outlives_its_pruned_agent(town: Town) -> None:
    ada, bob = await hire(town, "ada"), await hire(town, "bob")
    await assign(town, "ada")
    task = await ada.must_take()
    await town.tasks.fail(task.id, epoch=1, reason="x", retry=LATER, final=False, by="ada")
    await town.agents.kill("ada", reason="x")
    await town.agents.prune(every=False, dry_run=False)
    assert [orphan.reason for orphan in await town.agents.orphans()] == ["agent_missing"]
    await town.tasks.replay(task.id, by="me")
    assert await town.agents.orphans() == ()
    assert (await bob.must_take()).id == task.id


async def test_reclaim_only_looks_unless_told_where(town: Town) -> None:
    await hire(town, "ada")
    await hire(town, "bob")
    work = [(await assign(town, "ada")).task.id for _ in range(2)]
    await assign(town, "bob")
    await town.agents.kill("ada", reason="x")
    stored = await everything(town)
    listed = await town.agents.reclaim(of=None, to_backlog=False, to=None)
    assert [(found.task.id, found.agent_name) for found in listed] == [(task_id, "ada") for task_id in work]
    assert await everything(town) == stored


async def test_reclaimed_work_moves_whole(town: Town) -> None:
    await hire(town, "ada")
    bob = await hire(town, "bob")
    urgent = (await assign(town, "ada", urgent=True)).task.id
    plain = (await assign(town, "ada")).task.id
    await town.agents.kill("ada", reason="x")
    moved = await town.agents.reclaim(of="ada", to_backlog=False, to="bob")
    assert [(found.task.id, found.task.assigned_to) for found in moved] == [(urgent, bob.id), (plain, bob.id)]
    await town.agents.kill("bob", reason="x")
    moved = await town.agents.reclaim(of=None, to_backlog=True, to=None)
    assert [(found.task.state, found.agent_name) for found in moved] == [(TaskState.PENDING, "bob")] * 2
    assert await town.agents.reclaim(of=None, to_backlog=True, to=None) == ()
    assert (await town.agents.get("ada")).inbox_len == (await town.agents.get("bob")).urgent_len == 0


async def test_reclaim_waits_and_spares_the_living(town: Town) -> None:
    await hire(town, "ada")
    await assign(town, "ada")
    with pytest.raises(Conflict) as living:
        await town.agents.reclaim(of="ada", to_backlog=True, to=None)
    assert living.value.code == "agent_not_ended"
    await town.agents.kill("ada", reason="x")
    assert await town.agents.reclaim(of=None, to_backlog=True, to=None, after=timedelta(hours=1)) == ()
    with pytest.raises(Conflict) as ended:
        await town.agents.reclaim(of=None, to_backlog=False, to="ada")
    assert ended.value.code == "agent_not_running"

    async def reclaimed() -> bool:
        moved = await town.agents.reclaim(of=None, to_backlog=True, to=None, after=timedelta(milliseconds=5))
        return len(moved) == 1

    await eventually(reclaimed)


async def test_inbox_lengths_count_unread_work_and_mail(town: Town) -> None:
    ada = await hire(town, "ada")
    await assign(town, "ada")
    await assign(town, "ada", urgent=True)
    await town.mailbox.send(new_message(), to="ada", task=None)
    await town.mailbox.send(new_message(urgent=True), to="ada", task=None)
    agent = await town.agents.get("ada")
    assert (agent.inbox_len, agent.urgent_len) == (2, 2)
    await ada.must_take()
    agent = await town.agents.get("ada")
    assert (agent.inbox_len, agent.urgent_len) == (1, 0)


async def test_failed_rounds_count_as_rounds(town: Town) -> None:
    ada = await hire(town, "ada")
    await queue(town)
    task = await ada.must_take()
    await town.tasks.fail(task.id, epoch=1, reason="x", retry=AT_ONCE, final=True, by="ada")
    agent = await town.agents.get("ada")
    assert (agent.rounds_completed, agent.tasks_completed) == (1, 0)


async def test_the_history_tells_old_and_new_states(town: Town) -> None:
    await hire(town, "ada")
    await town.agents.kill("ada", reason="enough")
    told = [(entry.event, entry.old_state, entry.new_state) for entry in await town.agents.history("ada")]
    assert told == [
        ("agent_spawned", None, "starting"),
        ("agent_state_changed", "starting", "idle"),
        ("agent_stopped", "idle", "stopped"),
    ]
    assert (await town.agents.history("ada"))[-1].reason == "enough"
