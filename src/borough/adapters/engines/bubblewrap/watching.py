"""The disk of a workspace while a box writes to it: a box that takes too much is ended."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from borough.adapters.engines.bubblewrap.limits import BoxLimits
from borough.adapters.workspaces.layout import Layout
from borough.core.ids import AgentId

_EVERY_S = 0.5
_SHARE_OF_TIME = 10
"""A look may take a tenth of the time between two."""
_BLOCK_BYTES = 512

_log = structlog.get_logger(__name__)


class Watch:
    """Looks at workspaces."""

    def __init__(self, layout: Layout, limits: BoxLimits) -> None:
        self._layout = layout
        self._limits = limits

    @asynccontextmanager
    async def over(self, agent_id: AgentId, end: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Watch an agent's workspace as long as the context lasts; call ``end`` when it takes too much."""
        task = asyncio.get_running_loop().create_task(self._look(agent_id, end))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _look(self, agent_id: AgentId, end: Callable[[], Awaitable[None]]) -> None:
        upper = str(self._layout.place(agent_id).upper)
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            if reason := await asyncio.to_thread(self.excess, upper):
                _log.warning("box_ended_for_disk", agent_id=agent_id, reason=reason)
                await end()
                return
            await asyncio.sleep(max(_EVERY_S, (loop.time() - began) * _SHARE_OF_TIME))

    def excess(self, upper: str) -> str | None:
        """Return why too much is taken, or ``None``."""
        disk = os.statvfs(upper)
        if disk.f_bavail * disk.f_frsize < self._limits.free_bytes:
            return f"less than {self._limits.free_bytes} bytes are free on its disk"
        taken = 0
        for _, folders, files, descriptor in os.fwalk(upper):
            for name in (*folders, *files):
                try:
                    taken += os.lstat(name, dir_fd=descriptor).st_blocks * _BLOCK_BYTES
                except FileNotFoundError:
                    continue  # deleted between the two looks
            if taken > self._limits.workspace_bytes:
                return f"the workspace takes more than {self._limits.workspace_bytes} bytes"
        return None
