"""The gate that every request passes: may this caller do this to that agent? A refusal is recorded."""

from collections.abc import Iterable

from borough.core.errors import Forbidden, NotFound
from borough.core.ids import AgentId
from borough.governance.access import (
    Standing,
    Verb,
    check_verb,
    holds,
    is_narrow,
    may_touch,
    sees,
    sees_everything,
)
from borough.governance.agents import GovernedAgent
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
            await self._recorder.denied(asker, what, refusal, target=target)
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

    async def reach(self, asker: Asker, verb: Verb) -> frozenset[AgentId] | None:
        """Return the agents whose entries a list shows to the caller, or ``None``: it shows everything.

        Raises:
            Forbidden: it shows nothing at all (``scope_missing``, ``denied``).
        """
        standing = await self.admit(asker, verb)
        facts = await self._standings.facts(asker.caller.agent_id)
        if sees_everything(asker.caller, standing, facts, verb=verb, strict=self._strict):
            return None
        seen = await self.visible(asker, verb, await self._agents.all(ended=True))
        return frozenset(agent.id for agent in seen) | {asker.caller.agent_id}

    async def admit_both(self, asker: Asker, verb: Verb, target: GovernedAgent | None, *, subject: str) -> Standing:
        """Let a request pass that acts in the name of ``target``: both the caller and it need the capability."""
        standing = await self.admit(asker, verb, target, subject=subject)
        if target is not None and target.id != asker.caller.agent_id and not await self.holds(target, verb, subject):
            refusal = Forbidden(
                "permission denied",
                code="denied",
                reason=f"the agent {target.name} itself may not do this",
                resolution="have the capability granted to it",
            )
            await self._recorder.denied(asker, f"{verb.value} {subject}", refusal, target=target)
            raise refusal
        return standing

    async def holds(self, agent: GovernedAgent, verb: Verb, subject: str) -> bool:
        """Tell whether an agent's own capabilities let it do ``verb`` to ``subject``."""
        facts = await self._standings.facts(agent.id)
        return holds(verb, subject, await self._standings.rules_of(agent), facts)

    async def sees(self, asker: Asker, verb: Verb, agent_id: AgentId) -> bool:
        """Tell whether a list shows an agent to the caller; one that is not kept (any more) is shown to nobody here."""
        try:
            target = await self._standings.target(await self._agents.get(agent_id))
        except NotFound:
            return False
        standing = await self._standings.of(asker.caller)
        facts = await self._standings.facts(asker.caller.agent_id)
        return sees(asker.caller, standing, target, facts, verb=verb, strict=self._strict)

    async def may_touch(self, asker: Asker, verb: Verb, subjects: Iterable[str]) -> tuple[str, ...]:
        """Return those of ``subjects`` (keys, say) that the caller's capabilities let it do ``verb`` to."""
        standing = await self._standings.of(asker.caller)
        facts = await self._standings.facts(asker.caller.agent_id)
        return tuple(each for each in subjects if may_touch(verb, each, asker.caller, standing, facts))
