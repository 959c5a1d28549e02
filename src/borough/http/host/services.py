"""What the host daemon's handlers may call."""

from dataclasses import dataclass, field
from typing import Protocol

from borough.fleet.ports.host_agent import HostAgent
from borough.http.fleet.terminals import Terminals


class Door(Protocol):
    """Lets controllers join."""

    async def join(self, token: str) -> str:
        """Return a credential for whoever has the host's join token; the token is another one afterwards.

        Raises:
            Forbidden: it is not the token (``token_refused``), or not any more (``token_expired``).
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class HostServices:
    """One host's services: the ``state`` of every ``Call``."""

    strict: bool
    """Answers have nothing that the reference does not have."""
    started_monotonic: float
    host: HostAgent
    door: Door
    terminals: Terminals = field(default_factory=Terminals)

    @property
    def guests(self) -> HostAgent:
        """Return who answers for the inside of machines: the host itself."""
        return self.host
