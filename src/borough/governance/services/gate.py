"""The gate that every request passes: may this caller do this to that agent? A refusal is recorded."""

from collections.abc import Iterable

from borough.core.errors import Forbidden, NotFound
from borough.core.ids import AgentId
from borough.governance.access import Standing, Verb, check_verb, is_narrow, sees
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.ledger import Outcome
from borough.governance.ports.register import Agents
from borough.governance.services.asking import Asker
from borough.governance.services.recording import Recorder
from borough.governance.services.standing import Standings


class Gate:
    """Admits requests by ``access.check_verb``."""

    def __init__(self, agents: Agents, standings: Standings, recorder: Recorder, *, strict: bool) -> None:
        """``strict``: every token reaches its own agent and what descends from it only, as an agent's does."""
        self._agents = agents
        self._standings = standings
        self._recorder = recorder
        self._strict = strict

    async def agent(self, agent_id: AgentId) -> GovernedAgent:
        """Return the agent that a request names; raises ``NotFound`` (``agent_not_found``)."""
        try:
            return await self._agents.get(agent_id)
        except NotFound:
            raise NotFound(
                f"agent not found: {agent_id}", code="agent_not_found", resolution="list the agents: ash list"
            ) from None

    async def admit(
        self, asker: Asker, verb: Verb, target: GovernedAgent | None = None, *, subject: str | None = None
    ) -> Standing:
        """Let a request pass and return what its caller is as an agent.

        Raises:
            Forbidden: it may not (``scope_missing``, ``denied``, ``not_related``); that it was refused is recorded.
        """
        standing = await self._standings.of(asker.caller)
        facts = await self._standings.facts(asker.caller.agent_id)
        meant = None if target is None else await self._standings.target(target)
        try:
            check_verb(
                verb,
                caller=asker.caller,
                standing=standing,
                target=meant,
                facts=facts,
                subject=subject,
                strict=self._strict,
            )
        except Forbidden as refusal:
            what = f"{verb.value} {subject}" if subject else verb.value
            await self._refused(asker, what, refusal, name=standing.name, target=target)
            raise
        return standing

    def is_narrow(self, asker: Asker) -> bool:
        """Tell whether the caller reaches only itself and what descends from it by right: an agent, no operator."""
        return is_narrow(asker.caller, strict=self._strict)

    async def visible(self, asker: Asker, verb: Verb, agents: Iterable[GovernedAgent]) -> tuple[GovernedAgent, ...]:
        """Return those of ``agents`` that the caller may see; raises ``Forbidden`` (``scope_missing``)."""
        standing = await self.admit(asker, verb)
        facts = await self._standings.facts(asker.caller.agent_id)
        seen = [
            agent
            for agent in agents
            if sees(asker.caller, standing, await self._standings.target(agent), facts, verb=verb, strict=self._strict)
        ]
        return tuple(seen)

    async def _refused(
        self, asker: Asker, what: str, refusal: Forbidden, *, name: str, target: GovernedAgent | None
    ) -> None:
        await self._recorder.event(
            asker,
            Action.ACCESS_DENIED,
            outcome=Outcome.DENIED,
            detail=what,
            agent_name=name,
            target=target,
            data={"code": refusal.code, "reason": refusal.reason or refusal.message},
        )
