"""What the gateway's handlers may call."""

from dataclasses import dataclass

from borough.governance.services.gate import Gate
from borough.governance.services.tooling import Tooling


@dataclass(frozen=True, slots=True, kw_only=True)
class GovernanceServices:
    """One daemon's services: the ``state`` of every ``Call`` to the gateway."""

    gate: Gate
    tooling: Tooling
