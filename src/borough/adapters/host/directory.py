"""Where hosts are spoken to: over HTTP or in this process, with the credential that each gave, else the fleet's key."""

from collections.abc import Mapping
from typing import Protocol

from borough.adapters.host.http import HttpHost
from borough.core.errors import Unavailable
from borough.fleet.hosts import Host
from borough.fleet.ports.host_agent import HostAgent


class Credentials(Protocol):
    """What hosts gave to be known by."""

    def get(self, host_id: str) -> str | None:
        """Return a host's credential."""

    async def put(self, host_id: str, credential: str) -> None:
        """Keep a host's credential."""

    async def forget(self, host_id: str) -> None:
        """Drop a host's credential; none there is no error."""


class HostDirectory:
    """The port ``Directory``."""

    def __init__(
        self, credentials: Credentials, *, fleet_key: str | None, local: Mapping[str, HostAgent] | None = None
    ) -> None:
        """``local`` are hosts in this process, by address."""
        self._credentials = credentials
        self._fleet_key = fleet_key
        self._local = dict(local or {})
        self._agents: dict[str, tuple[str, HttpHost]] = {}
        self._agreed: dict[tuple[str, str], str] = {}

    def agent(self, host: Host) -> HostAgent:
        """Return the host; connections are kept and used again."""
        if host.addr in self._local:
            return self._local[host.addr]
        known = self._agents.get(host.id)
        if known is not None and known[0] == host.addr:
            return known[1]
        credential = self._credentials.get(host.id) or self._fleet_key
        agent = HttpHost(host.addr, credential=credential)
        self._agents[host.id] = (host.addr, agent)
        return agent

    async def join(self, addr: str, *, token: str | None) -> tuple[str, HostAgent]:
        """Speak to a new host at ``addr`` and agree on a credential; return its id and the host."""
        if addr in self._local:
            return (await self._local[addr].report()).host_id, self._local[addr]
        stranger = HttpHost(addr, credential=None if token else self._fleet_key)
        try:
            if token is None:
                return (await stranger.report()).host_id, stranger
            joined = await stranger.join(token)
        except BaseException:
            await stranger.close()
            raise
        await stranger.close()
        agent = HttpHost(addr, credential=joined.credential)
        told = (await agent.report()).host_id
        if told != joined.host_id:
            await agent.close()
            raise Unavailable(
                f"what answers at {addr} calls itself {told} and {joined.host_id}",
                code="not_a_host",
                resolution="check what listens there",
            )
        self._agreed[told, addr] = joined.credential
        return told, agent

    async def keep(self, host: Host) -> None:
        """Keep what was agreed on with a host that is registered now."""
        credential = self._agreed.pop((host.id, host.addr), None)
        if credential is not None:
            await self._credentials.put(host.id, credential)
            await self._let_go(host.id)

    async def forget(self, host_id: str) -> None:
        """Let go of a host's connections and credential."""
        await self._let_go(host_id)
        await self._credentials.forget(host_id)

    async def close(self) -> None:
        """Let go of all connections."""
        for host_id in list(self._agents):
            await self._let_go(host_id)

    async def _let_go(self, host_id: str) -> None:
        known = self._agents.pop(host_id, None)
        if known is not None:
            await known[1].close()
