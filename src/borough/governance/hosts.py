"""Hosts and ports in one spelling, and the network policy that says which of them may be reached."""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from borough.core.errors import Invalid
from borough.governance.globs import Glob, compile_glob

_HOST = re.compile(r"[a-z0-9*_-]+(\.[a-z0-9*_-]+)*")
_MOST_PORT = 65535

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class NetworkPolicy(StrEnum):
    """Where an agent may connect."""

    NONE = "none"
    LOCAL = "local"
    ALLOWLIST = "allowlist"
    FULL = "full"


def canonical_host(host: str) -> str:
    """Return a host in lower case without its trailing dot, an address in its shortest form, IPv6 in brackets.

    Raises:
        Invalid: it is no host (``invalid_host``).
    """
    bare = host.strip("[]") if host.startswith("[") and host.endswith("]") else host
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        name = host.lower().removesuffix(".")
        # Four numbers with odd digits (0177.1, 2130706433) are addresses to some resolvers: names never look so.
        if not _HOST.fullmatch(name) or re.fullmatch(r"(0x[0-9a-f]+|[0-9]+)", name.rpartition(".")[2]):
            raise Invalid(
                f"{host[:200]!r} is not a host",
                code="invalid_host",
                resolution="give a name in ASCII (IDNA form), an IPv4 address, or an IPv6 address in brackets",
            ) from None
        return name
    return f"[{address}]" if address.version == 6 else str(address)  # noqa: PLR2004 - the version of IP


def endpoint(host: str, port: int) -> str:
    """Return the one spelling of ``host:port``, in which capabilities and rules are asked."""
    return f"{canonical_host(host)}:{port}"


def canonical_endpoint(text: str) -> str:
    """Return the one spelling of a pattern ``host:port``; without a port it is any port.

    Raises:
        Invalid: host or port is none (``invalid_host``, ``invalid_port``).
    """
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, "*"
    return f"{canonical_host(host)}:{_port(port)}"


def _port(text: str) -> str:
    if text == "*":
        return text
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= _MOST_PORT:
        raise Invalid(f"{text!r} is not a port", code="invalid_port", resolution=f"give 1 to {_MOST_PORT}, or *")
    return str(int(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedEndpoint:
    """One line of an allow-list: a pattern of names, or a block of addresses; and a port or any."""

    name: Glob | None
    network: Network | None
    port: int | None

    def __str__(self) -> str:
        """Return the line as it is written."""
        host = self.name.pattern if self.name else str(self.network)
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        return f"{host}:{'*' if self.port is None else self.port}"


def parse_allowed(text: str) -> AllowedEndpoint:
    """Return the allow-list line ``text``: ``host:port``, ``*.host:port`` or ``CIDR:port``.

    Raises:
        Invalid: it is none of them.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or text.endswith("]"):
        raise Invalid(
            f"{text[:200]!r} names no port",
            code="invalid_port",
            resolution="write host:port, *.host:port or CIDR:port, with * for any port",
        )
    number = None if _port(port) == "*" else int(port)
    if "/" in host:
        try:
            return AllowedEndpoint(name=None, network=ipaddress.ip_network(host.strip("[]")), port=number)
        except ValueError as error:
            raise Invalid(
                f"{host[:200]!r} is not a block of addresses",
                code="invalid_host",
                reason=str(error),
                resolution="write it as 192.0.2.0/24",
            ) from None
    return AllowedEndpoint(name=compile_glob(canonical_host(host)), network=None, port=number)


def reaches(policy: NetworkPolicy, allowlist: Sequence[AllowedEndpoint], *, host: str, port: int) -> str | None:
    """Return what lets ``policy`` reach a host by this name or address, or ``None`` when nothing does.

    What a name resolves to is asked again, with ``may_connect``, for each address that is really connected to.
    """
    if policy is NetworkPolicy.FULL:
        return policy.value
    name = canonical_host(host)
    address = _address(name)
    if policy is NetworkPolicy.LOCAL:
        local = name == "localhost" or (address is not None and is_local(address))
        return policy.value if local else None
    if policy is NetworkPolicy.ALLOWLIST:
        return next((str(line) for line in allowlist if _fits(line, name, address, port)), None)
    return None


def names_itself(
    policy: NetworkPolicy, allowlist: Sequence[AllowedEndpoint], *, host: str, port: int
) -> str | None:  # fmt: skip
    """Return the line that names this very host, if there is one: no pattern and no policy is meant to."""
    if policy is not NetworkPolicy.ALLOWLIST:
        return None
    named = (line for line in allowlist if line.name is not None and line.name.is_literal)
    return next((str(line) for line in named if _fits(line, host, None, port)), None)


def may_connect(
    policy: NetworkPolicy, allowlist: Sequence[AllowedEndpoint], *, address: Address, port: int, local_too: bool
) -> bool:
    """Tell whether a name that ``reaches`` let pass may be connected to at ``address``.

    Local addresses are refused unless the agent may use the local network (``local_too``) or a line of the list
    names the address or a block that holds it: so a name cannot be pointed at the inside later (DNS rebinding).
    Where a cloud hands out a machine's credentials is refused in any case, unless a line names just that address.
    """
    if policy is NetworkPolicy.NONE:
        return False
    if is_metadata(address):
        return any(_names(line, address, port, most=1) for line in allowlist)
    if policy is NetworkPolicy.LOCAL:
        return is_local(address)
    return not is_local(address) or local_too or any(_names(line, address, port) for line in allowlist)


def is_metadata(address: Address) -> bool:
    """Tell whether a cloud serves its machines' metadata, credentials among them, at ``address``."""
    inner = _embedded(address)
    return is_metadata(inner) if inner is not None else address in _METADATA


def is_local(address: Address) -> bool:
    """Tell whether ``address`` is of this machine or its neighbourhood (loopback, private, link-local, shared)."""
    inner = _embedded(address)
    if inner is not None:
        return is_local(inner)
    site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return not address.is_global or address.is_multicast or site_local


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_METADATA = frozenset(ipaddress.ip_address(text) for text in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200"))


def _embedded(address: Address) -> Address | None:
    """Return the IPv4 address that an IPv6 address leads to, if it is of such a kind."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)


def _names(line: AllowedEndpoint, address: Address, port: int, *, most: int | None = None) -> bool:
    """Tell whether ``line`` speaks of this address itself, alone or in a block of at most ``most``; ``*`` does not."""
    if line.name is not None and not line.name.is_literal:
        return False
    if most is not None and line.network is not None and line.network.num_addresses > most:
        return False
    return _fits(line, canonical_host(str(address)), address, port)


def _fits(line: AllowedEndpoint, name: str, address: Address | None, port: int) -> bool:
    if line.port not in (None, port):
        return False
    if line.name is not None:
        return line.name.matches(name)
    return address is not None and line.network is not None and address in line.network


def _address(name: str) -> Address | None:
    try:
        return ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return None
