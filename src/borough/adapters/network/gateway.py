"""The egress proxy on the gateway, for machines that may reach what is on their list and nothing else.

Who calls is known by the address, which no link can forge: the firewall lets each speak under its own only.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv4Address

from borough.adapters.egress.judging import Judge
from borough.adapters.egress.limits import EgressLimits
from borough.adapters.egress.proxy import BoxProxy
from borough.adapters.egress.verdicts import EgressVerdict, VerdictBook
from borough.adapters.network.commands import PROXY_PORT
from borough.core.ids import AgentId
from borough.fleet.vms import Vm, VmId
from borough.governance.hosts import NetworkPolicy, parse_allowed
from borough.governance.manifests import Network

OnVerdict = Callable[[VmId, EgressVerdict], Awaitable[None]]
"""Records what a machine was let out to, or refused. While it raises, nothing passes."""


def proxy_of(
    vm: Vm, *, judge: Judge, on_verdict: OnVerdict, limits: EgressLimits | None = None
) -> BoxProxy:  # fmt: skip
    """Return the proxy that lets one machine out to what is on its list, and to nothing else."""

    async def told(verdict: EgressVerdict) -> None:
        await on_verdict(vm.id, verdict)

    listed = tuple(parse_allowed(text) for text in vm.spec.egress_allowlist)
    return BoxProxy(
        network=Network(policy=NetworkPolicy.ALLOWLIST, allowlist=listed),
        judge=judge,
        book=VerdictBook(AgentId(vm.id), vm.env_id, told),
        limits=limits or EgressLimits(),
        machine=vm.id,
    )


class GatewayProxy:
    """One listener on the bridge's address. Use it from one event loop; ``close`` it before the loop ends."""

    def __init__(self, *, judge: Judge, on_verdict: OnVerdict, limits: EgressLimits | None = None) -> None:
        self._judge = judge
        self._on_verdict = on_verdict
        self._limits = limits
        self._server: asyncio.Server | None = None
        self._proxies: dict[IPv4Address, tuple[Vm, BoxProxy]] = {}

    async def open(self, gateway: IPv4Address) -> None:
        """Listen; raises ``OSError`` when the port is taken."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, str(gateway), PROXY_PORT)

    async def serve(self, machines: Mapping[IPv4Address, Vm]) -> None:
        """Serve exactly these machines, each by its list."""
        for address in [*self._proxies]:
            vm, proxy = self._proxies[address]
            wanted = machines.get(address)
            if wanted is None or wanted.id != vm.id or wanted.spec.egress_allowlist != vm.spec.egress_allowlist:
                del self._proxies[address]
                await proxy.close()
        for address, vm in machines.items():
            if address not in self._proxies:
                self._proxies[address] = (vm, self._proxy(vm))

    async def close(self) -> None:
        """Stop listening and end every connection."""
        await self.serve({})
        if self._server is not None:
            self._server.close()
            self._server = None

    def _proxy(self, vm: Vm) -> BoxProxy:
        return proxy_of(vm, judge=self._judge, on_verdict=self._on_verdict, limits=self._limits)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        known = self._proxies.get(IPv4Address(writer.get_extra_info("peername")[0]))
        if known is None:
            writer.transport.abort()
            return
        known[1].accept(reader, writer)
