"""Use cases of agents: start them, steer them, end them, forget them."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from borough.core.clock import utc_now
from borough.core.errors import BoroughError
from borough.core.ids import AgentId
from borough.town.agents import TERMINAL, Agent, AgentState, Confinement, NewAgent
from borough.town.explain import Explanation, explain_agent
from borough.town.names import agent_name, role_name
from borough.town.ports.agents import Agents
from borough.town.ports.leases import Leases
from borough.town.ports.workers import Launcher, LaunchOrder, WorkerTokens
from borough.town.tasks import HistoryEntry, RetryPolicy

KILL_GRACE = timedelta(seconds=2)
STOP_GRACE = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An agent as a caller wants it."""

    name: str
    cli: str | None = None
    role_id: str | None = None
    nickname: str | None = None
    parent_agent_id: AgentId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A worker that runs elsewhere, and the credential it is to use."""

    agent: Agent
    token: str


class AgentService:
    """The town's agents and the processes that serve them."""

    def __init__(
        self,
        agents: Agents,
        leases: Leases,
        launcher: Launcher,
        tokens: WorkerTokens,
        *,
        retry: RetryPolicy,
        server_url: str,
        max_agents: int,
        default_cli: str,
    ) -> None:
        self._agents = agents
        self._leases = leases
        self._launcher = launcher
        self._tokens = tokens
        self._retry = retry
        self._server_url = server_url
        self._max_agents = max_agents
        self._default_cli = default_cli

    async def spawn(self, candidate: Candidate, *, agent_id: AgentId) -> Agent:
        """Register an agent and start its process on this machine.

        Raises:
            Invalid: its name or role cannot be one.
            Conflict: the name is taken or the town is full.
            Unavailable: the process could not be started; the agent is then in state ``error`` and says why.
        """
        agent = await self._register(candidate, agent_id=agent_id, adopt=False)
        await self._launch(agent)
        return agent

    async def register(self, candidate: Candidate, *, agent_id: AgentId) -> Registration:
        """Register a worker that somebody else starts, adopting an ended agent of the same name."""
        agent = await self._register(candidate, agent_id=agent_id, adopt=True)
        return Registration(agent=agent, token=self._tokens.mint(agent_id=agent.id, incarnation=agent.incarnation))

    async def _register(self, candidate: Candidate, *, agent_id: AgentId, adopt: bool) -> Agent:
        new = NewAgent(
            id=agent_id,
            name=agent_name(candidate.name),
            cli=candidate.cli or self._default_cli,
            role_id=role_name(candidate.role_id) if candidate.role_id is not None else None,
            nickname=candidate.nickname,
            parent_agent_id=candidate.parent_agent_id,
            adopt=adopt,
        )
        return await self._agents.add(new, max_agents=self._max_agents)

    async def _launch(self, agent: Agent) -> None:
        order = LaunchOrder(
            agent_id=agent.id,
            name=agent.name,
            incarnation=agent.incarnation,
            server_url=self._server_url,
            token=self._tokens.mint(agent_id=agent.id, incarnation=agent.incarnation),
            cli=agent.cli,
        )
        try:
            await self._launcher.launch(order)
        except BoroughError as error:
            await self._leases.leave(
                agent.id, incarnation=agent.incarnation, state=AgentState.ERROR, reason=error.message
            )
            raise

    async def get(self, agent: str) -> Agent:
        """Return one agent."""
        return await self._agents.get(agent)

    def confinement(self, agent: Agent) -> Confinement | None:
        """Tell whether an agent's worker is in a box; ``None`` where it has none, or none on this machine."""
        if agent.state in TERMINAL:
            return None
        return self._launcher.confinement(agent.id, agent.incarnation, agent.process)

    async def history(self, agent: str) -> tuple[HistoryEntry, ...]:
        """Return what happened to an agent."""
        return await self._agents.history(agent)

    async def all(self) -> tuple[Agent, ...]:
        """Return every agent."""
        return await self._agents.all()

    async def kill(self, agent: str, *, by: str) -> Agent:
        """End an agent: first what it may write, then its processes, to the last one."""
        before = await self._agents.kill(agent, reason=f"killed by {by}")
        await self._end_process(before)
        return before

    async def quarantine(self, agent: str, *, by: str) -> bool:
        """Take from an agent what it may write, and freeze its processes where they run on this machine; tell whether
        they are. Whoever kills it afterwards ends them.
        """
        before = await self._agents.kill(agent, reason=f"quarantined by {by}")
        return await self._launcher.freeze(before.id, before.process)

    async def stop(self, agent: Agent, *, reason: str) -> None:
        """End an agent, its task given back unharmed, then its process, which gets longer to end than a killed one.

        In this order the reason is ours: a worker that is told to end would give another.
        """
        before = await self._agents.kill(agent.id, reason=reason)
        await self._launcher.end(before.id, before.process, grace=STOP_GRACE)

    async def restart(self, agent: str, *, by: str) -> Agent:
        """Start an agent again, whatever it did before; its old process is gone before the new one begins."""
        before = await self._agents.get(agent)
        await self._agents.kill(before.id, reason=f"restarted by {by}")
        await self._end_process(before)
        after = await self._agents.begin(before.id, reason=f"restarted by {by}")
        await self._launch(after)
        return after

    async def pause(self, agent: str) -> Agent:
        """Freeze an agent where it is."""
        return await self._agents.pause(agent)

    async def resume(self, agent: str) -> Agent:
        """Let a paused agent go on."""
        return await self._agents.resume(agent)

    async def close(self, agent: str) -> Agent:
        """Let an agent finish what it has and leave."""
        return await self._agents.close(agent)

    async def prune(self, *, every: bool, dry_run: bool) -> tuple[Agent, ...]:
        """Forget ended agents, or all; what waited for them returns to the backlog."""
        pruned = await self._agents.prune(every=every, dry_run=dry_run)
        if not dry_run:
            await asyncio.gather(*(self._end_process(agent) for agent in pruned))
        return pruned

    async def lost(self, agents: tuple[Agent, ...]) -> None:
        """Clear away what is left of agents whose lease ended: their processes may still run, fenced."""
        await asyncio.gather(*(self._end_process(agent) for agent in agents))

    async def worker_exited(self, agent_id: AgentId, incarnation: int, reason: str) -> None:
        """Note at once that a local worker's process is gone, without waiting for its lease to end."""
        await self._leases.lose(agent_id, incarnation=incarnation, reason=reason, retry=self._retry)
        await self._launcher.end(agent_id, None, grace=KILL_GRACE)

    async def explain(self, agent: str) -> Explanation:
        """Say why an agent stands where it stands."""
        return explain_agent(await self._agents.get(agent), now=utc_now())

    async def _end_process(self, agent: Agent) -> None:
        await self._launcher.end(agent.id, agent.process, grace=KILL_GRACE)
