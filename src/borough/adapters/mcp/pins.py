"""What was agreed to of the servers' tools."""

from collections.abc import Mapping
from typing import Protocol

from borough.core.ids import AgentId


class Pins(Protocol):
    """What was agreed to, by the server's own names for its tools. It should survive a restart."""

    async def load(self, agent_id: AgentId, server: str) -> Mapping[str, str] | None:
        """Return the pins of an agent's server; ``None`` when it was never attached."""

    async def save(self, agent_id: AgentId, server: str, pins: Mapping[str, str]) -> None:
        """Store the pins."""


class MemoryPins:
    """Pins as long as the process lives."""

    def __init__(self) -> None:
        self._pins: dict[tuple[AgentId, str], Mapping[str, str]] = {}

    async def load(self, agent_id: AgentId, server: str) -> Mapping[str, str] | None:
        """Return the pins."""
        return self._pins.get((agent_id, server))

    async def save(self, agent_id: AgentId, server: str, pins: Mapping[str, str]) -> None:
        """Keep the pins."""
        self._pins[agent_id, server] = dict(pins)
