"""What the proxy decided, told to whoever keeps the record: refusals each, what passed by its endpoint."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from borough.core.ids import AgentId

TOLD_EVERY_S = 60.0
_MOST_ENDPOINTS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressVerdict:
    """Whether a run's process was let out to a host and port, and why."""

    agent_id: AgentId
    run_id: str
    host: str
    port: int
    allowed: bool
    reason: str
    """The line of the policy that let it pass, or why none did."""
    connections: int = 1
    """How many connections this stands for."""


OnVerdict = Callable[[EgressVerdict], Awaitable[None]]
"""Records a verdict. While it raises, nothing passes: what cannot be recorded does not happen."""


class VerdictBook:
    """The verdicts of one box. The first connection to an endpoint is told before it is made, more are summed up."""

    def __init__(self, agent_id: AgentId, run_id: str, tell: OnVerdict) -> None:
        self._agent_id, self._run_id, self._tell = agent_id, run_id, tell
        self._passed: dict[tuple[str, int], tuple[float, EgressVerdict]] = {}
        """When each endpoint was last told, and what has passed since; a count of 0 means nothing."""

    async def refused(self, host: str, port: int, reason: str) -> None:
        """Tell that a connection was refused."""
        await self._tell(self._verdict(host, port, allowed=False, reason=reason))

    async def allowed(self, host: str, port: int, rule: str) -> None:
        """Tell that a connection passes, or count it when its endpoint was told a moment ago."""
        now = asyncio.get_running_loop().time()
        told_at, since = self._passed.get((host, port), (None, self._verdict(host, port, allowed=True, reason=rule)))
        count = since.connections + 1 if told_at is not None else 1
        if told_at is not None and now - told_at < TOLD_EVERY_S:
            self._passed[host, port] = (told_at, replace(since, connections=count))
            return
        await self._tell(replace(since, connections=count))
        if len(self._passed) >= _MOST_ENDPOINTS:
            await self.close()
        self._passed[host, port] = (now, replace(since, connections=0))

    async def close(self) -> None:
        """Tell what was counted and not told yet."""
        passed, self._passed = self._passed, {}
        for _, since in passed.values():
            if since.connections:
                await self._tell(since)

    def _verdict(self, host: str, port: int, *, allowed: bool, reason: str) -> EgressVerdict:
        return EgressVerdict(
            agent_id=self._agent_id, run_id=self._run_id, host=host, port=port, allowed=allowed, reason=reason
        )
