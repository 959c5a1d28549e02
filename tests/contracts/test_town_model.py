"""Random lives of a town, followed by a model that is simple enough to be believed.

After every step: no task is lost, none is completed twice, each is in exactly the state that the model says, the
state indexes add up, and what the streams hold (entries less pending) is what waits.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from borough.adapters.valkey import keys
from borough.core.errors import Conflict, NotFound
from borough.core.ids import AgentId, TaskId, new_id
from borough.core.paging import PageRequest
from borough.town.agents import ACTIVE, PRUNABLE, Agent, AgentState, NewAgent
from borough.town.ports.tasks import TaskFilter
from borough.town.tasks import MOVES, TERMINAL, Task, TaskState
from tests.contracts.conftest import Server, Town, connect
from tests.contracts.kit import AT_ONCE, GRACE, LATER, LEASE, PROCESS, new_message, new_task

NAMES = ("ada", "bob", "eve")
ROLES = {"ada": None, "bob": "docs", "eve": "worker"}
ALL = PageRequest(limit=1000)
Answer = TypeVar("Answer")

FINGERPRINT = """
local found = {}
for index, key in ipairs(redis.call('KEYS', ARGV[1])) do
  found[index] = key .. redis.sha1hex(redis.call('DUMP', key))
end
table.sort(found)
return redis.sha1hex(table.concat(found))
"""

names = st.sampled_from(NAMES)
places = st.integers(0, 30)


class TownModel(RuleBasedStateMachine):
    """Drives one town and keeps beside it: the tasks that were added, their last states, what was completed."""

    server: Server

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.client = connect(self.server)
        self.town = Town(self.client, keys.prefix(f"m{new_id()[:8]}"))
        self.states: dict[TaskId, TaskState] = {}
        self.epochs: dict[TaskId, int] = {}
        self.completions: Counter[TaskId] = Counter()
        self.removed: set[TaskId] = set()
        self.held: dict[str, Task] = {}

    def teardown(self) -> None:
        self.run(self.town.administration.reset(agents_only=False))
        left = self.run(self._keys())
        assert {key.removeprefix(self.town.prefix.encode()) for key in left} <= {b"counters", b"events"}
        self.run(self.client.unlink(*left))
        self.run(self.client.connection_pool.disconnect())
        self.loop.close()

    def run(self, step: Awaitable[Answer]) -> Answer:
        async def await_it() -> Answer:
            return await step

        return self.loop.run_until_complete(await_it())

    def attempt(self, step: Awaitable[Answer]) -> Answer | None:
        """Run ``step``; ``None`` when the town refuses, and then nothing may have changed."""
        before = self.run(self._fingerprint())
        try:
            return self.run(step)
        except (Conflict, NotFound):
            assert self.run(self._fingerprint()) == before
            return None

    async def _keys(self) -> list[bytes]:
        return [key async for key in self.client.scan_iter(match=f"{self.town.prefix}*", count=1000)]

    async def _fingerprint(self) -> object:
        return await self.client.eval(FINGERPRINT, 0, f"{self.town.prefix}*")

    def agent(self, name: str) -> Agent | None:
        return next((agent for agent in self.run(self.town.agents.all()) if agent.name == name), None)

    def some_task(self, place: int) -> TaskId:
        known = list(self.states)
        return known[place % len(known)] if known else TaskId(new_id())

    # -- steps ---------------------------------------------------------------------------------------------------------

    @initialize(tasks=st.integers(min_value=0, max_value=5))
    def open_the_town(self, *, tasks: int) -> None:
        for name in NAMES:
            self.spawn(name=name, adopt=False)
            self.start(name=name)
        for number in range(tasks):
            self.add_to_backlog(role=("docs", None)[number % 2], urgent=number == 2, attempts=1 + number % 3)

    @rule(role=st.sampled_from([None, "docs", "test"]), urgent=st.booleans(), attempts=st.integers(1, 3))
    def add_to_backlog(self, *, role: str | None, urgent: bool, attempts: int) -> None:
        new = new_task(role=role, urgent=urgent, max_attempts=attempts, tags=("t",))
        task = self.run(self.town.tasks.add_to_backlog(new))
        assert self.run(self.town.tasks.add_to_backlog(new)) == task
        self.states[task.id] = task.state

    @rule(name=names, urgent=st.booleans())
    def assign(self, *, name: str, urgent: bool) -> None:
        new = new_task(urgent=urgent)
        if given := self.attempt(self.town.tasks.assign(new, agent=name)):
            self.states[given.task.id] = given.task.state

    @rule(name=names, adopt=st.booleans())
    def spawn(self, *, name: str, adopt: bool) -> None:
        new = NewAgent(id=AgentId(new_id()), name=name, cli="x", role_id=ROLES[name], adopt=adopt)
        self.attempt(self.town.agents.add(new, max_agents=3))

    @rule(name=names)
    def start(self, *, name: str) -> None:
        if agent := self.agent(name):
            step = self.town.leases.start(agent.id, incarnation=agent.incarnation, process=PROCESS, lease=LEASE)
            if self.attempt(step):
                self.held.pop(name, None)

    @rule(name=names)
    def take(self, *, name: str) -> None:
        agent = self.agent(name)
        if agent is None:
            return
        taken = self.attempt(self.town.leases.take(agent.id, incarnation=agent.incarnation, lease=LEASE))
        if taken is None or taken[0] is None:
            return
        task = taken[0].task
        assert task.id not in self.removed
        assert self.states[task.id] not in TERMINAL or agent.current_task == task.id
        if agent.current_task is None:
            assert task.epoch > self.epochs.get(task.id, 0)
        assert task.role in {None, agent.role_id} or agent.role != "docs" or self.was_given(task, agent)
        self.epochs[task.id] = task.epoch
        self.held[name] = task

    def was_given(self, task: Task, agent: Agent) -> bool:
        _, history = self.run(self.town.tasks.get(task.id))
        return any(entry.event == "task_assigned" and entry.agent_id == agent.id for entry in history)

    @rule(name=names, times=st.integers(min_value=1, max_value=3))
    def work(self, *, name: str, times: int) -> None:
        """A worker as it should be: take, complete, again."""
        for _ in range(times):
            self.take(name=name)
            self.complete(name=name, stale=False)

    @rule(name=names, stale=st.booleans())
    def complete(self, *, name: str, stale: bool) -> None:
        if name not in self.held:
            return
        task = self.held[name]
        epoch = task.epoch - 1 if stale else task.epoch
        before = self.run(self.town.tasks.get(task.id))[0] if task.id not in self.removed else None
        done = self.attempt(self.town.tasks.complete(task.id, epoch=epoch, result="done", by=name))
        if done and before and before.state is not TaskState.COMPLETED:
            assert not stale
            self.completions[task.id] += 1

    @rule(name=names, later=st.booleans(), final=st.booleans())
    def fail(self, *, name: str, later: bool, final: bool) -> None:
        if name in self.held:
            task, policy = self.held[name], LATER if later else AT_ONCE
            self.attempt(
                self.town.tasks.fail(task.id, epoch=task.epoch, reason="x", retry=policy, final=final, by=name)
            )

    @rule(name=names)
    def release(self, *, name: str) -> None:
        if name in self.held:
            task = self.held[name]
            self.attempt(self.town.tasks.release(task.id, epoch=task.epoch, reason="x"))

    @rule(place=places, how=st.sampled_from(["complete", "fail", "cancel", "replay", "claim", "remove"]), name=names)
    def meddle(self, *, place: int, how: str, name: str) -> None:
        task_id, tasks = self.some_task(place), self.town.tasks
        acts: dict[str, Callable[[], Awaitable[Any]]] = {
            "complete": lambda: tasks.complete(task_id, epoch=None, result=new_id(), by="me"),
            "fail": lambda: tasks.fail(task_id, epoch=None, reason=new_id(), retry=AT_ONCE, final=False, by="me"),
            "cancel": lambda: tasks.cancel(task_id, reason="x", by="me"),
            "replay": lambda: tasks.replay(task_id, by=new_id()),
            "claim": lambda: tasks.claim(task_id, agent=name),
            "remove": lambda: tasks.remove_from_backlog(task_id),
        }
        outcome = self.attempt(acts[how]())
        if how == "complete" and outcome:
            self.completions[task_id] += 1
        if how == "remove" and task_id in self.states:
            try:
                self.run(tasks.get(task_id))
            except NotFound:
                del self.states[task_id]
                self.removed.add(task_id)

    @rule(
        name=names, how=st.sampled_from(["kill", "begin", "pause", "resume", "close", "claim_all"]), busy=st.booleans()
    )
    def manage(self, *, name: str, how: str, busy: bool) -> None:
        if busy:
            self.take(name=name)
        agents = self.town.agents
        acts: dict[str, Callable[[], Awaitable[Any]]] = {
            "kill": lambda: agents.kill(name, reason="x"),
            "begin": lambda: agents.begin(name, reason="x"),
            "pause": lambda: agents.pause(name),
            "resume": lambda: agents.resume(name),
            "close": lambda: agents.close(name),
            "claim_all": lambda: self.town.tasks.claim_all(agent=name),
        }
        self.attempt(acts[how]())

    @rule(
        name=names,
        state=st.sampled_from([AgentState.STOPPED, AgentState.ERROR]),
        drain=st.booleans(),
        busy=st.booleans(),
    )
    def leave(self, *, name: str, state: AgentState, drain: bool, busy: bool) -> None:
        if busy:
            self.take(name=name)
        if agent := self.agent(name):
            leases, number = self.town.leases, agent.incarnation
            if drain:
                self.attempt(leases.drain_if_idle(agent.id, incarnation=number))
            self.attempt(leases.leave(agent.id, incarnation=number, state=state, reason="x"))

    @rule(every=st.booleans())
    def prune(self, *, every: bool) -> None:
        self.run(self.town.agents.prune(every=every, dry_run=False))

    @rule(to=st.none() | names)
    def reclaim(self, *, to: str | None) -> None:
        self.attempt(self.town.agents.reclaim(of=None, to_backlog=to is None, to=to))

    @rule(name=names, urgent=st.booleans())
    def send(self, *, name: str, urgent: bool) -> None:
        self.attempt(self.town.mailbox.send(new_message(urgent=urgent), to=name, task=None))

    @rule(name=names, lose_agent=st.booleans(), busy=st.booleans())
    def fall_silent(self, *, name: str, lose_agent: bool, busy: bool) -> None:
        """The worker's lease (and its agent's) runs out."""
        if busy:
            self.take(name=name)
        agent = self.agent(name)
        if agent is None or agent.state not in ACTIVE or agent.lease_expires_at is None:
            return
        if agent.current_task is not None:
            self.run(self.client.zadd(f"{self.town.prefix}leases", {agent.current_task: 1}))
        if lose_agent:
            self.run(self.client.zadd(f"{self.town.prefix}leases:agents", {agent.id: 1}))
        swept = self.run(self.town.leases.sweep(retry=AT_ONCE, limit=100, agent_grace=GRACE))
        ended = [*swept.retried, *swept.dead]
        assert ended == ([agent.current_task] if agent.current_task else [])
        assert [lost.id for lost in swept.lost_agents] == ([agent.id] if lose_agent else [])

    @rule()
    def sweep(self) -> None:
        swept = self.run(self.town.leases.sweep(retry=AT_ONCE, limit=100, agent_grace=timedelta(hours=1)))
        assert (swept.retried, swept.dead, swept.lost_agents) == ((), (), ())

    # -- what always holds ---------------------------------------------------------------------------------------------

    @invariant()
    def the_town_is_whole(self) -> None:
        found = self.run(self.town.tasks.find(TaskFilter(), ALL)).items
        tasks = {task.id: task for task in found}
        assert set(tasks) == set(self.states), "a task was lost, or came from nowhere"
        for task in found:
            self._follows(task)
        counts = self.run(self.town.readings.counts())
        assert sum(counts.values()) == len(tasks)
        assert counts == {state: sum(task.state is state for task in found) for state in TaskState}
        self._queues_hold_what_waits(found)
        self._agents_hold_what_runs(tasks)

    def _follows(self, task: Task) -> None:
        old = self.states[task.id]
        assert task.state is old or old not in TERMINAL or MOVES[old], f"{old} is for ever"
        assert task.attempts <= task.max_attempts
        assert self.completions[task.id] == (task.state is TaskState.COMPLETED)
        assert (task.lease_expires_at is not None) == (task.state is TaskState.RUNNING)
        assert (task.not_before is not None) == (task.state is TaskState.DELAYED)
        assert (task.completed_at is not None) == (task.state in TERMINAL)
        self.states[task.id] = task.state

    def _queues_hold_what_waits(self, found: tuple[Task, ...]) -> None:
        snapshot = self.run(self.town.readings.snapshot())
        running = {task.id.encode() for task in found if task.state is TaskState.RUNNING}
        assert snapshot.backlog == sum(task.state is TaskState.PENDING for task in found)
        assert snapshot.assigned == sum(task.state is TaskState.ASSIGNED for task in found)
        assert snapshot.in_flight == len(running)
        assert snapshot.completed_total == sum(self.completions.values())
        prefix = self.town.prefix
        assert set(self.run(self.client.zrange(f"{prefix}leases", 0, -1))) == running
        delayed = {task.id.encode() for task in found if task.state is TaskState.DELAYED}
        assert set(self.run(self.client.zrange(f"{prefix}retry", 0, -1))) == delayed
        listed = [task.id for task in self.run(self.town.tasks.backlog(ALL)).items]
        assert sorted(listed) == sorted(task.id for task in found if task.state is TaskState.PENDING)

    def _agents_hold_what_runs(self, tasks: dict[TaskId, Task]) -> None:
        agents = {agent.id: agent for agent in self.run(self.town.agents.all())}
        for agent in agents.values():
            if agent.current_task is not None:
                assert tasks[agent.current_task].state is TaskState.RUNNING
                assert tasks[agent.current_task].assigned_to == agent.id
                assert agent.state not in PRUNABLE
            if agent.state is AgentState.WORKING:
                assert agent.current_task is not None
            if agent.state is AgentState.IDLE:
                assert agent.current_task is None
        for task in tasks.values():
            if task.state is TaskState.RUNNING:
                assert task.assigned_to is not None
                assert agents[task.assigned_to].current_task == task.id


@pytest.fixture
def model(server: Server) -> type[TownModel]:
    return type("ServedTown", (TownModel,), {"server": server})


def test_a_town_lives_as_its_model_says(model: type[TownModel]) -> None:
    run_state_machine_as_test(
        model,
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
