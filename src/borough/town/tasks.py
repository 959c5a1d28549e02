"""Tasks: what is to be done, where each stands, and which moves are legal.

The table ``MOVES`` rules everywhere: the store's server-side functions are loaded with it.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from borough.core.ids import AgentId, TaskId

DEFAULT_MAX_ATTEMPTS = 3
MAX_MAX_ATTEMPTS = 20


class TaskState(StrEnum):
    """Where a task stands."""

    PENDING = "pending"
    """In the shared backlog, for any worker whose role fits."""
    ASSIGNED = "assigned"
    """In one agent's inbox."""
    RUNNING = "running"
    """Leased to a worker."""
    DELAYED = "delayed"
    """Failed an attempt; waits for its next one."""
    COMPLETED = "completed"
    FAILED = "failed"
    """Out of attempts: a dead letter, until somebody replays it."""
    CANCELLED = "cancelled"


MOVES: dict[TaskState, frozenset[TaskState]] = {
    TaskState.PENDING: frozenset(
        {TaskState.ASSIGNED, TaskState.RUNNING, TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED}
    ),
    TaskState.ASSIGNED: frozenset(
        {
            TaskState.PENDING,
            TaskState.ASSIGNED,
            TaskState.RUNNING,
            TaskState.COMPLETED,
            TaskState.FAILED,
            TaskState.CANCELLED,
        }
    ),
    TaskState.RUNNING: frozenset(
        {
            TaskState.PENDING,
            TaskState.ASSIGNED,
            TaskState.DELAYED,
            TaskState.COMPLETED,
            TaskState.FAILED,
            TaskState.CANCELLED,
        }
    ),
    TaskState.DELAYED: frozenset(
        {TaskState.PENDING, TaskState.ASSIGNED, TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED}
    ),
    TaskState.COMPLETED: frozenset(),
    TaskState.FAILED: frozenset({TaskState.PENDING, TaskState.ASSIGNED}),
    TaskState.CANCELLED: frozenset({TaskState.PENDING, TaskState.ASSIGNED}),
}

TERMINAL: frozenset[TaskState] = frozenset({TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED})
REPLAYABLE: frozenset[TaskState] = frozenset({TaskState.FAILED, TaskState.CANCELLED, TaskState.DELAYED})


class TaskKind(StrEnum):
    """How a task came about; the word is the ``type`` that an inbox shows."""

    ASSIGNMENT = "task_assign"
    TASK = "task"
    """A message of kind ``task``."""
    QUERY = "query"
    """A message of kind ``query``: an answer is the result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """A task that is to be stored. The caller chooses the id, so that repeating the call changes nothing."""

    id: TaskId
    description: str
    kind: TaskKind = TaskKind.ASSIGNMENT
    sender: AgentId
    role: str | None = None
    urgent: bool = False
    tags: tuple[str, ...] = ()
    parent_id: TaskId | None = None
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    timeout_s: int | None = None
    """How long one attempt may take; ``None`` leaves it to the agent CLI's preset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task as stored."""

    id: TaskId
    description: str
    kind: TaskKind
    state: TaskState
    sender: AgentId
    role: str | None
    urgent: bool
    tags: tuple[str, ...]
    parent_id: TaskId | None
    assigned_to: AgentId | None
    attempts: int
    """Leases granted so far, the present one included."""
    max_attempts: int
    epoch: int
    """Fencing token: rises with each lease and each act that ends one from outside."""
    timeout_s: int | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    not_before: datetime | None
    """When a delayed task may be tried again."""
    lease_expires_at: datetime | None
    result: str | None
    """Result, error or reason of cancellation of a finished task."""
    last_error: str | None
    """Why the last attempt failed, if one did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One thing that happened to a task or an agent."""

    at: datetime
    event: str
    old_state: str | None
    new_state: str | None
    agent_id: AgentId | None
    attempt: int | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One attempt: ``task`` is the holder's until ``task.lease_expires_at``, under ``task.epoch``."""

    task: Task
    agent_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a failed attempt is followed by the next: exponential, bounded."""

    base_ms: int = 1_000
    cap_ms: int = 300_000

    def delay_ms(self, attempt: int) -> int:
        """Return the pause after failed attempt number ``attempt`` (counted from 1)."""
        return min(self.cap_ms, self.base_ms << (attempt - 1))


def may_move(old: TaskState, new: TaskState) -> bool:
    """Tell whether a task in ``old`` may go to ``new``."""
    return new in MOVES[old]
