"""Where hosts are spoken to."""

from typing import Protocol

from borough.fleet.hosts import Host
from borough.fleet.ports.host_agent import HostAgent


class Directory(Protocol):
    """Knows how to speak to each host, with the credential that the two agreed on."""

    def agent(self, host: Host) -> HostAgent:
        """Return the host; connections are kept and used again."""

    async def join(self, addr: str, *, token: str | None) -> tuple[str, HostAgent]:
        """Speak to a new host at ``addr`` and agree on a credential; return its id and the host.

        Raises:
            Unavailable: nobody answers there (``host_unreachable``), or something that is no host (``not_a_host``).
            Forbidden: the host does not accept us (``host_refused_key``).
        """

    async def keep(self, host: Host) -> None:
        """Keep the credential that was agreed on when a host joined that is registered now; before, it is in the way of
        none that is known.
        """

    async def forget(self, host_id: str) -> None:
        """Let go of a host's connections and credential; idempotent."""
