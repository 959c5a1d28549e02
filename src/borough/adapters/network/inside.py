"""The way out by list where there is no bridge: the egress proxy listens inside each machine, at its own loopback.

A machine has nothing else then, so what the proxy does not let pass does not leave. The listener is the machine's
identity: whoever speaks to it is inside. It ends with this program and with the machine's network; it is made again
for what runs on, and for what was started again.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from borough.adapters.egress.proxy import BoxProxy
from borough.adapters.process import ProcessRef
from borough.core.errors import BoroughError
from borough.fleet.vms import Vm, VmId

ProcessOf = Callable[[VmId], Awaitable[ProcessRef | None]]
"""Returns a process inside a machine's own network, ``None`` when it does not run."""
MakeProxy = Callable[[Vm], BoxProxy]
Listen = Callable[[VmId], Awaitable[socket.socket]]
"""Makes the listener inside a machine that runs."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Way:
    ref: ProcessRef
    listed: tuple[str, ...]
    server: asyncio.Server
    proxy: BoxProxy


class InsideProxies:
    """The ways out of machines without a bridge. Use it from one event loop; ``close`` it before the loop ends."""

    def __init__(self, process_of: ProcessOf, make: MakeProxy, *, listen: Listen) -> None:
        self._process_of = process_of
        self._make = make
        self._listen = listen
        self._open: dict[VmId, _Way] = {}

    async def serve(self, machines: Mapping[VmId, Vm]) -> None:
        """Serve exactly these machines, each by its list; one that does not run has no way out until it does."""
        for vm_id in [*self._open]:
            if vm_id not in machines:
                await self._end(vm_id)
        for vm in machines.values():
            try:
                await self._one(vm)
            except (OSError, BoroughError) as failure:
                # It ended meanwhile, or its network is not up yet: without a listener nothing passes.
                _log.warning("egress.no_way_out_yet", vm=vm.id, reason=str(failure))

    async def close(self) -> None:
        """End every listener and connection."""
        await self.serve({})

    async def _one(self, vm: Vm) -> None:
        ref = await self._process_of(vm.id)
        known = self._open.get(vm.id)
        if known is not None and known.ref == ref and known.listed == vm.spec.egress_allowlist:
            return
        await self._end(vm.id)
        if ref is None:
            return
        listener = await self._listen(vm.id)
        proxy = self._make(vm)
        server = await asyncio.start_server(proxy.accept, sock=listener)
        self._open[vm.id] = _Way(ref, vm.spec.egress_allowlist, server, proxy)

    async def _end(self, vm_id: VmId) -> None:
        way = self._open.pop(vm_id, None)
        if way is not None:
            way.server.close()
            await way.proxy.close()
