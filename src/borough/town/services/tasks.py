"""Use cases of tasks: give work, follow it, end it, revive it."""

from dataclasses import dataclass

from borough.core.ids import AgentId, TaskId
from borough.core.paging import Page, PageRequest
from borough.town.explain import Explanation, explain_task
from borough.town.names import SUPERVISOR_ID, role_name
from borough.town.ports.tasks import Assignment, TaskFilter, Tasks
from borough.town.tasks import HistoryEntry, NewTask, RetryPolicy, Task, TaskKind
from borough.town.texts import bounded


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Work as a caller describes it."""

    description: str
    pointer: str = "/description"
    """Where in the request the description stands."""
    role: str | None = None
    urgent: bool = False
    tags: tuple[str, ...] = ()
    parent_id: TaskId | None = None
    max_attempts: int | None = None
    timeout_s: int | None = None


def new_task(
    wanted: Wanted, *, task_id: TaskId, default_attempts: int, kind: TaskKind = TaskKind.ASSIGNMENT
) -> NewTask:
    """Return the task that ``wanted`` describes; raises ``Invalid`` for a role that cannot be one."""
    return NewTask(
        id=task_id,
        description=bounded(wanted.description, wanted.pointer),
        kind=kind,
        sender=SUPERVISOR_ID,
        role=role_name(wanted.role) if wanted.role is not None else None,
        urgent=wanted.urgent,
        tags=wanted.tags,
        parent_id=wanted.parent_id,
        max_attempts=wanted.max_attempts or default_attempts,
        timeout_s=wanted.timeout_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Who ends an attempt: the holder of a lease (``epoch`` set), or somebody from outside (``None``)."""

    by: str
    epoch: int | None = None


class TaskService:
    """Gives work to agents and follows it to its end."""

    def __init__(self, tasks: Tasks, *, retry: RetryPolicy, default_attempts: int) -> None:
        self._tasks = tasks
        self._retry = retry
        self._default_attempts = default_attempts

    async def assign(self, wanted: Wanted, *, task_id: TaskId, agent: str) -> Assignment:
        """Put new work into an agent's inbox."""
        return await self._tasks.assign(
            new_task(wanted, task_id=task_id, default_attempts=self._default_attempts), agent=agent
        )

    async def add_to_backlog(self, wanted: Wanted, *, task_id: TaskId) -> Task:
        """Put new work into the shared backlog."""
        return await self._tasks.add_to_backlog(
            new_task(wanted, task_id=task_id, default_attempts=self._default_attempts)
        )

    async def claim(self, task_id: TaskId, *, agent: str) -> Assignment:
        """Hand a task of the backlog to an agent."""
        return await self._tasks.claim(task_id, agent=agent)

    async def claim_all(self, *, agent: str) -> tuple[AgentId, tuple[TaskId, ...]]:
        """Hand the whole backlog to an agent."""
        return await self._tasks.claim_all(agent=agent)

    async def remove_from_backlog(self, task_id: TaskId) -> None:
        """Delete a task that nobody has begun."""
        await self._tasks.remove_from_backlog(task_id)

    async def get(self, task_id: TaskId) -> tuple[Task, tuple[HistoryEntry, ...]]:
        """Return a task and what happened to it."""
        return await self._tasks.get(task_id)

    async def find(self, wanted: TaskFilter, page: PageRequest) -> Page[Task]:
        """Return tasks that fit, oldest first unless the newest are wanted first."""
        return await self._tasks.find(wanted, page)

    async def backlog(self, page: PageRequest) -> Page[Task]:
        """Return the backlog in the order in which it will be taken."""
        return await self._tasks.backlog(page)

    async def pending(self, page: PageRequest) -> Page[Assignment]:
        """Return assigned work that nobody has begun."""
        return await self._tasks.pending(page)

    async def complete(self, task_id: TaskId, *, result: str, ending: Ending) -> Task:
        """End a task well."""
        return await self._tasks.complete(task_id, epoch=ending.epoch, result=bounded(result, "/result"), by=ending.by)

    async def fail(self, task_id: TaskId, *, reason: str, final: bool, ending: Ending) -> Task:
        """End an attempt badly; the task is tried again while attempts are left."""
        return await self._tasks.fail(
            task_id, epoch=ending.epoch, reason=bounded(reason, "/reason"), retry=self._retry, final=final, by=ending.by
        )

    async def release(self, task_id: TaskId, *, epoch: int, reason: str) -> Task:
        """Give a leased task back unharmed."""
        return await self._tasks.release(task_id, epoch=epoch, reason=bounded(reason, "/reason"))

    async def cancel(self, task_id: TaskId, *, reason: str, by: str) -> Task:
        """End a task that is no longer wanted."""
        return await self._tasks.cancel(task_id, reason=bounded(reason, "/reason"), by=by)

    async def replay(self, task_id: TaskId, *, by: str) -> Task:
        """Put a failed, cancelled or delayed task back to work."""
        return await self._tasks.replay(task_id, by=by)

    async def replay_dead_letters(self, *, limit: int, by: str) -> tuple[TaskId, ...]:
        """Put the oldest dead letters back to work."""
        return await self._tasks.replay_dead_letters(limit=limit, by=by)

    async def explain(self, task_id: TaskId) -> Explanation:
        """Say why a task stands where it stands."""
        return explain_task(await self._tasks.context(task_id))
