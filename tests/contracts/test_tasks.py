"""What the port ``Tasks`` promises, on every server."""

import asyncio
from datetime import timedelta

import pytest

from borough.core.clock import to_ms, utc_now
from borough.core.errors import BoroughError, Conflict, NotFound
from borough.core.ids import TaskId, new_id
from borough.core.paging import PageRequest
from borough.town.agents import AgentState
from borough.town.names import SUPERVISOR_ID
from borough.town.ports.tasks import TaskFilter
from borough.town.tasks import RetryPolicy, TaskKind, TaskState
from tests.conftest import eventually
from tests.contracts.conftest import Town
from tests.contracts.kit import (
    AT_ONCE,
    FIRST,
    GRACE,
    LATER,
    add_agent,
    assign,
    events_of,
    everything,
    hire,
    new_task,
    queue,
)

pytestmark = pytest.mark.anyio

HOSTILE = [
    "x" * 1_048_576,
    "before\0after",
    "🦀" * 500 + "é",
    "'quotes\" and \\ backslashes \\u0000",
    "lines\r\n\tand\x1b[31mcolours\x7f",
    "*3\r\n$3\r\nSET\r\n",
    "%s %d {} ]]> </script> ' .. os.exit() .. '",
]


async def test_a_backlog_task_is_stored_whole(town: Town) -> None:
    new = new_task(
        "first line\nsecond",
        kind=TaskKind.QUERY,
        role="docs",
        urgent=True,
        tags=("a", "b c"),
        parent_id=TaskId(new_id()),
        max_attempts=7,
        timeout_s=60,
    )
    stored = await town.tasks.add_to_backlog(new)
    told = (stored.id, stored.description, stored.kind, stored.sender, stored.role, stored.urgent, stored.tags)
    assert told == (new.id, new.description, new.kind, new.sender, new.role, new.urgent, new.tags)
    assert (stored.parent_id, stored.max_attempts, stored.timeout_s) == (new.parent_id, 7, 60)
    assert (stored.state, stored.attempts, stored.epoch, stored.assigned_to) == (TaskState.PENDING, 0, 0, None)
    assert abs(stored.created_at - utc_now()) < timedelta(seconds=10)
    assert (await town.tasks.get(new.id))[0] == stored


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_text_comes_back_byte_for_byte(town: Town, text: str) -> None:
    ada = await hire(town, "ada")
    await queue(town, text, tags=(text[:60],))
    task = await ada.must_take()
    done = await town.tasks.complete(task.id, epoch=task.epoch, result=text, by=text[:200])
    assert task.description == text
    assert task.tags == (text[:60],)
    assert done.result == text
    assert len(await town.events.after("", limit=100)) == len(await events_of(town))


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_reasons_come_back_byte_for_byte(town: Town, text: str) -> None:
    task = await queue(town)
    failed = await town.tasks.fail(task.id, epoch=None, reason=text, retry=AT_ONCE, final=False, by="me")
    _, history = await town.tasks.get(task.id)
    assert (failed.state, failed.result, failed.last_error) == (TaskState.FAILED, text, text)
    assert history[-1].event == "task_failed"
    assert history[-1].reason is not None
    assert history[-1].reason[:100] == text[:100]


async def test_adding_the_same_id_twice_changes_nothing(town: Town) -> None:
    new = new_task("once")
    first = await town.tasks.add_to_backlog(new)
    before = await everything(town)
    assert await town.tasks.add_to_backlog(new) == first
    assert await everything(town) == before


async def test_assigning_the_same_id_twice_changes_nothing(town: Town) -> None:
    await hire(town, "ada")
    new = new_task("once")
    first = await town.tasks.assign(new, agent="ada")
    before = await everything(town)
    assert await town.tasks.assign(new, agent="ada") == first
    assert await everything(town) == before
    assert (await town.tasks.pending(FIRST)).items == (first,)


async def test_work_is_assigned_only_to_agents_that_take_it(town: Town) -> None:
    for name in ("killed", "closed"):
        await hire(town, name)
    await town.agents.kill("killed", reason="test")
    await town.agents.close("closed")
    before = await everything(town)
    for agent, code in (
        ("killed", "agent_not_running"),
        ("closed", "agent_not_running"),
        (" Conductor", "agent_is_supervisor"),
    ):
        with pytest.raises(Conflict) as refusal:
            await town.tasks.assign(new_task(), agent=agent)
        assert refusal.value.code == code
        assert refusal.value.resolution
    with pytest.raises(NotFound) as unknown:
        await town.tasks.assign(new_task(), agent="nobody")
    assert unknown.value.code == "agent_not_found"
    assert await everything(town) == before


