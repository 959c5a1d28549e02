"""Tasks that wait, and tasks that are over."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from borough.core.ids import AgentId, TaskId
from borough.core.paging import Page, PageRequest
from borough.town.explain import TaskContext
from borough.town.tasks import HistoryEntry, NewTask, RetryPolicy, Task, TaskState


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks; ``None`` means any."""

    state: TaskState | None = None
    agent: str | None = None
    """A reference to the agent it is assigned to."""
    role: str | None = None
    tag: str | None = None
    newest_first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A task and whom it went to."""

    task: Task
    agent_id: AgentId
    agent_name: str


class Tasks(Protocol):
    """Tasks that wait, and tasks that are over."""

    async def add_to_backlog(self, new: NewTask) -> Task:
        """Store ``new`` in state ``pending``. An id that is already there: return that task, change nothing."""

    async def assign(self, new: NewTask, *, agent: str) -> Assignment:
        """Store ``new`` in state ``assigned`` at the end of ``agent``'s inbox; idempotent by id.

        Raises:
            Conflict: the agent has ended (``agent_not_running``) or is the supervisor (``agent_is_supervisor``).
        """

    async def get(self, task_id: TaskId) -> tuple[Task, tuple[HistoryEntry, ...]]:
        """Return the task and its history, oldest first (at most the last 50 entries)."""

    async def find(self, wanted: TaskFilter, page: PageRequest) -> Page[Task]:
        """Return tasks, oldest first unless the newest are wanted first. ``agent`` as in the package's docstring."""

    async def newest(self, *, limit: int) -> tuple[Task, ...]:
        """Return the tasks that came last, the newest first."""

    async def backlog(self, page: PageRequest) -> Page[Task]:
        """Return pending tasks in the order in which they will be taken: urgent first, then oldest first."""

    async def pending(self, page: PageRequest) -> Page[Assignment]:
        """Return assigned tasks that no worker has taken yet, oldest first."""

    async def claim(self, task_id: TaskId, *, agent: str) -> Assignment:
        """Move a task from the backlog into ``agent``'s inbox (ahead of nothing: at its end).

        Raises:
            Conflict: the task is not in the backlog (``not_in_backlog``), or as for ``assign``. Nothing moved then.
        """

    async def claim_all(self, *, agent: str) -> tuple[AgentId, tuple[TaskId, ...]]:
        """Move the whole backlog into ``agent``'s inbox, in its order; return the agent and the ids."""

    async def remove_from_backlog(self, task_id: TaskId) -> None:
        """Delete a pending task and its record.

        Raises:
            NotFound: no such task, or it is not in the backlog (``not_in_backlog``).
        """

    async def complete(self, task_id: TaskId, *, epoch: int | None, result: str, by: str) -> Task:
        """End a task well. With ``epoch``: only the holder of that lease may; without: ends any lease.

        Completing what this very epoch completed returns the task unchanged.

        Raises:
            Conflict: another epoch holds it (``stale_epoch``) or it is over already (``task_finished``).
        """

    async def fail(
        self, task_id: TaskId, *, epoch: int | None, reason: str, retry: RetryPolicy, final: bool, by: str
    ) -> Task:
        """End an attempt badly: ``delayed`` until the policy's pause is over, or ``failed`` when attempts are used
        up or ``final``. Epochs and errors as for ``complete``; failing a task that nobody holds is always final.
        """

    async def release(self, task_id: TaskId, *, epoch: int, reason: str) -> Task:
        """Give a leased task back unharmed: the attempt is not counted, it stands first in its queue's order again
        as nearly as the queue allows. Errors as for ``complete``.
        """

    async def cancel(self, task_id: TaskId, *, reason: str, by: str) -> Task:
        """End a task that is not over, fencing its lease. Cancelling a cancelled task changes nothing.

        Raises:
            Conflict: it is completed or failed (``task_finished``).
        """

    async def replay(self, task_id: TaskId, *, by: str) -> Task:
        """Put a failed, cancelled or delayed task back to work at once, with attempts counted from zero if it was
        over. It returns to its agent's inbox if that agent still runs, else to the backlog.

        Raises:
            Conflict: it is not in such a state (``not_replayable``).
        """

    async def replay_dead_letters(self, *, limit: int, by: str) -> tuple[TaskId, ...]:
        """Replay the ``limit`` oldest failed tasks; return their ids."""

    async def context(self, task_id: TaskId) -> TaskContext:
        """Return what explains where the task stands."""

    async def forget(self, task_id: TaskId) -> None:
        """Delete the record of a task that is over; raises ``Conflict`` (``task_not_finished``) for any other."""

    async def forget_finished(self, *, before: datetime, limit: int) -> tuple[TaskId, ...]:
        """Delete at most ``limit`` completed and cancelled tasks that ended before ``before``; return their ids."""
