"""What agent CLIs print."""

from dataclasses import dataclass
from typing import Protocol

from borough.core.ids import TaskId


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPart:
    """A piece of the log of one lease."""

    epoch: int
    offset: int
    data: bytes
    size: int
    """How long the log is now."""


class TaskLogs(Protocol):
    """What agent CLIs print, one log a lease."""

    async def append(self, task_id: TaskId, epoch: int, *, offset: int, data: bytes) -> int:
        """Write ``data`` at ``offset`` and return the new size; what is already there is not written twice.

        Raises:
            Conflict: there is a hole before ``offset`` (``log_hole``, the size in ``details``).
        """

    async def read(self, task_id: TaskId, epoch: int | None, *, offset: int, limit: int) -> LogPart:
        """Return a part of the log of one lease (``None``: the last that has one).

        Raises:
            NotFound: there is none (``log_not_found``).
        """

    async def forget(self, task_id: TaskId) -> None:
        """Delete a task's logs."""

    async def forget_all(self) -> None:
        """Delete every task's logs."""
