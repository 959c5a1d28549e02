"""What the gateway's handlers may call."""

from dataclasses import dataclass

from borough.governance.services.gate import Gate
from borough.http.governance.health import DaemonFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class GovernanceServices:
    """One daemon's services: the ``state`` of every ``Call`` to the gateway."""

    facts: DaemonFacts
    gate: Gate
