"""``Tasks`` on Valkey."""

import json
from datetime import datetime

from borough.adapters.valkey.link import Link
from borough.adapters.valkey.town import records
from borough.adapters.valkey.town.asking import ask, look
from borough.core.clock import to_ms
from borough.core.ids import AgentId, TaskId
from borough.core.paging import Page, PageRequest
from borough.town.explain import TaskContext
from borough.town.ports.tasks import Assignment, TaskFilter
from borough.town.tasks import HistoryEntry, NewTask, RetryPolicy, Task


class ValkeyTasks:
    """Implements ``borough.town.ports.tasks.Tasks``."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def add_to_backlog(self, new: NewTask) -> Task:
        """See the port."""
        return records.task(await ask(self._link, "town_add_to_backlog", *task_arguments(new)))

    async def assign(self, new: NewTask, *, agent: str) -> Assignment:
        """See the port. An agent that drains counts as ended: it would never take the task."""
        return records.assignment(await ask(self._link, "town_assign", agent, *task_arguments(new)))

    async def get(self, task_id: TaskId) -> tuple[Task, tuple[HistoryEntry, ...]]:
        """See the port."""
        record, history = await look(self._link, "town_task", task_id)
        return records.task(record), records.history(history)

    async def find(self, wanted: TaskFilter, page: PageRequest) -> Page[Task]:
        """See the port. With several filters a page may be short and still have a next one."""
        newest = "newest" if wanted.newest_first else None
        found, after = await look(
            self._link, "town_find", wanted.state, wanted.agent, wanted.role, wanted.tag, newest, page.after, page.limit
        )
        return Page(items=records.tasks(found), after=records.optional_text(after))

    async def newest(self, *, limit: int) -> tuple[Task, ...]:
        """See the port."""
        return records.tasks(await look(self._link, "town_newest_tasks", limit))

    async def backlog(self, page: PageRequest) -> Page[Task]:
        """See the port."""
        found, after = await look(self._link, "town_backlog", page.after, page.limit)
        return Page(items=records.tasks(found), after=records.optional_text(after))

    async def pending(self, page: PageRequest) -> Page[Assignment]:
        """See the port."""
        found, after = await look(self._link, "town_pending", page.after, page.limit)
        return Page(items=tuple(map(records.assignment, found)), after=records.optional_text(after))

    async def claim(self, task_id: TaskId, *, agent: str) -> Assignment:
        """See the port. Claiming for the agent that claimed it already changes nothing."""
        return records.assignment(await ask(self._link, "town_claim", task_id, agent))

    async def claim_all(self, *, agent: str) -> tuple[AgentId, tuple[TaskId, ...]]:
        """See the port."""
        agent_id, ids = await ask(self._link, "town_claim_all", agent)
        return AgentId(records.text(agent_id)), records.task_ids(ids)

    async def remove_from_backlog(self, task_id: TaskId) -> None:
        """See the port. When it is repeated the task is not there any more: ``NotFound``."""
        await ask(self._link, "town_remove_from_backlog", task_id)

    async def complete(self, task_id: TaskId, *, epoch: int | None, result: str, by: str) -> Task:
        """See the port. Without an epoch, the same ``by`` and ``result`` are the same act."""
        return records.task(await ask(self._link, "town_complete", task_id, epoch, result, by))

    async def fail(
        self, task_id: TaskId, *, epoch: int | None, reason: str, retry: RetryPolicy, final: bool, by: str
    ) -> Task:
        """See the port. Without an epoch, the same ``by`` and ``reason`` are the same act."""
        answer = await ask(
            self._link, "town_fail", task_id, epoch, reason, retry.base_ms, retry.cap_ms, final, by
        )  # fmt: skip
        return records.task(answer)

    async def release(self, task_id: TaskId, *, epoch: int, reason: str) -> Task:
        """See the port. The task gets exactly the place back that it had."""
        return records.task(await ask(self._link, "town_release", task_id, epoch, reason))

    async def cancel(self, task_id: TaskId, *, reason: str, by: str) -> Task:
        """See the port."""
        return records.task(await ask(self._link, "town_cancel", task_id, reason, by))

    async def replay(self, task_id: TaskId, *, by: str) -> Task:
        """See the port. Until a worker takes it, the same ``by`` is the same act."""
        return records.task(await ask(self._link, "town_replay", task_id, by))

    async def replay_dead_letters(self, *, limit: int, by: str) -> tuple[TaskId, ...]:
        """See the port."""
        return records.task_ids(await ask(self._link, "town_replay_dead_letters", limit, by))

    async def context(self, task_id: TaskId) -> TaskContext:
        """See the port."""
        record, at, since, agent, ahead, matching, idle = await look(self._link, "town_context", task_id)
        return TaskContext(
            task=records.task(record),
            at=records.moment(at),
            state_since=records.moment(since),
            agent=None if agent is None else records.agent(agent),
            ahead=ahead,
            matching_agents=matching,
            idle_matching_agents=idle,
        )

    async def forget(self, task_id: TaskId) -> None:
        """See the port."""
        await ask(self._link, "town_forget", task_id)

    async def forget_finished(self, *, before: datetime, limit: int) -> tuple[TaskId, ...]:
        """See the port."""
        return records.task_ids(await ask(self._link, "town_forget_finished", to_ms(before), limit))


def task_arguments(new: NewTask) -> tuple[object, ...]:
    """Return what functions are told of a new task, in their order."""
    return (
        new.id,
        new.description,
        new.kind,
        new.sender,
        new.role,
        new.urgent,
        json.dumps(new.tags, ensure_ascii=False),
        new.parent_id,
        new.max_attempts,
        new.timeout_s,
    )
