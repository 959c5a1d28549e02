"""One at a time for each agent; and work that goes on when nobody waits for it any more."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import structlog

from borough.core.ids import AgentId

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Turns:
    """Locks by agent, kept as long as somebody has or wants one."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[AgentId, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, agent_id: AgentId) -> AsyncIterator[None]:
        """Hold the agent's turn."""
        lock = self._locks.get(agent_id)
        if lock is None:
            lock = self._locks[agent_id] = asyncio.Lock()
        async with lock:
            yield


class Chores:
    """Tasks that are kept until they are done."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self, work: Coroutine[Any, Any, object], name: str) -> None:
        """Begin ``work``; nobody waits for it."""
        self.task(work, name).add_done_callback(_tell)

    def task(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Begin ``work``, and keep it."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finish(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Do ``work`` to its end also when the caller is cancelled meanwhile."""
        return await asyncio.shield(self.task(work, name))

    async def all_done(self) -> None:
        """Return once nothing is under way."""
        while self._tasks:
            await asyncio.wait([*self._tasks])

    async def cancel(self) -> None:
        """Stop everything where it is."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _tell(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("chore.broken", chore=task.get_name(), exc_info=error)