async def test_a_claim_moves_a_task_into_the_inbox(town: Town) -> None:
    ada = await hire(town, "ada")
    task = await queue(town, "claim me", role="docs")
    claimed = await town.tasks.claim(task.id, agent="ADA")
    assert (claimed.agent_id, claimed.agent_name, claimed.task.state) == (ada.id, "ada", TaskState.ASSIGNED)
    assert (await town.tasks.backlog(FIRST)).items == ()
    assert (await town.tasks.claim(task.id, agent="ada")).task == claimed.task
    assert (await ada.must_take()).id == task.id


async def test_of_two_claims_one_wins(town: Town) -> None:
    await hire(town, "ada")
    await hire(town, "bob")
    task = await queue(town)
    outcomes = await asyncio.gather(
        *(town.tasks.claim(task.id, agent=name) for name in ("ada", "bob")), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Assignment", "Conflict"]


async def test_claims_of_what_is_not_there_move_nothing(town: Town) -> None:
    await hire(town, "ada")
    elsewhere = (await assign(town, "ada")).task
    waiting = await queue(town)
    before = await everything(town)
    for task_id, agent, kind, code in (
        (TaskId(new_id()), "ada", NotFound, "task_not_found"),
        (elsewhere.id, "ada", Conflict, "not_in_backlog"),
        (waiting.id, "nobody", NotFound, "agent_not_found"),
        (waiting.id, "supervisor", Conflict, "agent_is_supervisor"),
    ):
        with pytest.raises(kind) as refusal:
            await town.tasks.claim(task_id, agent=agent)
        assert refusal.value.code == code
    assert await everything(town) == before


async def test_the_whole_backlog_is_claimed_in_its_order(town: Town) -> None:
    ada = await hire(town, "ada")
    normal = [(await queue(town, f"n{at}", role=role)).id for at, role in enumerate((None, "docs", None, "test"))]
    urgent = [(await queue(town, f"u{at}", role=role, urgent=True)).id for at, role in enumerate(("docs", None))]
    agent_id, ids = await town.tasks.claim_all(agent="ada")
    assert agent_id == ada.id
    assert list(ids) == [*urgent, *normal]
    taken = []
    for _ in ids:
        task = await ada.must_take()
        await town.tasks.complete(task.id, epoch=task.epoch, result="", by="ada")
        taken.append(task.id)
    assert taken == list(ids)
    assert await town.tasks.claim_all(agent="ada") == (ada.id, ())


async def test_a_removed_backlog_task_leaves_no_record(town: Town) -> None:
    task = await queue(town, "gone", role="docs", tags=("x",))
    await town.tasks.remove_from_backlog(task.id)
    with pytest.raises(NotFound) as gone:
        await town.tasks.get(task.id)
    assert gone.value.code == "task_not_found"
    kept = {key.removeprefix(town.prefix.encode()) for key in await everything(town)}
    assert kept == {b"counters", b"events"}
    await hire(town, "ada")
    assigned = (await assign(town, "ada")).task
    with pytest.raises(NotFound) as elsewhere:
        await town.tasks.remove_from_backlog(assigned.id)
    assert elsewhere.value.code == "not_in_backlog"


async def test_completion_ends_a_task_and_frees_its_agent(town: Town) -> None:
    ada = await hire(town, "ada")
    await queue(town)
    task = await ada.must_take()
    done = await town.tasks.complete(task.id, epoch=task.epoch, result="fine", by="ada")
    agent = await town.agents.get("ada")
    assert (done.state, done.result, done.assigned_to) == (TaskState.COMPLETED, "fine", ada.id)
    assert done.completed_at is not None
    assert done.lease_expires_at is None
    assert (agent.state, agent.current_task) == (AgentState.IDLE, None)
    assert (agent.tasks_completed, agent.rounds_completed) == (1, 1)
    assert (await town.readings.snapshot()).completed_total == 1


async def test_a_repeated_completion_changes_nothing(town: Town) -> None:
    ada = await hire(town, "ada")
    await queue(town)
    task = await ada.must_take()
    done = await town.tasks.complete(task.id, epoch=task.epoch, result="fine", by="ada")
    before = await everything(town)
    assert await town.tasks.complete(task.id, epoch=task.epoch, result="other", by="ada") == done
    assert await everything(town) == before


@pytest.mark.parametrize("epoch", [0, 2, 99])
async def test_a_stale_epoch_changes_nothing(town: Town, epoch: int) -> None:
    ada = await hire(town, "ada")
    await queue(town)
    task = await ada.must_take()
    assert task.epoch == 1
    before = await everything(town)
    for act in (
        town.tasks.complete(task.id, epoch=epoch, result="late", by="x"),
        town.tasks.fail(task.id, epoch=epoch, reason="late", retry=AT_ONCE, final=True, by="x"),
        town.tasks.release(task.id, epoch=epoch, reason="late"),
    ):
        with pytest.raises(Conflict) as refusal:
            await act
        assert refusal.value.code == "stale_epoch"
    assert await everything(town) == before


async def test_an_act_from_outside_fences_the_holder(town: Town) -> None:
    ada = await hire(town, "ada")
    for outside in (
        lambda task: town.tasks.complete(task.id, epoch=None, result="by hand", by="me"),
        lambda task: town.tasks.cancel(task.id, reason="no more", by="me"),
        lambda task: town.tasks.fail(task.id, epoch=None, reason="bad", retry=LATER, final=False, by="me"),
    ):
        await queue(town)
        task = await ada.must_take()
        ended = await outside(task)
        assert ended.epoch > task.epoch
        before = await everything(town)
        with pytest.raises(Conflict):
            await town.tasks.complete(task.id, epoch=task.epoch, result="late", by="ada")
        assert await outside(task) == ended
        assert await everything(town) == before
        assert (await town.agents.get("ada")).state is AgentState.IDLE


async def test_a_finished_task_is_not_finished_again(town: Town) -> None:
    task = await queue(town)
    await town.tasks.complete(task.id, epoch=None, result="done", by="me")
    before = await everything(town)
    for act in (
        town.tasks.complete(task.id, epoch=None, result="other", by="me"),
        town.tasks.complete(task.id, epoch=1, result="done", by="me"),
        town.tasks.fail(task.id, epoch=None, reason="no", retry=AT_ONCE, final=True, by="me"),
        town.tasks.cancel(task.id, reason="no", by="me"),
        town.tasks.release(task.id, epoch=0, reason="no"),
    ):
        with pytest.raises(Conflict) as refusal:
            await act
        assert refusal.value.code == "task_finished"
    assert await everything(town) == before


async def test_a_failed_attempt_waits_for_the_next(town: Town) -> None:
    ada = await hire(town, "ada")
    await queue(town)
    task = await ada.must_take()
    failed = await town.tasks.fail(task.id, epoch=1, reason="broke", retry=LATER, final=False, by="ada")
    assert (failed.state, failed.last_error, failed.result) == (TaskState.DELAYED, "broke", None)
    assert failed.not_before is not None
    assert timedelta(seconds=55) < failed.not_before - utc_now() <= timedelta(seconds=61)
    assert failed.assigned_to is None
    assert await ada.take() is None
    before = await everything(town)
    assert await town.tasks.fail(task.id, epoch=1, reason="broke", retry=LATER, final=False, by="ada") == failed
    assert await everything(town) == before


async def test_pauses_follow_the_retry_policy(town: Town) -> None:
    policy = RetryPolicy(base_ms=100_000, cap_ms=350_000)
    ada = await hire(town, "ada")
    queued = await queue(town, max_attempts=5)
    for attempt in (1, 2, 3):
        task = await ada.must_take()
        assert task.attempts == attempt
        failed = await town.tasks.fail(
            queued.id, epoch=task.epoch, reason="x", retry=policy, final=False, by="ada"
        )  # fmt: skip
        assert failed.not_before is not None
        assert failed.not_before - failed.updated_at == timedelta(milliseconds=policy.delay_ms(attempt))
        await town.tasks.replay(queued.id, by=f"test {attempt}")


async def test_attempts_used_up_make_a_dead_letter(town: Town) -> None:
    ada = await hire(town, "ada")
    queued = await queue(town, max_attempts=2)
    for attempt in (1, 2):
        task = await ada.must_take()
        assert (task.id, task.attempts, task.epoch) == (queued.id, attempt, attempt)
        failed = await town.tasks.fail(
            task.id, epoch=task.epoch, reason=f"broke {attempt}", retry=AT_ONCE, final=False, by="ada"
        )
    assert (failed.state, failed.result, failed.last_error) == (TaskState.FAILED, "broke 2", "broke 2")
    assert (await town.readings.snapshot()).dead_letters == 1
    assert await ada.take() is None
    _, history = await town.tasks.get(queued.id)
    assert [entry.event for entry in history] == [
        "task_queued",
        "task_leased",
        "task_retry_scheduled",
        "task_requeued",
        "task_leased",
        "task_failed",
    ]


async def test_a_final_failure_is_not_tried_again(town: Town) -> None:
    ada = await hire(town, "ada")
    await queue(town)
    task = await ada.must_take()
    failed = await town.tasks.fail(task.id, epoch=1, reason="hopeless", retry=AT_ONCE, final=True, by="ada")
    assert failed.state is TaskState.FAILED


async def test_a_retry_goes_back_to_the_inbox_it_came_from(town: Town) -> None:
    ada = await hire(town, "ada")
    bob = await hire(town, "bob")
    mine = (await assign(town, "ada")).task
    task = await ada.must_take()
    failed = await town.tasks.fail(task.id, epoch=1, reason="x", retry=AT_ONCE, final=False, by="ada")
    assert failed.assigned_to == ada.id
    assert await bob.take() is None
    assert (await ada.must_take()).id == mine.id


async def test_a_retry_of_an_ended_agent_goes_to_the_backlog(town: Town) -> None:
    ada = await hire(town, "ada")
    bob = await hire(town, "bob")
    await assign(town, "ada")
    task = await ada.must_take()
    await town.tasks.fail(task.id, epoch=1, reason="x", retry=AT_ONCE, final=False, by="ada")
    await town.agents.kill("ada", reason="test")
    assert (await bob.must_take()).id == task.id


async def test_a_released_task_has_its_place_and_its_attempt_again(town: Town) -> None:
    ada = await hire(town, "ada")
    bob = await hire(town, "bob")
    queued = [(await queue(town, str(number))).id for number in range(4)]
    first, second = await ada.must_take(), await bob.must_take()
    assert [first.id, second.id] == queued[:2]
    released = await town.tasks.release(first.id, epoch=first.epoch, reason="not now")
    assert (released.state, released.attempts, released.assigned_to) == (TaskState.PENDING, 0, None)
    before = await everything(town)
    assert await town.tasks.release(first.id, epoch=first.epoch, reason="not now") == released
    assert await everything(town) == before
    await town.tasks.release(second.id, epoch=second.epoch, reason="not now")
    assert [task.id for task in (await town.tasks.backlog(FIRST)).items] == queued
    again = []
    for _ in queued:
        task = await ada.must_take()
        again.append((task.id, task.attempts))
        await town.tasks.complete(task.id, epoch=task.epoch, result="", by="ada")
    assert again == [(task_id, 1) for task_id in queued]


async def test_waiting_tasks_are_cancelled_wherever_they_wait(town: Town) -> None:
    ada = await hire(town, "ada")
    backlog, inbox, delayed = await queue(town), (await assign(town, "ada")).task, await queue(town, urgent=True)
    taken = await ada.must_take()
    assert taken.id == delayed.id
    await town.tasks.fail(delayed.id, epoch=1, reason="x", retry=LATER, final=False, by="ada")
    for task in (backlog, inbox, delayed):
        cancelled = await town.tasks.cancel(task.id, reason="not needed", by="me")
        assert (cancelled.state, cancelled.result) == (TaskState.CANCELLED, "not needed")
        before = await everything(town)
        assert await town.tasks.cancel(task.id, reason="again", by="me") == cancelled
        assert await everything(town) == before
    snapshot = await town.readings.snapshot()
    assert (snapshot.pending, snapshot.in_flight, snapshot.delayed) == (0, 0, 0)
    assert await ada.take() is None


async def test_finished_tasks_can_be_replayed(town: Town) -> None:
    ada = await hire(town, "ada")
    bob = await hire(town, "bob")
    mine = (await assign(town, "ada", max_attempts=1)).task
    task = await ada.must_take()
    await town.tasks.fail(task.id, epoch=1, reason="broke", retry=AT_ONCE, final=False, by="ada")
    replayed = await town.tasks.replay(mine.id, by="me")
    assert (replayed.state, replayed.attempts, replayed.result) == (TaskState.ASSIGNED, 0, None)
    assert (replayed.completed_at, replayed.last_error) == (None, "broke")
    before = await everything(town)
    assert await town.tasks.replay(mine.id, by="me") == replayed
    assert await everything(town) == before
    assert await bob.take() is None
    assert (await ada.must_take()).epoch == 2
    with pytest.raises(Conflict) as refusal:
        await town.tasks.replay(mine.id, by="me")
    assert refusal.value.code == "not_replayable"
    await town.tasks.cancel(mine.id, reason="x", by="me")
    await town.agents.kill("ada", reason="test")
    assert (await town.tasks.replay(mine.id, by="me")).state is TaskState.PENDING
    assert (await bob.must_take()).id == mine.id


async def test_a_delayed_task_is_replayed_at_once_with_its_attempts(town: Town) -> None:
    ada = await hire(town, "ada")
    await queue(town)
    task = await ada.must_take()
    await town.tasks.fail(task.id, epoch=1, reason="x", retry=LATER, final=False, by="ada")
    replayed = await town.tasks.replay(task.id, by="me")
    assert (replayed.state, replayed.attempts, replayed.not_before) == (TaskState.PENDING, 1, None)
    assert (await ada.must_take()).attempts == 2


async def test_dead_letters_are_replayed_oldest_first(town: Town) -> None:
    dead = [await queue(town) for _ in range(3)]
    for task in dead:
        await town.tasks.fail(task.id, epoch=None, reason="x", retry=AT_ONCE, final=True, by="me")
    assert await town.tasks.replay_dead_letters(limit=2, by="me") == (dead[0].id, dead[1].id)
    counts = await town.readings.counts()
    assert (counts[TaskState.PENDING], counts[TaskState.FAILED]) == (2, 1)


async def test_tasks_are_found_by_what_is_known_of_them(town: Town) -> None:
    await hire(town, "ada")
    plain = await queue(town, "plain")
    docs = await queue(town, "docs", role="docs", tags=("x", "y"))
    mine = (await assign(town, "ada", tags=("x",))).task
    await town.tasks.complete(plain.id, epoch=None, result="", by="me")
    for wanted, expected in (
        (TaskFilter(), [plain.id, docs.id, mine.id]),
        (TaskFilter(state=TaskState.COMPLETED), [plain.id]),
        (TaskFilter(agent="ada"), [mine.id]),
        (TaskFilter(role="docs"), [docs.id]),
        (TaskFilter(tag="x"), [docs.id, mine.id]),
        (TaskFilter(tag="x", state=TaskState.ASSIGNED, agent="ada"), [mine.id]),
        (TaskFilter(tag="y", agent="ada"), []),
        (TaskFilter(agent="supervisor"), []),
    ):
        page = await town.tasks.find(wanted, FIRST)
        assert [task.id for task in page.items] == expected
        assert page.after is None
    with pytest.raises(NotFound):
        await town.tasks.find(TaskFilter(agent="nobody"), FIRST)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
async def test_pages_tell_everything_once(town: Town, limit: int) -> None:
    await hire(town, "ada")
    queued = [await queue(town, f"{n}", urgent=n % 3 == 0, role="r" if n % 2 else None, tags=("t",)) for n in range(7)]
    assigned = [(await assign(town, "ada", f"a{n}")).task.id for n in range(7)]
    in_order = [task.id for task in sorted(queued, key=lambda task: not task.urgent)]

    async def walk(read) -> list[TaskId]:
        seen, after = [], ""
        while after is not None:
            page = await read(PageRequest(limit=limit, after=after))
            assert len(page.items) <= limit
            seen += [getattr(item, "task", item).id for item in page.items]
            after = page.after
        return seen

    assert await walk(town.tasks.backlog) == in_order
    assert await walk(town.tasks.pending) == assigned
    assert await walk(lambda page: town.tasks.find(TaskFilter(tag="t"), page)) == [task.id for task in queued]
    everything = [*(task.id for task in queued), *assigned]
    assert await walk(lambda page: town.tasks.find(TaskFilter(), page)) == everything
    newest = TaskFilter(newest_first=True)
    assert await walk(lambda page: town.tasks.find(newest, page)) == everything[::-1]


async def test_the_context_tells_where_a_task_stands(town: Town) -> None:
    ada = await hire(town, "ada", role_id="docs")
    await hire(town, "bob")
    await hire(town, "eve", role_id="test")
    await town.agents.pause("bob")
    await add_agent(town, "new", role_id="worker")
    first, second = await queue(town, role="docs"), await queue(town, role="docs")
    context = await town.tasks.context(second.id)
    assert (context.task, context.agent, context.ahead) == (second, None, 1)
    assert (context.matching_agents, context.idle_matching_agents) == (2, 1)
    assert context.state_since == second.created_at
    await ada.must_take()
    taken = await town.tasks.context(first.id)
    assert taken.agent is not None
    assert (taken.agent.id, taken.agent.current_scope, taken.ahead) == (ada.id, "do it", 0)
    assert (await town.tasks.context(second.id)).ahead == 0


async def test_finished_tasks_are_forgotten_but_not_dead_letters(town: Town) -> None:
    tasks = [await queue(town, role="docs", tags=("x",)) for _ in range(4)]
    await town.tasks.complete(tasks[0].id, epoch=None, result="", by="me")
    completed = utc_now()

    async def is_later() -> bool:
        return to_ms(utc_now()) > to_ms(completed) + 1  # what ended in one millisecond goes in any order

    await eventually(is_later)
    await town.tasks.cancel(tasks[1].id, reason="", by="me")
    await town.tasks.fail(tasks[2].id, epoch=None, reason="x", retry=AT_ONCE, final=True, by="me")
    soon = utc_now() + timedelta(seconds=5)
    assert await town.tasks.forget_finished(before=utc_now() - timedelta(hours=1), limit=10) == ()
    assert await town.tasks.forget_finished(before=soon, limit=1) == (tasks[0].id,)
    assert await town.tasks.forget_finished(before=soon, limit=10) == (tasks[1].id,)
    with pytest.raises(Conflict) as refusal:
        await town.tasks.forget(tasks[3].id)
    assert refusal.value.code == "task_not_finished"
    await town.tasks.forget(tasks[2].id)
    tasks.pop(2)
    left = (await town.tasks.find(TaskFilter(tag="x"), FIRST)).items
    assert [task.id for task in left] == [tasks[2].id]
    assert (await town.readings.snapshot()).completed_total == 1


async def test_unknown_tasks_are_not_found(town: Town) -> None:
    unknown = TaskId(new_id())
    for act in (
        town.tasks.get(unknown),
        town.tasks.complete(unknown, epoch=None, result="", by="x"),
        town.tasks.fail(unknown, epoch=1, reason="x", retry=AT_ONCE, final=False, by="x"),
        town.tasks.release(unknown, epoch=1, reason="x"),
        town.tasks.cancel(unknown, reason="x", by="x"),
        town.tasks.replay(unknown, by="x"),
        town.tasks.remove_from_backlog(unknown),
        town.tasks.context(unknown),
    ):
        with pytest.raises(NotFound) as refusal:
            await act
        assert refusal.value.code == "task_not_found"
    assert await everything(town) == {}


async def test_a_long_history_keeps_its_end(town: Town) -> None:
    ada = await hire(town, "ada")
    await queue(town)
    for number in range(40):
        task = await ada.must_take()
        await town.tasks.release(task.id, epoch=task.epoch, reason=f"r{number}")
    _, history = await town.tasks.get(task.id)
    assert len(history) == 50
    assert history[-1].reason == "r39"


async def test_every_change_is_told(town: Town) -> None:
    ada = await hire(town, "ada")
    await assign(town, "ada")
    task = await ada.must_take()
    await town.leases.sweep(retry=AT_ONCE, limit=10, agent_grace=GRACE)
    await town.tasks.complete(task.id, epoch=1, result="", by="ada")
    assert await events_of(town) == [
        "agent_spawned",
        "agent_state_changed",
        "task_assigned",
        "task_leased",
        "task_completed",
    ]
    leased = (await town.events.newest(limit=2))[0]
    assert leased.subjects["task_id"] == task.id
    assert leased.subjects["agent_id"] == ada.id
    assert (leased.subjects["old_state"], leased.subjects["new_state"]) == ("assigned", "running")
    assert (leased.subjects["attempt"], leased.subjects["epoch"]) == ("1", "1")


async def test_refusals_say_what_to_do(town: Town) -> None:
    with pytest.raises(BoroughError) as refusal:
        await town.tasks.claim(TaskId(new_id()), agent="nobody")
    assert refusal.value.message
    assert refusal.value.resolution
    assert (await queue(town)).sender == SUPERVISOR_ID
