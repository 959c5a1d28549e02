"""The port ``HostNetwork`` on Linux: with a bridge where this program may make one, without where it may not."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from borough.adapters.network import nftables
from borough.adapters.network.bridge import Bridge
from borough.adapters.network.commands import PROXY_PORT, Owner, proxy_environment
from borough.adapters.network.gateway import GatewayProxy
from borough.adapters.network.inside import InsideProxies
from borough.adapters.network.user_mode import Connect, Forwarder
from borough.adapters.network.ways import ContainerWays
from borough.core.errors import BoroughError
from borough.fleet.addresses import Subnet, mac_of
from borough.fleet.engines import Engine
from borough.fleet.ports.network import Link
from borough.fleet.rulesets import Forward, Neighbour, Ruleset, Way, render
from borough.fleet.vms import Vm, VmId


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """How the network of one host daemon is made; two on one machine need two bridges and two subnets."""

    marker: str
    """The host's own; it is on everything that is made."""
    bridge: str = "tt0"
    subnet: Subnet = field(default_factory=Subnet)
    privileged: bool = True
    """Whether to try; without, there is user-mode networking only."""
    publish_on: str = "0.0.0.0"  # noqa: S104 - what is published is meant to be reached; a setting narrows it
    """Where published ports listen in user mode."""
    forwarded: frozenset[Engine] = frozenset({Engine.BUBBLEWRAP})
    """Engines whose published ports are ours to serve in user mode; the others do it themselves."""
    closed_bridges: tuple[str, ...] = ()
    """Bridges of a container runtime from which nothing may call out."""
    way_prefix: str | None = None
    """How the bridges of single containers begin that may call their own proxy and nothing else."""


