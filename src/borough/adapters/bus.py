"""The bus in this process: mailboxes, and who listens to what."""

from collections import deque
from dataclasses import dataclass, field

from borough.core.ids import AgentId
from borough.governance.globs import Glob
from borough.governance.messages import MOST_MAIL, BusMessage, Mail, check_pattern, check_subscriptions


@dataclass(slots=True)
class _Mailbox:
    messages: deque[BusMessage] = field(default_factory=deque)
    dropped: int = 0

    def put(self, message: BusMessage) -> None:
        self.messages.append(message)
        if len(self.messages) > MOST_MAIL:
            self.messages.popleft()
            self.dropped += 1

    def empty(self) -> Mail:
        mail = Mail(messages=tuple(self.messages), dropped=self.dropped)
        self.messages.clear()
        self.dropped = 0
        return mail


class ProcessBus:
    """The port ``Bus``. Nothing here waits, so each method is one step."""

    def __init__(self) -> None:
        self._patterns: dict[AgentId, dict[str, Glob]] = {}
        self._mailboxes: dict[AgentId, _Mailbox] = {}
        # Listeners by pattern: each pattern is matched once for a message, and a plain topic is only looked up.
        self._plain: dict[str, set[AgentId]] = {}
        self._globs: dict[Glob, set[AgentId]] = {}

    async def publish(self, message: BusMessage) -> int:
        """Put a message into the mailbox of every agent that has a matching subscription, once for each."""
        listeners = set(self._plain.get(message.topic, ()))
        for glob, agents in self._globs.items():
            if glob.matches(message.topic):
                listeners |= agents
        for agent_id in listeners:
            self._mailboxes.setdefault(agent_id, _Mailbox()).put(message)
        return len(listeners)

    async def subscribe(self, agent_id: AgentId, pattern: str) -> None:
        """Let an agent have what is published under matching topics from now on."""
        glob = check_pattern(pattern)
        patterns = self._patterns.setdefault(agent_id, {})
        if pattern in patterns:
            return
        check_subscriptions(len(patterns))
        patterns[pattern] = glob
        if glob.is_literal:
            self._plain.setdefault(pattern, set()).add(agent_id)
        else:
            self._globs.setdefault(glob, set()).add(agent_id)

    async def unsubscribe(self, agent_id: AgentId, pattern: str) -> bool:
        """End the subscription of exactly this pattern and tell whether there was one."""
        glob = self._patterns.get(agent_id, {}).pop(pattern, None)
        if glob is not None:
            self._forget(agent_id, glob)
        return glob is not None

    async def subscriptions(self, agent_id: AgentId) -> tuple[str, ...]:
        """Return an agent's patterns, in order."""
        return tuple(sorted(self._patterns.get(agent_id, ())))

    async def poll(self, agent_id: AgentId) -> Mail:
        """Empty an agent's mailbox and return what was in it."""
        mailbox = self._mailboxes.get(agent_id)
        return Mail() if mailbox is None else mailbox.empty()

    async def end(self, agent_id: AgentId) -> None:
        """Forget an agent's subscriptions and mailbox."""
        for glob in self._patterns.pop(agent_id, {}).values():
            self._forget(agent_id, glob)
        self._mailboxes.pop(agent_id, None)

    def _forget(self, agent_id: AgentId, glob: Glob) -> None:
        if glob.is_literal:
            agents = self._plain[glob.pattern]
            agents.discard(agent_id)
            if not agents:
                del self._plain[glob.pattern]
        else:
            agents = self._globs[glob]
            agents.discard(agent_id)
            if not agents:
                del self._globs[glob]
