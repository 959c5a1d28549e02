"""Tells the sockets which runs there are, by watching them being started, adopted and ended."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from borough.core.ids import AgentId
from borough.governance.lifecycle import Exit
from borough.governance.ports.confinement import AgentOrder, AgentProcess, AgentRunner, Enforcement
from borough.ipc.identity import NonceRegistry, nonce_sha256

NonceOf = Callable[[AgentId, str], Awaitable[str | None]]
"""From agent and run to the SHA-256 of the run's nonce, as it was kept when the run began."""


class AnnouncingRunner:
    """An ``AgentRunner`` around another: a run may connect from before its process starts until it has ended."""

    def __init__(self, runner: AgentRunner, runs: NonceRegistry, *, nonce_of: NonceOf) -> None:
        self._runner = runner
        self._runs = runs
        self._nonce_of = nonce_of
        self._present: dict[AgentId, str] = {}

    async def probe(self) -> Enforcement:
        """Return what this host can enforce."""
        return await self._runner.probe()

    async def start(self, order: AgentOrder) -> AgentProcess | None:
        """Start an agent, which may connect at once."""
        self._expect(order.agent_id, order.run_id, nonce_sha256(order.nonce))
        process = None
        try:
            process = await self._runner.start(order)
        finally:
            if process is None:
                self._ended(order.agent_id)
        if process is not None:
            self._runs.started(order.run_id, pid=process.pid, started_ticks=process.started_ticks)
        return process

    async def adopt(self, agent_id: AgentId, run_id: str) -> AgentProcess | None:
        """Take over a run that outlived a daemon; it may connect again."""
        process = await self._runner.adopt(agent_id, run_id)
        digest = await self._nonce_of(agent_id, run_id)
        if process is not None and digest is not None:
            self._expect(agent_id, run_id, digest)
            self._runs.started(run_id, pid=process.pid, started_ticks=process.started_ticks)
        return process

    async def pause(self, agent_id: AgentId) -> None:
        """Stop every process of the agent where it is."""
        await self._runner.pause(agent_id)

    async def resume(self, agent_id: AgentId) -> None:
        """Let them go on."""
        await self._runner.resume(agent_id)

    async def end(self, agent_id: AgentId, *, grace: timedelta) -> Exit:
        """End an agent; its connections end with it."""
        ended = await self._runner.end(agent_id, grace=grace)
        self._ended(agent_id)
        return ended

    async def exited(self, agent_id: AgentId) -> Exit:
        """Return how the agent ended, as soon as it has."""
        run_id = self._present.get(agent_id)
        ended = await self._runner.exited(agent_id)
        if self._present.get(agent_id) == run_id:
            self._ended(agent_id)
        return ended

    async def logs(self, agent_id: AgentId, run_id: str, *, offset: int, limit: int) -> bytes:
        """Return a part of what the agent printed."""
        return await self._runner.logs(agent_id, run_id, offset=offset, limit=limit)

    def _expect(self, agent_id: AgentId, run_id: str, digest: str) -> None:
        self._present[agent_id] = run_id
        self._runs.expect(agent_id, run_id, nonce_sha256=digest)

    def _ended(self, agent_id: AgentId) -> None:
        run_id = self._present.pop(agent_id, None)
        if run_id is not None:
            self._runs.ended(run_id)
