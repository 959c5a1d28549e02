"""Escalations: sent up to whoever stands above, as a message and in a list that lasts, until somebody decides."""

import asyncio
from collections.abc import Mapping

from borough.core.clock import utc_now
from borough.core.errors import Conflict, Forbidden
from borough.core.ids import AgentId
from borough.governance.access import Verb
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.canonical import Json, plain_text
from borough.governance.escalations import (
    Escalation,
    EscalationKind,
    EscalationState,
    check_request,
    pass_up,
    resolve,
)
from borough.governance.ledger import Outcome
from borough.governance.lifecycle import Phase
from borough.governance.messages import BusMessage
from borough.governance.ports.escalations import Escalations
from borough.governance.ports.records import Bus
from borough.governance.ports.register import Agents
from borough.governance.services.asking import Asker, daemon
from borough.governance.services.gate import Gate
from borough.governance.services.grants import GrantService, giver
from borough.governance.services.recording import Recorder

__all__ = ["EscalationService", "topic_of"]

_WORDS = {"approve": EscalationState.APPROVED, "deny": EscalationState.DENIED}


class EscalationService:
    """Sends up, and has decided."""

    def __init__(
        self,
        *,
        escalations: Escalations,
        agents: Agents,
        bus: Bus,
        gate: Gate,
        grants: GrantService,
        recorder: Recorder,
    ) -> None:
        self._escalations = escalations
        self._agents = agents
        self._bus = bus
        self._gate = gate
        self._grants = grants
        self._recorder = recorder
        self._deciding = asyncio.Lock()

    async def request_capability(
        self, asker: Asker, agent_id: AgentId, capability: str, *, reason: str, ttl_s: int | None = None
    ) -> Escalation:
        """Ask for a capability in an agent's name.

        Raises:
            Invalid: what is asked for cannot be (``invalid_capability``, ``invalid_capability_request``).
        """
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.REQUEST_CAPABILITY, agent)
        wanted = check_request(capability, reason, ttl_s)
        return await self.raise_(
            asker,
            agent,
            EscalationKind.CAPABILITY_REQUEST,
            reason,
            escalation_id=asker.derived("escalation", agent_id, wanted),
            capability=wanted,
            ttl_s=ttl_s,
        )

    async def raise_(
        self,
        asker: Asker,
        agent: GovernedAgent,
        kind: EscalationKind,
        detail: str,
        *,
        escalation_id: str,
        capability: str | None = None,
        ttl_s: int | None = None,
    ) -> Escalation:
        """Send something up from an agent: to its parent while that runs, or else to people."""
        escalation = Escalation(
            id=escalation_id,
            from_agent_id=agent.id,
            to_agent_id=await self._above(agent.parent_id),
            kind=kind,
            detail=detail,
            created_at=utc_now(),
            capability=capability,
            ttl_s=ttl_s,
        )
        async with self._recorder.act(
            asker, Action.ESCALATION, detail=f"{kind.value}: {detail}", target=agent, data=_told(escalation)
        ):
            await self._escalations.add(escalation)
        await self._announce(escalation)
        return escalation

    async def open(self, asker: Asker) -> tuple[Escalation, ...]:
        """Return what waits: for people all of it, for an agent what was sent to it or came from it."""
        await self._gate.admit(asker, Verb.LIST)
        found = await self._escalations.open()
        if not self._gate.is_narrow(asker):
            return found
        me = asker.caller.agent_id
        return tuple(one for one in found if me in (one.to_agent_id, one.from_agent_id))

    async def resolve(self, asker: Asker, escalation_id: str, verdict: str, *, reason: str = "") -> Escalation:
        """Decide: ``approve``, ``deny`` or ``pass_up``. Approving a request for a capability gives it.

        ``reason`` is recorded, and told to the agent that asked.

        Raises:
            NotFound: there is no such escalation (``escalation_not_found``).
            Forbidden: it is not the caller's to decide (``not_related``), or what is asked for is not the caller's to
                give (``over_ceiling``, ``capability_escalation_denied``).
            Conflict: it was decided already (``already_decided``), or nobody stands above (``at_the_top``).
        """
        async with self._deciding:
            before = await self._escalations.get(escalation_id)
            agent = await self._gate.agent(before.from_agent_id)
            await self._gate.admit(asker, Verb.RESOLVE_ESCALATION, agent)
            self._check_addressee(asker, before)
            if verdict == "pass_up":
                return await self._pass_up(asker, agent, before, reason=reason)
            after = resolve(before, _WORDS[verdict], by=giver(asker), at=utc_now())
            if after is before:
                return before
            if after.state is EscalationState.APPROVED and before.capability is not None:
                await self._grants.issue(asker, agent.id, before.capability, ttl_s=before.ttl_s)
            await self._store(asker, agent, before, after, reason=reason)
        await self._answer(after, reason)
        return after

    def _check_addressee(self, asker: Asker, escalation: Escalation) -> None:
        if self._gate.is_narrow(asker) and escalation.to_agent_id != asker.caller.agent_id:
            raise Forbidden(
                "permission denied",
                code="not_related",
                reason="the escalation was not sent to the caller",
                resolution="leave it to whom it was sent",
            )

    async def _pass_up(self, asker: Asker, agent: GovernedAgent, before: Escalation, *, reason: str = "") -> Escalation:
        holder = before.to_agent_id
        above = None if holder is None else await self._above((await self._agents.get(holder)).parent_id)
        after = pass_up(before, above)
        await self._store(asker, agent, before, after, reason=reason)
        await self._announce(after)
        return after

    async def _store(
        self, asker: Asker, agent: GovernedAgent, before: Escalation, after: Escalation, *, reason: str = ""
    ) -> None:
        word = "pass_up" if after.state is EscalationState.OPEN else after.state.value
        told = f"{word} {before.kind.value}" + (f": {reason}" if reason else "")
        async with self._recorder.act(
            asker, Action.ESCALATION_RESOLVE, detail=told, target=agent, data=_told(after)
        ) as act:
            act.outcome = Outcome.DENIED if after.state is EscalationState.DENIED else Outcome.SUCCESS
            await self._escalations.replace(after, was=before)

    async def on_end(self, agent_id: AgentId) -> None:
        """Take back what an agent asked for that has ended, and send on what it did not decide."""
        for before in await self._escalations.open():
            agent = await self._agents.get(before.from_agent_id)
            who = daemon(f"end {agent_id} {before.id}")
            if before.from_agent_id == agent_id:
                after = resolve(before, EscalationState.CANCELLED, by="the agent's end", at=utc_now())
                await self._store(who, agent, before, after)
            elif before.to_agent_id == agent_id:
                await self._pass_up(who, agent, before)

    async def _above(self, parent_id: AgentId | None) -> AgentId | None:
        """Return the nearest agent above that runs."""
        while parent_id is not None:
            parent = await self._agents.get(parent_id)
            if parent.phase is not Phase.TERMINATE:
                return parent.id
            parent_id = parent.parent_id
        return None

    async def _announce(self, escalation: Escalation) -> None:
        if escalation.to_agent_id is not None:
            await self._send(escalation.to_agent_id, {**_told(escalation), "detail": escalation.detail})

    async def _answer(self, escalation: Escalation, reason: str) -> None:
        """Tell the agent that asked."""
        told = {**_told(escalation), "state": escalation.state.value, "reason": reason or None}
        await self._send(escalation.from_agent_id, told)

    async def _send(self, to: AgentId, payload: Mapping[str, Json]) -> None:
        topic = topic_of(to)
        try:
            await self._bus.subscribe(to, topic)
        except Conflict:
            return  # It has as many subscriptions as it may; the list that lasts has the escalation all the same.
        await self._bus.publish(BusMessage(topic=topic, payload=plain_text(dict(payload)), published_at=utc_now()))


def topic_of(agent_id: AgentId) -> str:
    """Return the topic under which an agent hears of escalations."""
    return f"scarab.escalation.{agent_id}"


def _told(escalation: Escalation) -> dict[str, Json]:
    return {
        "escalation_id": escalation.id,
        "type": escalation.kind.value,
        "agent_id": escalation.from_agent_id,
        "to_agent_id": escalation.to_agent_id,
        "capability": escalation.capability,
        "ttl_s": escalation.ttl_s,
    }
