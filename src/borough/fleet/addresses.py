"""Addresses and ports that are lent to machines: the lowest that is free, and back when the machine is gone."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from borough.core.errors import Conflict, Invalid

SSH_PORT = 22
FIRST_HOST_PORT = 20_000
LAST_HOST_PORT = 65_535
MOST_PORTS = 256
"""For one machine."""
_MOST_PORT = 65_535
_FIRST_USED_BYTE, _LAST_USED_BYTE = 1, 254


_NETWORK = IPv4Network("10.10.0.0/16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """The network of a host's machines. The first address is the gateway's."""

    network: IPv4Network = _NETWORK

    @property
    def gateway(self) -> IPv4Address:
        """Return the host's own address in it."""
        return self.network.network_address + 1

    def addresses(self) -> Iterable[IPv4Address]:
        """Yield what may be lent, lowest first; never one that ends in 0 or 255, which some guests refuse."""
        first = int(self.network.network_address) + 2
        for number in range(first, int(self.network.broadcast_address)):
            if _FIRST_USED_BYTE <= number & 0xFF <= _LAST_USED_BYTE:
                yield IPv4Address(number)


def lend_address(subnet: Subnet, lent: Collection[IPv4Address]) -> IPv4Address:
    """Return the lowest address that is free.

    Raises:
        Conflict: all are lent (``addresses_exhausted``).
    """
    for address in subnet.addresses():
        if address not in lent:
            return address
    raise Conflict(
        f"every address of {subnet.network} is lent",
        code="addresses_exhausted",
        resolution="delete environments that are not needed",
    )


def guest_ports(wanted: Sequence[int]) -> tuple[int, ...]:
    """Return the ports of a machine that are to be reached: those wanted, each once, and always the one of SSH, first.

    Raises:
        Invalid: one is none, or there are too many (``invalid_port``).
    """
    ports = dict.fromkeys([*([] if SSH_PORT in wanted else [SSH_PORT]), *wanted])
    wrong = [port for port in ports if not 0 < port <= _MOST_PORT]
    if wrong or len(ports) > MOST_PORTS:
        raise Invalid(
            f"{wrong[0]} is not a port" if wrong else f"{len(ports)} ports are too many",
            code="invalid_port",
            resolution=f"list at most {MOST_PORTS} ports from 1 to {_MOST_PORT}",
        )
    return tuple(ports)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRange:
    """The ports of a host that are lent."""

    first: int = FIRST_HOST_PORT
    last: int = LAST_HOST_PORT


def lend_ports(
    guests: Sequence[int],
    lent: Collection[int],
    *,
    ports: PortRange = PortRange(),
) -> Mapping[int, int]:
    """Return a port of the host for each of the machine's, the lowest that are free.

    Raises:
        Conflict: there are not enough left (``ports_exhausted``).
    """
    free = (port for port in range(ports.first, ports.last + 1) if port not in lent)
    mapping = dict(zip(guests, free, strict=False))
    if len(mapping) < len(guests):
        raise Conflict(
            f"fewer than {len(guests)} ports from {ports.first} to {ports.last} are free",
            code="ports_exhausted",
            resolution="delete environments that are not needed, or widen the range",
        )
    return mapping


def mac_of(address: IPv4Address) -> str:
    """Return the one hardware address of the machine at ``address``: locally administered, so nobody else's."""
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x54, *address.packed))


def link_name(vm_id: str) -> str:
    """Return the name of a machine's network device on the host: stable, its own, and no longer than 15 letters."""
    return f"tt-{hashlib.blake2b(vm_id.encode(), digest_size=6).hexdigest()}"
