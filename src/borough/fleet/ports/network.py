"""The port for the network of a host's machines, and what an engine needs to know of a link."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol

from borough.fleet.vms import Vm, VmId


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A machine's place in the host's network. Without privilege ``device`` is ``None`` and the engine does what it
    can by itself (user-mode networking) with ``port_map``.
    """

    address: IPv4Address
    network: IPv4Network
    gateway: IPv4Address
    mac: str
    device: str | None
    """The tap or virtual Ethernet device on the bridge."""
    namespace: str | None = None
    """The network namespace that was made for it, for engines that run processes."""
    port_map: Mapping[int, int] = field(default_factory=dict)
    """Guest port → host port."""


class HostNetwork(Protocol):
    """The host's network of machines: bridge, links, and one firewall that is rendered whole."""

    async def open(self) -> str | None:
        """Make or mend bridge and base rules; return why only user-mode networking is possible, or ``None``."""

    async def attach(self, vm_id: VmId, address: IPv4Address, *, namespace: bool) -> Link:
        """Make the machine's link, or return the one that is there."""

    def unlinked(self, address: IPv4Address) -> Link:
        """Return the place of a machine whose engine makes its own link."""

    async def detach(self, vm_id: VmId) -> None:
        """Remove the machine's link; none there is no error."""

    async def apply(
        self, machines: Sequence[Vm], *, private: frozenset[str], contained: Sequence[Vm] = ()
    ) -> Mapping[VmId, str]:
        """Make the firewall say exactly this, in one transaction; ``private`` are environments that are closed, and
        ``contained`` are machines whose engine keeps their links itself.

        Return the machines that lack a published port, and why: that is theirs alone.
        """

    def way_out(self, vm: Vm) -> Mapping[str, str]:
        """Return by which variables programs in a machine on our links find its way out by list; none without one."""

    async def is_free(self, port: int) -> bool:
        """Tell whether nothing on the host listens on a port, by binding it."""

    async def sweep(self, known: frozenset[VmId]) -> None:
        """Remove every link of ours that belongs to none of ``known``."""

    async def close(self) -> None:
        """Remove everything of ours."""
