"""Use cases of logs: what agent CLIs print, while they print it."""

import asyncio
from collections.abc import AsyncIterator

from borough.core.errors import Conflict, NotFound
from borough.core.ids import TaskId
from borough.town.ports.logs import LogPart, TaskLogs
from borough.town.ports.tasks import Tasks
from borough.town.tasks import TaskState

PART_BYTES = 262_144
TAIL_EVERY_S = 0.25


class LogService:
    """Keeps one log a lease: its epoch is unique, the number of an attempt is not (a released one is not counted)."""

    def __init__(self, logs: TaskLogs, tasks: Tasks) -> None:
        self._logs = logs
        self._tasks = tasks

    async def append(self, task_id: TaskId, *, epoch: int, offset: int, data: bytes) -> int:
        """Write what the holder of ``epoch`` printed; return the log's size.

        Raises:
            Conflict: somebody else holds the task (``stale_epoch``), or there is a hole (``log_hole``).
        """
        task, _ = await self._tasks.get(task_id)
        if task.epoch != epoch:
            raise Conflict(
                f"epoch {epoch} of task {task_id} is over",
                code="stale_epoch",
                reason=f"it stands at epoch {task.epoch}, {task.state.value}",
                resolution="end this attempt; its work goes on elsewhere",
            )
        return await self._logs.append(task_id, epoch, offset=offset, data=data)

    async def read(self, task_id: TaskId, *, epoch: int | None, offset: int) -> LogPart:
        """Return a part of the log of one lease (``None``: the last one that has any)."""
        await self._tasks.get(task_id)
        return await self._logs.read(task_id, epoch, offset=offset, limit=PART_BYTES)

    async def follow(self, task_id: TaskId, *, epoch: int | None, offset: int) -> AsyncIterator[LogPart]:
        """Yield parts as they are written, until the attempt is over and all of it was told."""
        while True:
            # The state is read before the log: what is written after a state that is over cannot be missed.
            task, _ = await self._tasks.get(task_id)
            running = task.state is TaskState.RUNNING and epoch in (None, task.epoch)
            part = await self._part(task_id, epoch, offset)
            if part is not None and part.data:
                epoch, offset = part.epoch, part.offset + len(part.data)
                yield part
            elif not running:
                return
            else:
                await asyncio.sleep(TAIL_EVERY_S)

    async def _part(self, task_id: TaskId, epoch: int | None, offset: int) -> LogPart | None:
        try:
            return await self._logs.read(task_id, epoch, offset=offset, limit=PART_BYTES)
        except NotFound:
            return None