class LinuxNetwork:
    """The host's network of machines. Use it from one event loop."""

    def __init__(
        self,
        settings: NetworkSettings,
        *,
        connect: Connect | None = None,
        gateway: GatewayProxy | None = None,
        inside: InsideProxies | None = None,
        ways: ContainerWays | None = None,
    ) -> None:
        """``connect`` reaches into machines in user mode; ``gateway`` is the way out of those with an egress list,
        ``inside`` is where there is no bridge, and ``ways`` that of containers.
        """
        self._settings = settings
        self._subnet = settings.subnet
        owner = Owner(marker=settings.marker)
        self._mark = owner.alias(settings.bridge)
        self._table = f"borough_{settings.bridge}"
        self._bridge = Bridge(name=settings.bridge, subnet=settings.subnet, owner=owner)
        self._gateway = gateway
        self._inside = inside
        self._ways = ways
        self._way_out: tuple[Way, ...] = ()
        self._forwarder = None if connect is None else Forwarder(connect, address=settings.publish_on)
        self._why_not: str | None = "the network is not opened yet"
        self._warning: str | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what whoever runs the host has to know of its network."""
        told = [] if self._why_not is None else [f"user-mode networking only, without a way out: {self._why_not}"]
        return (*told, *([] if self._warning is None else [self._warning]))

    async def open(self) -> str | None:
        """Make or mend bridge and base rules; return why only user-mode networking is possible, or ``None``."""
        self._why_not = await self._try()
        return self._why_not

    async def attach(self, vm_id: VmId, address: IPv4Address, *, namespace: bool) -> Link:
        """Make the machine's link, or mend and return the one that is there; raises ``Unavailable``."""
        if self._why_not is not None:
            return self.unlinked(address)
        if namespace:
            device, space = await self._bridge.namespace(vm_id, address)
            return self._link(address, device, space)
        return self._link(address, await self._bridge.tap(vm_id), None)

    def unlinked(self, address: IPv4Address) -> Link:
        """Return the place of a machine whose engine makes its own link."""
        return self._link(address, None, None)

    async def detach(self, vm_id: VmId) -> None:
        """Remove the machine's link; none there is no error."""
        if self._why_not is None:
            await self._bridge.unlink(vm_id)

    async def apply(
        self, machines: Sequence[Vm], *, private: frozenset[str], contained: Sequence[Vm] = ()
    ) -> Mapping[VmId, str]:
        """Make the firewall say exactly this, in one transaction; in user mode, listen for exactly this.

        Return the machines that lack a published port, and why; one that is taken keeps no other from being published.

        Raises:
            Unavailable: it could not be made to (``network_failed``); what was in force stays so.
        """
        if self._why_not is not None:
            return await self._publish(machines)
        addressed = {vm.ip: vm for vm in machines if vm.ip is not None}
        if self._gateway is not None:
            await self._gateway.serve({ip: vm for ip, vm in addressed.items() if vm.spec.egress_allowlist})
        if self._ways is not None:
            self._way_out = await self._ways.serve({vm.id: vm for vm in contained if vm.spec.egress_allowlist})
        await nftables.apply(render(self._ruleset(machines, private)))
        self._warning = await nftables.let_through(self._settings.bridge, self._mark)
        return {}

    def way_out(self, vm: Vm) -> Mapping[str, str]:
        """Return by which variables programs in a machine on our links find its way out by list; none without one."""
        if not vm.spec.egress_allowlist:
            return {}
        if self._why_not is None:
            return proxy_environment(str(self._subnet.gateway))
        # Without a bridge the proxy listens inside, where this program can make it do so.
        return proxy_environment("127.0.0.1") if vm.spec.engine in self._settings.forwarded else {}

    async def is_free(self, port: int) -> bool:
        """Tell whether nothing on the host listens on a port, by binding it."""
        return await asyncio.to_thread(_is_free, port)

    async def sweep(self, known: frozenset[VmId]) -> None:
        """Remove every link of ours that belongs to none of ``known``."""
        if self._why_not is None:
            for vm_id in await self._bridge.linked() - known:
                await self._bridge.unlink(vm_id)

    async def closes(self, bridge: str) -> bool:
        """Tell whether nothing gets out of a container runtime's bridge: its rule is in force, here."""
        if self._why_not is not None or bridge not in (*self._settings.closed_bridges, self._settings.way_prefix):
            return False
        return await nftables.has_table(self._table)

    async def let_go(self) -> None:
        """Stop listening for machines; bridge, links and rules stay, and what is not let out stays inside."""
        if self._forwarder is not None:
            await self._forwarder.close()
        if self._inside is not None:
            await self._inside.close()
        if self._ways is not None:
            await self._ways.close()
        if self._gateway is not None:
            await self._gateway.close()

    async def close(self) -> None:
        """Remove everything of ours."""
        await self.let_go()
        if self._why_not is None:
            await self.sweep(frozenset())
            await nftables.close_gap(self._mark)
            await nftables.remove(self._table)
            await self._bridge.remove()
            self._why_not = "the network is closed"

    async def _try(self) -> str | None:
        if not self._settings.privileged:
            return "this host daemon was told not to change the host's network"
        try:
            await self._bridge.make()
        except (OSError, BoroughError) as failure:
            return str(failure)
        try:
            await nftables.apply(render(self._ruleset([], frozenset())))
            self._warning = await nftables.let_through(self._settings.bridge, self._mark)
            if self._gateway is not None:
                await self._gateway.open(self._subnet.gateway)
        except (OSError, BoroughError) as failure:
            # Half a network is none: what was made of it is taken away again as far as that is possible.
            with contextlib.suppress(OSError, BoroughError):  # the reason above is what is told
                await nftables.remove(self._table)
            return str(failure)
        return None

    async def _publish(self, machines: Sequence[Vm]) -> Mapping[VmId, str]:
        ours = [vm for vm in machines if vm.spec.engine in self._settings.forwarded]
        if self._inside is not None:
            await self._inside.serve({vm.id: vm for vm in ours if vm.spec.egress_allowlist})
        if self._forwarder is None:
            return {}
        wanted = {host_port: (vm.id, guest_port) for vm in ours for guest_port, host_port in vm.port_map.items()}
        return await self._forwarder.publish(wanted)

    def _ruleset(self, machines: Sequence[Vm], private: frozenset[str]) -> Ruleset:
        return Ruleset(
            bridge=self._settings.bridge,
            network=self._subnet.network,
            forwards=tuple(_forwards(machines)),
            neighbours=tuple(_neighbours(machines, private)),
            proxy_port=None if self._gateway is None else PROXY_PORT,
            closed_bridges=self._settings.closed_bridges,
            way_prefix=self._settings.way_prefix,
            ways=self._way_out,
            ipv6=nftables.speaks_ipv6(),
            table=self._table,
        )

    def _link(self, address: IPv4Address, device: str | None, space: str | None) -> Link:
        return Link(
            address=address, network=self._subnet.network, gateway=self._subnet.gateway, mac=mac_of(address),
            device=device, namespace=space,
        )  # fmt: skip


def _forwards(machines: Sequence[Vm]) -> list[Forward]:
    return [
        Forward(host_port=host_port, address=vm.ip, guest_port=guest_port)
        for vm in machines
        if vm.ip is not None
        for guest_port, host_port in vm.port_map.items()
    ]


def _neighbours(machines: Sequence[Vm], private: Collection[str]) -> list[Neighbour]:
    return [
        Neighbour(
            vm_id=vm.id,
            env_id=vm.env_id,
            address=vm.ip,
            # Who has a list may reach what is on it, and nothing else.
            deny_outgoing=vm.spec.deny_outgoing or bool(vm.spec.egress_allowlist),
            private=vm.env_id in private,
            listed=bool(vm.spec.egress_allowlist),
        )
        for vm in machines
        if vm.ip is not None
    ]


def _is_free(port: int) -> bool:
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104 - bound, never served
        try:
            with socket.socket(family, socket.SOCK_STREAM) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                trial.bind((address, port))
                trial.listen(1)  # two that are bound may share a port; two that listen may not
        except OSError as failure:
            if failure.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            if family == socket.AF_INET:
                raise
    return True
