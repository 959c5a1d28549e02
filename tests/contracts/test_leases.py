"""What the port ``Leases`` promises, on every server."""

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from borough.core.clock import utc_now
from borough.core.errors import Conflict, NotFound
from borough.core.ids import AgentId, TaskId, new_id
from borough.town.agents import AgentState, Directive
from borough.town.ports.leases import Swept
from borough.town.tasks import RetryPolicy, TaskState
from tests.conftest import eventually
from tests.contracts.conftest import Town
from tests.contracts.kit import (
    AT_ONCE,
    BRIEF,
    FIRST,
    GRACE,
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


async def swept_until(town: Town, holds, retry: RetryPolicy = AT_ONCE, grace: timedelta = GRACE) -> list[Swept]:
    """Sweep until some pass did what ``holds`` looks for."""
    passes: list[Swept] = []

    async def sweep() -> bool:
        passes.append(await town.leases.sweep(retry=retry, limit=100, agent_grace=grace))
        return holds(passes[-1])

    await eventually(sweep)
    return passes


async def test_a_worker_that_starts_makes_its_agent_idle(town: Town) -> None:
    agent_id = await add_agent(town, "ada")
    agent = await town.leases.start(agent_id, incarnation=1, process=PROCESS, lease=LEASE)
    assert (agent.state, agent.process) == (AgentState.IDLE, PROCESS)
    assert agent.lease_expires_at is not None
    assert timedelta(seconds=20) < agent.lease_expires_at - utc_now() <= LEASE + timedelta(seconds=5)


async def test_a_paused_agent_stays_paused_when_its_worker_starts(town: Town) -> None:
    agent_id = await add_agent(town, "ada")
    await town.agents.pause("ada")
    agent = await town.leases.start(agent_id, incarnation=1, process=PROCESS, lease=LEASE)
    assert agent.state is AgentState.PAUSED
    assert (await town.agents.resume("ada")).state is AgentState.IDLE


async def test_a_restarted_worker_gives_back_what_it_held(town: Town) -> None:
    ada = await hire(town, "ada")
    await queue(town)
    task = await ada.must_take()
    agent = await town.leases.start(ada.id, incarnation=1, process=PROCESS, lease=LEASE)
    again, _ = await town.tasks.get(task.id)
    assert (agent.state, agent.current_task) == (AgentState.IDLE, None)
    assert (again.state, again.attempts) == (TaskState.PENDING, 0)
    assert again.epoch > task.epoch
    assert (await ada.must_take()).id == task.id


async def test_taking_leases_the_task(town: Town) -> None:
    ada = await hire(town, "ada")
    queued = await queue(town, "what is to be done")
    task = await ada.must_take()
    agent = await town.agents.get("ada")
    assert (task.id, task.state, task.epoch, task.attempts) == (queued.id, TaskState.RUNNING, 1, 1)
    assert task.assigned_to == ada.id
    assert task.started_at is not None
    assert task.lease_expires_at == task.started_at + LEASE
    assert (agent.state, agent.current_task) == (AgentState.WORKING, task.id)
    assert (agent.current_scope, agent.last_active_at) == ("what is to be done", task.started_at)


async def test_taking_again_gives_the_same_lease_extended(town: Town) -> None:
    ada = await hire(town, "ada")
    await queue(town)
    await queue(town)
    first = await ada.must_take()
    again = await ada.must_take(lease=2 * LEASE)
    assert (again.id, again.epoch, again.attempts) == (first.id, first.epoch, first.attempts)
    assert first.lease_expires_at is not None
    assert again.lease_expires_at is not None
    assert again.lease_expires_at > first.lease_expires_at
    assert (await town.readings.snapshot()).in_flight == 1


async def test_urgent_comes_first_and_own_before_shared(town: Town) -> None:
    ada = await hire(town, "ada", role_id="docs")
    expected: dict[str, int] = {}
    for place, (label, where, about) in enumerate(
        [
            ("backlog", "backlog", {}),
            ("role", "backlog", {"role": "docs"}),
            ("inbox", "inbox", {}),
            ("urgent backlog", "backlog", {"urgent": True}),
            ("urgent role", "backlog", {"role": "docs", "urgent": True}),
            ("urgent inbox", "inbox", {"urgent": True}),
        ]
    ):
        expected[label] = place
        await (queue(town, label, **about) if where == "backlog" else assign(town, "ada", label, **about))
    taken = []
    for _ in expected:
        task = await ada.must_take()
        taken.append(task.description)
        await town.tasks.complete(task.id, epoch=task.epoch, result="", by="ada")
    assert taken == ["urgent inbox", "urgent backlog", "urgent role", "inbox", "backlog", "role"]


async def test_first_in_first_out_holds_across_roles(town: Town) -> None:
    ada = await hire(town, "ada")
    roles = ["docs", None, "test", "docs", "review", None, "test", "docs"]
    queued = [(await queue(town, role=role)).id for role in roles]
    taken = []
    for _ in queued:
        task = await ada.must_take()
        taken.append(task.id)
        await town.tasks.complete(task.id, epoch=task.epoch, result="", by="ada")
    assert taken == queued


async def test_work_of_a_role_never_goes_to_another(town: Town) -> None:
    tester = await hire(town, "tester", role_id="test")
    writer = await hire(town, "writer", role_id="docs")
    general = await hire(town, "general", role_id="worker")
    docs = await queue(town, role="docs", urgent=True)
    more_docs = await queue(town, role="docs")
    plain = await queue(town)
    assert (await tester.must_take()).id == plain.id
    assert (await writer.must_take()).id == docs.id
    assert (await general.must_take()).id == more_docs.id


async def test_two_workers_race_for_one_task(town: Town) -> None:
    workers = [await hire(town, name) for name in ("ada", "bob")]
    await queue(town)
    leases = await asyncio.gather(*(worker.take() for worker in workers))
    assert sum(lease is not None for lease in leases) == 1


async def test_two_hundred_tasks_are_taken_once_each(town: Town) -> None:
    workers = [await hire(town, f"w{number}") for number in range(8)]
    queued = [(await queue(town, role=("docs", None)[n % 2], urgent=n % 5 == 0)).id for n in range(200)]
    taken: Counter[TaskId] = Counter()

    async def serve(worker: Worker) -> None:
        while lease := await worker.take():
            taken[lease.task.id] += 1
            await town.tasks.complete(lease.task.id, epoch=lease.task.epoch, result="", by=worker.name)

    await asyncio.gather(*map(serve, workers))
    assert taken == Counter(queued)
    assert (await town.readings.counts())[TaskState.COMPLETED] == 200
    assert sum(agent.tasks_completed for agent in await town.agents.all()) == 200


async def test_paused_draining_and_ended_agents_get_nothing_new(town: Town) -> None:
    workers = {name: await hire(town, name) for name in ("paused", "draining", "ended")}
    unreported = Worker(town, await add_agent(town, "starting"), "starting")
    for name in workers:
        await assign(town, name)
    await town.agents.pause("paused")
    await town.agents.close("draining")
    await town.agents.close("ended")
    await town.leases.leave(workers["ended"].id, incarnation=1, state=AgentState.STOPPED, reason="told to")
    await queue(town)
    for worker in (*workers.values(), unreported):
        assert await worker.take() is None
    assert (await town.readings.snapshot()).in_flight == 0


async def test_a_draining_agent_keeps_what_it_has(town: Town) -> None:
    ada = await hire(town, "ada")
    await queue(town)
    task = await ada.must_take()
    await town.agents.close("ada")
    assert (await ada.must_take()).epoch == task.epoch
    await town.tasks.complete(task.id, epoch=task.epoch, result="", by="ada")
    assert (await town.agents.get("ada")).state is AgentState.DRAINING


async def test_idle_polls_are_no_activity(town: Town) -> None:
    ada = await hire(town, "ada")
    before = await town.agents.get("ada")
    told = await events_of(town)

    async def beats() -> bool:
        await ada.take()
        await ada.beat()
        return (await town.agents.get("ada")).last_heartbeat > before.last_heartbeat

    await eventually(beats)
    after = await town.agents.get("ada")
    assert (after.last_active_at, after.state_since) == (before.last_active_at, before.state_since)
    assert await events_of(town) == told


async def test_mail_comes_with_the_next_task_and_again_when_asked_again(town: Town) -> None:
    ada = await hire(town, "ada")
    first = await town.mailbox.send(new_message("first"), to="ada", task=None)
    urgent = await town.mailbox.send(new_message("urgent", urgent=True), to="ada", task=None)
    assert await ada.take_with_mail() == (None, ())
    await queue(town)
    _, mail = await ada.take_with_mail()
    assert mail == (urgent, first)
    assert (await town.mailbox.peek("ada", limit=10)).messages == ()
    _, again = await ada.take_with_mail()
    assert again == mail
    assert await town.mailbox.read("ada", first.id) == first


async def test_mail_of_a_lost_attempt_is_unread_again(town: Town) -> None:
    ada = await hire(town, "ada")
    sent = [await town.mailbox.send(new_message(text), to="ada", task=None) for text in ("one", "two")]
    await queue(town)
    task = await ada.must_take()
    await town.tasks.release(task.id, epoch=task.epoch, reason="test")
    assert list((await town.mailbox.peek("ada", limit=10)).messages) == sent
    task = await ada.must_take()
    await town.tasks.complete(task.id, epoch=task.epoch, result="", by="ada")
    assert (await town.mailbox.peek("ada", limit=10)).messages == ()


async def test_much_mail_comes_in_parts(town: Town) -> None:
    ada = await hire(town, "ada")
    for number in range(6):
        await town.mailbox.send(new_message(f"{number}" + "x" * 1_000_000), to="ada", task=None)
    await queue(town)
    await queue(town)
    task, heard = await ada.must_take(), []
    heard += [message.text[0] for message in (await ada.take_with_mail())[1]]
    await town.tasks.complete(task.id, epoch=1, result="", by="ada")
    heard += [message.text[0] for message in (await ada.take_with_mail())[1]]
    assert heard == list("012345")


async def test_a_beat_renews_both_leases(town: Town) -> None:
    ada = await hire(town, "ada")
    await queue(town)
    task = await ada.must_take()
    told = await ada.beat(task, lease=2 * LEASE)
    renewed, _ = await town.tasks.get(task.id)
    agent = await town.agents.get("ada")
    assert told.directive is Directive.RUN
    assert told.lease_expires_at == renewed.lease_expires_at == agent.lease_expires_at
    assert task.lease_expires_at is not None
    assert told.lease_expires_at > task.lease_expires_at


async def test_a_beat_says_what_to_do(town: Town) -> None:
    ada = await hire(town, "ada")
    await queue(town)
    task = await ada.must_take()
    await town.agents.pause("ada")
    assert (await ada.beat(task)).directive is Directive.PAUSE
    await town.agents.resume("ada")
    assert (await ada.beat(task)).directive is Directive.RUN
    await town.agents.close("ada")
    assert (await ada.beat(task)).directive is Directive.DRAIN
    await town.tasks.cancel(task.id, reason="x", by="me")
    assert (await ada.beat(task)).directive is Directive.DROP
    await town.leases.leave(ada.id, incarnation=1, state=AgentState.STOPPED, reason="done")
    assert (await ada.beat()).directive is Directive.STOP


async def test_an_earlier_incarnation_is_refused_everywhere(town: Town) -> None:
    ada = await hire(town, "ada")
    await queue(town)
    await ada.must_take()
    await town.agents.kill("ada", reason="test")
    before = await everything(town)
    for act in (
        town.leases.start(ada.id, incarnation=1, process=PROCESS, lease=LEASE),
        ada.take(),
        ada.beat(),
        town.leases.leave(ada.id, incarnation=1, state=AgentState.STOPPED, reason="x"),
        town.leases.drain_if_idle(ada.id, incarnation=1),
    ):
        with pytest.raises(Conflict) as refusal:
            await act
        assert refusal.value.code == "stale_incarnation"
    assert await everything(town) == before
    with pytest.raises(NotFound):
        await town.leases.take(AgentId(new_id()), incarnation=1, lease=LEASE)


async def test_an_ended_agent_is_not_started_by_its_old_worker(town: Town) -> None:
    ada = await hire(town, "ada")
    await town.leases.leave(ada.id, incarnation=1, state=AgentState.STOPPED, reason="done")
    with pytest.raises(Conflict) as refusal:
        await town.leases.start(ada.id, incarnation=1, process=PROCESS, lease=LEASE)
    assert refusal.value.code == "stale_incarnation"


async def test_leaving_gives_back_what_was_held(town: Town) -> None:
    ada = await hire(town, "ada")
    await queue(town)
    task = await ada.must_take()
    agent = await town.leases.leave(ada.id, incarnation=1, state=AgentState.ERROR, reason="out of memory")
    back, _ = await town.tasks.get(task.id)
    assert (agent.state, agent.reason, agent.current_task) == (AgentState.ERROR, "out of memory", None)
    assert (back.state, back.attempts) == (TaskState.PENDING, 0)
    before = await everything(town)
    again = await town.leases.leave(ada.id, incarnation=1, state=AgentState.STOPPED, reason="twice")
    assert again == agent
    assert await everything(town) == before


async def test_a_worker_that_ends_without_a_goodbye_has_failed_its_attempt(town: Town) -> None:
    ada, bob = await hire(town, "ada"), await hire(town, "bob")
    await queue(town)
    task = await ada.must_take()
    lost = await town.leases.lose(ada.id, incarnation=1, reason="signal 9", retry=AT_ONCE)
    assert (lost.state, lost.reason, lost.incarnation, lost.current_task) == (AgentState.ERROR, "signal 9", 2, None)
    again = await bob.must_take()
    assert (again.id, again.attempts, again.last_error) == (task.id, 2, "signal 9")
    with pytest.raises(Conflict):
        await town.leases.lose(ada.id, incarnation=1, reason="once more", retry=AT_ONCE)
    assert (await town.agents.get("ada")).reason == "signal 9"


async def test_a_worker_with_work_waiting_is_to_go_on(town: Town) -> None:
    ada = await hire(town, "ada")
    await assign(town, "ada")
    with pytest.raises(Conflict) as refusal:
        await town.leases.leave(ada.id, incarnation=1, state=AgentState.STOPPED, reason="idle")
    assert refusal.value.code == "work_waiting"
    await town.agents.close("ada")
    gone = await town.leases.leave(ada.id, incarnation=1, state=AgentState.STOPPED, reason="told to")
    assert gone.state is AgentState.STOPPED


async def test_only_idle_agents_without_work_drain(town: Town) -> None:
    ada = await hire(town, "ada")
    await assign(town, "ada")
    assert not await town.leases.drain_if_idle(ada.id, incarnation=1)
    task = await ada.must_take()
    assert not await town.leases.drain_if_idle(ada.id, incarnation=1)
    await town.tasks.complete(task.id, epoch=1, result="", by="ada")
    await town.mailbox.send(new_message(), to="ada", task=None)
    assert await town.leases.drain_if_idle(ada.id, incarnation=1)
    assert await town.leases.drain_if_idle(ada.id, incarnation=1)
    with pytest.raises(Conflict) as refusal:
        await assign(town, "ada")
    assert refusal.value.code == "agent_not_running"


async def test_a_lease_that_nobody_renews_is_a_failed_attempt(town: Town) -> None:
    ada = await hire(town, "ada")
    await queue(town)
    task = await ada.must_take(lease=BRIEF)
    await ada.beat(lease=LEASE)
    passes = await swept_until(town, lambda swept: swept.retried, retry=LATER)
    expired, history = await town.tasks.get(task.id)
    agent = await town.agents.get("ada")
    assert passes[-1].retried == (task.id,)
    assert passes[-1].lost_agents == ()
    assert (expired.state, expired.last_error) == (TaskState.DELAYED, "lease expired")
    assert history[-1].reason == "lease expired"
    assert (agent.state, agent.current_task) == (AgentState.IDLE, None)
    assert (await ada.beat(task)).directive is Directive.DROP
    with pytest.raises(Conflict) as refusal:
        await town.tasks.complete(task.id, epoch=task.epoch, result="late", by="ada")
    assert refusal.value.code == "stale_epoch"


async def test_a_silent_agent_is_lost_and_its_task_tried_again(town: Town) -> None:
    ada, bob = await hire(town, "ada"), await hire(town, "bob")
    await assign(town, "ada")
    task = await ada.must_take(lease=BRIEF)
    passes = await swept_until(town, lambda swept: swept.lost_agents)
    lost = passes[-1].lost_agents[0]
    assert (lost.id, lost.state, lost.reason) == (ada.id, AgentState.ERROR, "lease expired")
    assert (lost.incarnation, lost.current_task, lost.process) == (2, None, PROCESS)
    again = await bob.must_take()
    assert (again.id, again.attempts, again.last_error) == (task.id, 2, "lease expired")
    with pytest.raises(Conflict):
        await ada.beat(task)
    assert (await town.agents.get("bob")).state is AgentState.WORKING


async def test_expiry_counts_attempts_up_to_a_dead_letter(town: Town) -> None:
    ada = await hire(town, "ada")
    queued = await queue(town, max_attempts=1)
    await ada.must_take(lease=BRIEF)
    passes = await swept_until(town, lambda swept: swept.dead)
    dead, _ = await town.tasks.get(queued.id)
    assert passes[-1].dead == (queued.id,)
    assert (dead.state, dead.result) == (TaskState.FAILED, "lease expired")


async def test_an_agent_that_never_reports_is_lost(town: Town) -> None:
    await add_agent(town, "ada")
    assert (await town.leases.sweep(retry=AT_ONCE, limit=9, agent_grace=GRACE)).lost_agents == ()
    passes = await swept_until(town, lambda swept: swept.lost_agents, grace=BRIEF)
    lost = passes[-1].lost_agents[0]
    assert (lost.name, lost.state, lost.reason) == ("ada", AgentState.ERROR, "never reported")


async def test_a_living_agent_is_never_lost(town: Town) -> None:
    ada = await hire(town, "ada")
    await queue(town)
    task = await ada.must_take()
    swept = await town.leases.sweep(retry=AT_ONCE, limit=9, agent_grace=timedelta(0))
    assert (swept.retried, swept.dead, swept.promoted, swept.lost_agents) == ((), (), 0, ())
    assert await town.leases.attempt_is_live(task.id, epoch=1)


async def test_due_retries_are_promoted_by_sweep_and_take(town: Town) -> None:
    ada = await hire(town, "ada")
    tasks = []
    for _ in range(2):
        await queue(town)
        task = await ada.must_take()
        await town.tasks.fail(task.id, epoch=1, reason="x", retry=AT_ONCE, final=False, by="ada")
        tasks.append(task.id)
        if len(tasks) == 1:
            swept = await town.leases.sweep(retry=AT_ONCE, limit=9, agent_grace=GRACE)
            assert swept.promoted == 1
            await town.tasks.cancel(task.id, reason="enough", by="me")
    assert (await ada.must_take()).id == tasks[1]
    assert (await town.tasks.backlog(FIRST)).items == ()


async def test_one_sweep_is_bounded(town: Town) -> None:
    workers = [await hire(town, f"w{number}") for number in range(3)]
    for worker in workers:
        await worker.beat(lease=BRIEF)
    lost = 0
    for _ in range(1000):
        swept = await town.leases.sweep(retry=AT_ONCE, limit=1, agent_grace=GRACE)
        assert len(swept.lost_agents) <= 1
        lost += len(swept.lost_agents)
        if lost == len(workers):
            break
    assert lost == len(workers)


async def test_an_attempt_is_live_while_its_lease_is(town: Town) -> None:
    ada = await hire(town, "ada")
    await queue(town)
    task = await ada.must_take()
    assert await town.leases.attempt_is_live(task.id, epoch=1)
    assert not await town.leases.attempt_is_live(task.id, epoch=2)
    assert not await town.leases.attempt_is_live(TaskId(new_id()), epoch=1)
    await town.tasks.complete(task.id, epoch=1, result="", by="ada")
    assert not await town.leases.attempt_is_live(task.id, epoch=1)
