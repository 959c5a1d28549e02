"""The networks of containers that may not call out, or to a list only; the host's firewall keeps them, no runtime."""

import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address

from borough.adapters.engines.docker import bodies
from borough.adapters.engines.docker.bodies import Closed
from borough.adapters.engines.docker.client import EngineApi
from borough.adapters.engines.docker.ways import Ways
from borough.adapters.engines.refusals import not_closed
from borough.adapters.network.commands import proxy_environment
from borough.core.errors import Conflict, NotFound
from borough.fleet.engines import Capability
from borough.fleet.ports.engines import MachineOrder
from borough.fleet.vms import VmId

Closes = Callable[[str], Awaitable[bool]]
"""Tells whether the host's firewall lets nothing out of a bridge."""


class ContainerNetworks:
    """They: one for all that may call nobody, and one of its own for each machine with a list."""

    def __init__(
        self, api: EngineApi, *, marker: str, closes: Closes, closed_bridge: str, way_prefix: str, has_proxy: bool
    ) -> None:
        """``closes`` proves that nothing gets out of ``closed_bridge``, and only to its proxy of a bridge that begins
        with ``way_prefix``; ``has_proxy``: there is one at the gateway of each.
        """
        self._api = api
        self._marker = marker
        self._closes = closes
        self._ways = Ways(api, marker=marker, prefix=way_prefix)
        self._has_proxy = has_proxy
        self._closed = Closed(name=f"borough-closed-{marker[:12]}", bridge=closed_bridge)

    async def lacks(self) -> Mapping[Capability, str | None]:
        """Return what could be kept from containers here: why it cannot, ``None`` where it can."""
        if not (await self._closes(self._closed.bridge) and await self._has_closed_network()):
            lack = "the host's firewall does not reach the runtime's networks"
            return {Capability.DENY_OUTGOING: lack, Capability.EGRESS_ALLOWLIST: lack}
        listed = self._has_proxy and await self._closes(self._ways.prefix)
        no_proxy = "this host has no egress proxy that containers could reach"
        return {Capability.DENY_OUTGOING: None, Capability.EGRESS_ALLOWLIST: None if listed else no_proxy}

    async def all(self) -> Sequence[VmId]:
        """Return the machines that have a network of their own."""
        return await self._ways.all()

    async def way_of(self, vm_id: VmId) -> tuple[str, IPv4Address] | None:
        """Return bridge and gateway of a container's own network, ``None`` when it has none."""
        way = await self._ways.find(vm_id)
        return None if way is None else (way.bridge, way.gateway)

    async def remove(self, vm_id: VmId) -> None:
        """Remove a machine's own network; none there is no error."""
        await self._ways.remove(vm_id)

    async def network_of(self, order: MachineOrder) -> Closed | None:
        """Return the closed network for a machine that may not call out, ``None`` for one that may.

        Raises:
            Conflict: what it may not do cannot be kept from it here (``not_possible``).
        """
        listed = bool(order.spec.egress_allowlist)
        if not listed and not order.spec.deny_outgoing:
            return None
        if not await self._closes(self._ways.prefix if listed else self._closed.bridge):
            raise not_closed("the host's firewall has no rule for the runtime's networks")
        if listed:
            if not self._has_proxy:
                raise not_closed("containers cannot reach the egress proxy")
            way = await self._ways.make(order.vm_id)
            return Closed(name=way.name, bridge=way.bridge)
        if not await self._has_closed_network():
            raise not_closed("the runtime's networks are not on this host")
        return self._closed

    async def proxy_of(self, order: MachineOrder) -> Mapping[str, str]:
        """Return by which variables a machine with an egress list finds its proxy."""
        if not order.spec.egress_allowlist:
            return {}
        return proxy_environment(str((await self._ways.make(order.vm_id)).gateway))

    async def _has_closed_network(self) -> bool:
        """Make the closed network, unless it is there, and tell whether its bridge is on this host."""
        try:
            await self._api.ask("GET", f"/networks/{self._closed.name}")
        except NotFound:
            with suppress(Conflict):  # made by another request meanwhile
                await self._api.ask("POST", "/networks/create", body=bodies.closed_network(self._closed, self._marker))
        return is_here(self._closed.bridge)


def is_here(device: str) -> bool:
    """Tell whether there is such a device on this host."""
    try:
        socket.if_nametoindex(device)
    except OSError:
        return False
    return True
