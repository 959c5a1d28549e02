"""Where hosts are spoken to."""

from dataclasses import dataclass
from typing import Protocol

from borough.fleet.hosts import Host
from borough.fleet.ports.host_agent import HostAgent
from borough.fleet.trust import HostTrust, JoinToken


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A host that was spoken to for the first time."""

    host_id: str
    agent: HostAgent
    trust: HostTrust | None = None
    """What was agreed on, to be kept with the host; ``None``: nothing, the fleet's key is good there."""


class Directory(Protocol):
    """Knows how to speak to each host, with the credential that the two agreed on."""

    def agent(self, host: Host) -> HostAgent:
        """Return the host; connections are kept and used again."""

    async def join(self, addr: str, *, token: JoinToken | None) -> Joined:
        """Speak to a new host at ``addr`` and agree on a credential, which is used with it from now on.

        Raises:
            Unavailable: nobody answers there (``host_unreachable``), or something that is no host (``not_a_host``), or
                another than the one whose token this is (``host_certificate_changed``, ``host_tls_failed``), or one
                that needs a token (``host_speaks_tls``).
            Forbidden: the host does not accept us (``host_refused_key``), or not this token (``token_refused``,
                ``token_expired``).
        """

    async def forget(self, host_id: str) -> None:
        """Let go of a host's connections, and of what was agreed with it; idempotent."""
