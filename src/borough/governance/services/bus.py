"""The bus: what agents tell each other by topic."""

from borough.core.clock import utc_now
from borough.core.ids import AgentId
from borough.governance.access import Verb
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.canonical import Json
from borough.governance.messages import BusMessage, Mail, check_pattern, check_payload, check_topic, is_reserved
from borough.governance.ports.records import Bus
from borough.governance.services.asking import Asker
from borough.governance.services.gate import Gate
from borough.governance.services.memory import scrubbed
from borough.governance.services.recording import Recorder
from borough.governance.services.scrubbing import Scrubber


class BusService:
    """Publishes, subscribes and empties mailboxes. Acting for another agent takes its capabilities too."""

    def __init__(self, bus: Bus, gate: Gate, recorder: Recorder, scrubber: Scrubber) -> None:
        self._bus = bus
        self._gate = gate
        self._recorder = recorder
        self._scrubber = scrubber

    async def publish(self, asker: Asker, topic: str, payload: str, *, agent_id: AgentId | None = None) -> int:
        """Publish JSON text, in the name of an agent or of the caller, and return how many mailboxes got it.

        Raises:
            Invalid: the topic (``invalid_topic``) or the payload (``payload_too_long``) cannot be used.
            Forbidden: the topic is the daemon's (``reserved_topic``), or somebody may not publish under it.
        """
        author = await self._author(asker, agent_id)
        await self._gate.admit_both(asker, Verb.PUBLISH, author, subject=topic)
        check_topic(topic)
        message = BusMessage(
            topic=topic,
            payload=check_payload(scrubbed(self._scrubber, payload)),
            published_at=utc_now(),
            from_agent_id=author.id if author else None,
        )
        async with self._recorder.act(
            asker, Action.BUS_PUBLISH, detail=topic, target=author, data={"bytes": len(message.payload.encode())}
        ) as act:
            count = await self._bus.publish(message)
            act.data["mailboxes"] = count
        return count

    async def subscribe(self, asker: Asker, agent_id: AgentId, pattern: str) -> None:
        """Let an agent have what is published under matching topics; idempotent."""
        agent = await self._gate.agent(agent_id)
        await self._gate.admit_both(asker, Verb.SUBSCRIBE, agent, subject=pattern)
        check_pattern(pattern)
        async with self._recorder.act(asker, Action.BUS_SUBSCRIBE, detail=pattern, target=agent):
            await self._bus.subscribe(agent.id, pattern)

    async def unsubscribe(self, asker: Asker, agent_id: AgentId, pattern: str) -> bool:
        """End the subscription of exactly this pattern, and tell whether there was one."""
        agent = await self._gate.agent(agent_id)
        await self._gate.admit_both(asker, Verb.SUBSCRIBE, agent, subject=pattern)
        async with self._recorder.act(asker, Action.BUS_UNSUBSCRIBE, detail=pattern, target=agent) as act:
            ended = await self._bus.unsubscribe(agent.id, pattern)
            act.data["ended"] = ended
        return ended

    async def subscriptions(self, asker: Asker, agent_id: AgentId) -> tuple[str, ...]:
        """Return an agent's patterns, in order."""
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.INSPECT, agent)
        return await self._bus.subscriptions(agent.id)

    async def poll(self, asker: Asker, agent_id: AgentId) -> Mail:
        """Empty an agent's mailbox and return what was in it.

        A pattern may be wider than what the agent may hear, and its capabilities may have changed: so each message is
        looked at once more. What is addressed to the agent by the daemon is always its own.
        """
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.POLL, agent)
        mail = await self._bus.poll(agent.id)
        heard = [message for message in mail.messages if await self._hears(agent, message.topic)]
        if mail.messages:
            data: dict[str, Json] = {"messages": len(heard), "withheld": len(mail.messages) - len(heard)}
            await self._recorder.event(asker, Action.BUS_POLL, target=agent, data=data)
        return Mail(messages=tuple(heard), dropped=mail.dropped)

    async def _hears(self, agent: GovernedAgent, topic: str) -> bool:
        if is_reserved(topic):
            return topic.endswith(agent.id)
        return await self._gate.holds(agent, Verb.SUBSCRIBE, subject=topic)

    async def _author(self, asker: Asker, agent_id: AgentId | None) -> GovernedAgent | None:
        if agent_id is not None:
            return await self._gate.agent(agent_id)
        return None if asker.caller.is_unbound else await self._gate.agent(asker.caller.agent_id)
