"""Endorsing: a person has looked at what an agent read, and lets it send things out again."""

from borough.core.ids import AgentId
from borough.governance.access import Verb
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.ports.register import Agents
from borough.governance.services.asking import Asker
from borough.governance.services.gate import Gate
from borough.governance.services.recording import Recorder


class Endorsing:
    """Clears taint."""

    def __init__(self, *, agents: Agents, gate: Gate, recorder: Recorder) -> None:
        self._agents = agents
        self._gate = gate
        self._recorder = recorder

    async def endorse(self, asker: Asker, agent_id: AgentId, *, reason: str) -> GovernedAgent:
        """Clear an agent's taint; agents cannot do this, not for those below them either."""
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.ENDORSE, agent)
        async with self._recorder.act(
            asker, Action.ENDORSE, detail=reason, target=agent, data={"tainted": agent.tainted}
        ):
            await self._agents.taint(agent_id, tainted=False)
        return await self._agents.get(agent_id)
