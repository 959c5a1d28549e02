"""What is reported from outside the daemon, and belongs into the ledger: connections, attached servers."""

from collections.abc import Mapping
from dataclasses import dataclass

from borough.core.errors import NotFound
from borough.core.ids import AgentId, new_id
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.ledger import Outcome, Via
from borough.governance.ports.register import Agents
from borough.governance.services.asking import Asker
from borough.governance.services.recording import Recorder
from borough.governance.tokens import ROLE_SCOPES, Caller, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A way out of an agent's box that was opened or refused."""

    host: str
    port: int
    allowed: bool
    reason: str
    connections: int
    """How many connections this stands for."""


class ReportService:
    """Records reports in the name of the agent that they are of."""

    def __init__(self, agents: Agents, recorder: Recorder) -> None:
        self._agents = agents
        self._recorder = recorder

    async def connection(self, agent_id: AgentId, run_id: str, made: Connection) -> None:
        """Record that an agent was let out to a host, or was not.

        Raises:
            Unavailable: the ledger cannot be written (``ledger_unavailable``); the agent must not be let out then.
        """
        await self._recorder.event(
            _own(agent_id, "network"),
            Action.NETWORK_ACCESS,
            outcome=Outcome.SUCCESS if made.allowed else Outcome.DENIED,
            detail=f"{made.host}:{made.port}",
            target=await self._known(agent_id),
            agent_name=await self._name(agent_id),
            data={"reason": made.reason, "connections": made.connections, "run_id": run_id},
        )

    async def server(self, agent_id: AgentId, server: str, event: str, tools: Mapping[str, str]) -> None:
        """Record what happened to a server that is attached to an agent; raises ``Unavailable`` likewise."""
        await self._recorder.event(
            _own(agent_id, "mcp"),
            Action.MCP_REPORT,
            outcome=Outcome.DENIED,
            detail=f"{server}: {event}",
            target=await self._known(agent_id),
            agent_name=await self._name(agent_id),
            data={"server": server, "event": event, "tools": dict(tools)},
        )

    async def _known(self, agent_id: AgentId) -> GovernedAgent | None:
        try:
            return await self._agents.get(agent_id)
        except NotFound:
            return None

    async def _name(self, agent_id: AgentId) -> str:
        agent = await self._known(agent_id)
        return "" if agent is None else agent.name


def _own(agent_id: AgentId, of: str) -> Asker:
    caller = Caller(token_name=of, agent_id=agent_id, role=Role.AGENT, scopes=ROLE_SCOPES[Role.AGENT])
    reason = f"{of}:{new_id()}"
    return Asker(caller=caller, via=Via.DAEMON, request_id=reason, operation_key=reason)
