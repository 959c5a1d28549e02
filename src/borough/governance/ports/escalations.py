"""What waits for whoever stands above."""

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
