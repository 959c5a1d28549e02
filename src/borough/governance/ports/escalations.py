"""What waits for whoever stands above, and what was agreed to of MCP servers' tools."""

from collections.abc import Mapping
from typing import Protocol

from borough.governance.escalations import Escalation


class Escalations(Protocol):
    """Escalations; they survive a restart."""

    async def add(self, escalation: Escalation) -> None:
        """Store an escalation; idempotent by id."""

    async def get(self, escalation_id: str) -> Escalation:
        """Return one; raises ``NotFound`` (``escalation_not_found``)."""

    async def open(self) -> tuple[Escalation, ...]:
        """Return what waits for a decision, oldest first."""

    async def replace(self, escalation: Escalation, *, was: Escalation) -> None:
        """Store a changed escalation; raises ``Conflict`` (``already_decided``) when it is not as it ``was`` by now."""


class ToolPins(Protocol):
    """What MCP servers said of their tools when they were agreed to: a hash for each tool's name."""

    async def of(self, server: str) -> Mapping[str, str]:
        """Return the pins of a server; empty when it was never attached."""

    async def pin(self, server: str, pins: Mapping[str, str]) -> None:
        """Keep ``pins`` in place of the server's earlier ones."""

    async def forget(self, server: str) -> None:
        """Drop a server's pins; idempotent."""
