"""The way out by list of machines whose engine keeps their networks: the egress proxy at each one's own gateway."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

import structlog

from borough.adapters.egress.proxy import BoxProxy
from borough.adapters.network.commands import PROXY_PORT
from borough.core.errors import BoroughError
from borough.fleet.rulesets import Way
from borough.fleet.vms import Vm, VmId

WayOf = Callable[[VmId], Awaitable[tuple[str, IPv4Address] | None]]
"""Returns bridge and gateway of a machine's own network, ``None`` when it has none."""
MakeProxy = Callable[[Vm], BoxProxy]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Open:
    way: Way
    listed: tuple[str, ...]
    server: asyncio.Server
    proxy: BoxProxy


class ContainerWays:
    """A listener for each such machine. Use it from one event loop; ``close`` it before the loop ends."""

    def __init__(self, way_of: WayOf, make: MakeProxy) -> None:
        self._way_of = way_of
        self._make = make
        self._open: dict[VmId, _Open] = {}

    async def serve(self, machines: Mapping[VmId, Vm]) -> tuple[Way, ...]:
        """Serve exactly these machines, each by its list; return where they may call."""
        for vm_id in [*self._open]:
            if vm_id not in machines:
                await self._end(vm_id)
        for vm in machines.values():
            try:
                await self._one(vm)
            except (OSError, BoroughError) as failure:
                # Its network is not there, or its engine does not answer: without a listener nothing passes.
                _log.warning("egress.no_way_out_yet", vm=vm.id, reason=str(failure))
        return tuple(opened.way for opened in self._open.values())

    async def close(self) -> None:
        """End every listener and connection."""
        await self.serve({})

    async def _one(self, vm: Vm) -> None:
        found = await self._way_of(vm.id)
        way = None if found is None else Way(bridge=found[0], gateway=found[1])
        known = self._open.get(vm.id)
        if known is not None and known.way == way and known.listed == vm.spec.egress_allowlist:
            return
        await self._end(vm.id)
        if way is None:
            return
        proxy = self._make(vm)
        server = await asyncio.start_server(proxy.accept, str(way.gateway), PROXY_PORT)
        self._open[vm.id] = _Open(way, vm.spec.egress_allowlist, server, proxy)

    async def _end(self, vm_id: VmId) -> None:
        opened = self._open.pop(vm_id, None)
        if opened is not None:
            opened.server.close()
            await opened.proxy.close()
