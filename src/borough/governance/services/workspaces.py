"""Agents' workspaces: snapshots, what changed since, and going back."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from borough.core.clock import utc_now
from borough.core.ids import AgentId
from borough.governance.access import Verb
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.lifecycle import Phase, Status
from borough.governance.ports.confinement import AgentRunner
from borough.governance.ports.register import Agents
from borough.governance.ports.workspaces import Change, Snapshot, Workspaces
from borough.governance.services.asking import Asker, daemon
from borough.governance.services.endings import Processes
from borough.governance.services.gate import Gate
from borough.governance.services.recording import Recorder
from borough.governance.services.turns import Turns

MOST_DESCRIPTION = 1000


class WorkspaceService:
    """The use cases around workspaces, one at a time for each agent.

    All raise ``NotFound`` (``agent_not_found``) and ``Forbidden`` (``scope_missing``, ``denied``, ``not_related``).
    """

    def __init__(
        self,
        *,
        gate: Gate,
        agents: Agents,
        workspaces: Workspaces,
        runner: AgentRunner,
        recorder: Recorder,
        processes: Processes,
    ) -> None:
        self._gate = gate
        self._agents = agents
        self._workspaces = workspaces
        self._runner = runner
        self._recorder = recorder
        self._processes = processes
        self._turns = Turns()
        self._next: dict[AgentId, datetime] = {}

    async def snapshot(self, asker: Asker, agent_id: AgentId, *, description: str) -> Snapshot:
        """Keep the present state."""
        agent = await self._admit(asker, Verb.SNAPSHOT, agent_id)
        return await self._snapshot(asker, agent, description)

    async def history(self, asker: Asker, agent_id: AgentId) -> tuple[Snapshot, ...]:
        """Return the snapshots, oldest first."""
        await self._admit(asker, Verb.DIFF, agent_id)
        return await self._workspaces.history(agent_id)

    async def diff(self, asker: Asker, agent_id: AgentId) -> Sequence[Change]:
        """Return what differs from the last snapshot, or from the base when there is none, by path."""
        await self._admit(asker, Verb.DIFF, agent_id)
        return await self._workspaces.diff(agent_id)

    async def rollback(self, asker: Asker, agent_id: AgentId, index: int) -> Snapshot:
        """Return to a snapshot; the agent is stopped where it is meanwhile.

        Raises:
            NotFound: there is no such snapshot (``snapshot_not_found``).
        """
        agent = await self._admit(asker, Verb.ROLLBACK, agent_id)
        data, told = {"index": index}, f"to snapshot {index}"
        async with (
            self._turns.of(agent_id),
            self._recorder.act(asker, Action.WORKSPACE_ROLLBACK, detail=told, target=agent, data=data),
            self._stopped(agent),
        ):
            return await self._workspaces.rollback(agent_id, index)

    async def commit(self, asker: Asker, agent_id: AgentId, *, description: str) -> Snapshot:
        """Make the present state a lasting snapshot on which later changes are counted anew."""
        agent = await self._admit(asker, Verb.COMMIT, agent_id)
        async with (
            self._turns.of(agent_id),
            self._recorder.act(asker, Action.WORKSPACE_COMMIT, detail=description, target=agent) as act,
            self._stopped(agent),
        ):
            made = await self._workspaces.commit(agent_id, at=utc_now(), description=description)
            act.data["index"] = made.index
            return made

    async def snapshot_due(self) -> None:
        """Take the snapshots that manifests want at intervals."""
        now, running = utc_now(), await self._agents.all(ended=False)
        for agent in running:
            wanted = (await self._agents.manifest(agent.id)).workspace
            if not wanted.auto_snapshot or agent.phase in (Phase.INIT, Phase.TERMINATE):
                continue
            every = timedelta(seconds=wanted.snapshot_interval_s)
            due = self._next.get(agent.id) or await self._first_due(agent, every)
            if now >= due:
                await self._snapshot(daemon(f"snapshot:{agent.id}:{now.isoformat()}"), agent, "at its interval")
                due = now + every
            self._next[agent.id] = due
        for gone in self._next.keys() - {agent.id for agent in running}:
            del self._next[gone]

    async def _first_due(self, agent: GovernedAgent, every: timedelta) -> datetime:
        taken = await self._workspaces.history(agent.id)
        return (taken[-1].created_at if taken else agent.run_started_at) + every

    async def _snapshot(self, asker: Asker, agent: GovernedAgent, description: str) -> Snapshot:
        async with (
            self._turns.of(agent.id),
            self._recorder.act(asker, Action.WORKSPACE_SNAPSHOT, detail=description, target=agent) as act,
        ):
            made = await self._workspaces.snapshot(agent.id, at=utc_now(), description=description)
            act.data["index"] = made.index
            return made

    async def _admit(self, asker: Asker, verb: Verb, agent_id: AgentId) -> GovernedAgent:
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, verb, agent)
        return agent

    @asynccontextmanager
    async def _stopped(self, agent: GovernedAgent) -> AsyncIterator[None]:
        """Stop the agent's processes where they are, unless they are stopped already, and let them go on after."""
        if not self._processes.has(agent) or agent.status is Status.PAUSED:
            yield
            return
        await self._runner.pause(agent.id)
        try:
            yield
        finally:
            if (await self._agents.get(agent.id)).status is not Status.PAUSED and self._processes.has(agent):
                await self._runner.resume(agent.id)
