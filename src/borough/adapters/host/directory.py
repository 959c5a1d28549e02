"""Where hosts are spoken to: over HTTPS or HTTP or in this process, with the credential that each gave, else the
fleet's key.

A host that was joined by its token is spoken to as was agreed then, and in no other way: to its certificate, with the
credential that it gave. The fleet's key goes to hosts that were never joined, as the reference has it.
"""

from collections.abc import Mapping

from borough.adapters.host.http import HttpHost
from borough.adapters.host.probing import speaks_tls
from borough.core.errors import Unavailable
from borough.fleet.hosts import Host
from borough.fleet.ports.directory import Joined
from borough.fleet.ports.host_agent import HostAgent
from borough.fleet.trust import HostTrust, JoinToken


class HostDirectory:
    """The port ``Directory``."""

    def __init__(
        self,
        trusted: Mapping[tuple[str, str], HostTrust],
        *,
        fleet_key: str | None,
        local: Mapping[str, HostAgent] | None = None,
    ) -> None:
        """``trusted`` is what was agreed with hosts, by id and address; ``local``, by address, are in this process."""
        self._trusted = dict(trusted)
        self._fleet_key = fleet_key
        self._local = dict(local or {})
        self._agents: dict[str, tuple[str, HttpHost]] = {}

    def agent(self, host: Host) -> HostAgent:
        """Return the host; connections are kept and used again."""
        if host.addr in self._local:
            return self._local[host.addr]
        known = self._agents.get(host.id)
        if known is not None and known[0] == host.addr:
            return known[1]
        trust = self._trusted.get((host.id, host.addr))
        agent = HttpHost(host.addr, credential=self._fleet_key) if trust is None else _trusting(host.addr, trust)
        self._agents[host.id] = (host.addr, agent)
        return agent

    async def join(self, addr: str, *, token: JoinToken | None) -> Joined:
        """Speak to a new host at ``addr`` and agree on a credential."""
        if addr in self._local:
            return Joined(host_id=(await self._local[addr].report()).host_id, agent=self._local[addr])
        if token is None:
            return await self._by_key(addr)
        trust, host_id = await _agree(addr, token)
        agent = _trusting(addr, trust)
        try:
            told = (await agent.report()).host_id
        except BaseException:
            await agent.close()
            raise
        if told != host_id:
            await agent.close()
            raise Unavailable(
                f"what answers at {addr} calls itself {told} and {host_id}",
                code="not_a_host",
                resolution="check what listens there",
            )
        # From now on nothing else is said to this host at this address, also while it is being registered.
        self._trusted[told, addr] = trust
        if told in self._agents and self._agents[told][0] == addr:
            await self._let_go(told)
        return Joined(host_id=told, agent=agent, trust=trust)

    async def forget(self, host_id: str) -> None:
        """Let go of a host's connections and of what was agreed with it."""
        await self._let_go(host_id)
        for known in [each for each in self._trusted if each[0] == host_id]:
            del self._trusted[known]

    async def close(self) -> None:
        """Let go of all connections."""
        for host_id in list(self._agents):
            await self._let_go(host_id)

    async def _by_key(self, addr: str) -> Joined:
        """Speak to a host as the reference does: plain, with the fleet's key."""
        agent = HttpHost(addr, credential=self._fleet_key)
        try:
            return Joined(host_id=(await agent.report()).host_id, agent=agent)
        except Unavailable as error:
            await agent.close()
            if error.code in {"host_unreachable", "not_a_host"} and await speaks_tls(addr):
                raise Unavailable(
                    f"the host at {addr} speaks TLS only",
                    code="host_speaks_tls",
                    reason="without its join token nobody can tell whether it is the host",
                    resolution=f"on the host: tt-agent --invite; then here: tt host add {addr} with that token",
                ) from None
            raise
        except BaseException:
            await agent.close()
            raise

    async def _let_go(self, host_id: str) -> None:
        known = self._agents.pop(host_id, None)
        if known is not None:
            await known[1].close()


def _trusting(addr: str, trust: HostTrust) -> HttpHost:
    return HttpHost(addr, credential=trust.credential, fingerprint=trust.fingerprint)


async def _agree(addr: str, token: JoinToken) -> tuple[HostTrust, str]:
    """Exchange a token for what is agreed on; return also what the host calls itself."""
    stranger = HttpHost(addr, credential=None, fingerprint=token.fingerprint)
    try:
        joined = await stranger.join(token.text)
    finally:
        await stranger.close()
    return HostTrust(credential=joined.credential, fingerprint=token.fingerprint), joined.host_id
