"""What ``ip`` (iproute2) is asked for, as batches of lines built from values."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from borough.fleet.addresses import link_name, mac_of

INSIDE = "eth0"
"""What a machine's own end of its link is called in its namespace."""


PROXY_PORT = 3128
"""Where on the gateway machines with an egress list find their way out."""


def proxy_environment(at: str) -> dict[str, str]:
    """Return by which variables programs find the proxy at an address."""
    proxy = f"http://{at}:{PROXY_PORT}"
    return {name: proxy for each in ("http_proxy", "https_proxy", "all_proxy") for name in (each, each.upper())}


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose a device is; it is written on it, as its alias."""

    marker: str

    def alias(self, what: str) -> str:
        """Return the alias of ``what``: a machine's id, or the bridge's name."""
        return f"borough:{self.marker}:{what}"

    def owned(self, alias: str | None) -> str | None:
        """Return of what of ours an alias tells, or ``None`` when it is not ours."""
        prefix = f"borough:{self.marker}:"
        return alias[len(prefix) :] if alias is not None and alias.startswith(prefix) else None


def bridge_lines(bridge: str, gateway: IPv4Address, network: IPv4Network, *, alias: str, is_there: bool) -> list[str]:
    """Make the bridge, or mend the one that is there. It keeps one hardware address, whatever joins and leaves."""
    make = [] if is_there else [f"link add {bridge} type bridge", f'link set {bridge} alias "{alias}"']
    return [
        *make,
        f"link set {bridge} address {mac_of(gateway)} up",
        f"addr replace {gateway}/{network.prefixlen} dev {bridge}",
    ]


def join_lines(device: str, bridge: str) -> list[str]:
    """Put a link on the bridge, where it reaches the host only: between machines the host routes, by its firewall."""
    return [f"link set {device} master {bridge} up", f"link set {device} type bridge_slave isolated on"]


def tap_lines(device: str, *, alias: str) -> list[str]:
    """Make a device for an engine with a network card of its own."""
    return [f"tuntap add dev {device} mode tap", f'link set {device} alias "{alias}"']


def pair_lines(device: str, namespace: str, address: IPv4Address, *, alias: str) -> list[str]:
    """Make a link whose other end is in a namespace."""
    return [
        f"link add {device} type veth peer name {INSIDE} address {mac_of(address)} netns {namespace}",
        f'link set {device} alias "{alias}"',
    ]


def inside_lines(address: IPv4Address, network: IPv4Network, gateway: IPv4Address, *, alias: str) -> list[str]:
    """Set up the machine's end in its namespace; no address of version 6 is made up."""
    return [
        f'link set lo alias "{alias}"',
        "link set lo up",
        f"link set {INSIDE} addrgenmode none",
        f"link set {INSIDE} up",
        f"addr replace {address}/{network.prefixlen} dev {INSIDE}",
        f"route replace default via {gateway}",
    ]


def switches(bridge: str) -> Sequence[tuple[str, str]]:
    """Return the kernel's settings (below /proc/sys/net) that make the host the way between machines.

    ``route_localnet`` lets 127.0.0.1 of the host reach published ports; ``proxy_arp_pvlan`` answers for machines that
    do not hear one another.
    """
    own = f"ipv4/conf/{bridge}"
    return [
        ("ipv4/ip_forward", "1"),
        (f"{own}/route_localnet", "1"),
        (f"{own}/proxy_arp_pvlan", "1"),
        # The kernel answers for others after up to 0.8 s unless told otherwise.
        (f"ipv4/neigh/{bridge}/proxy_delay", "0"),
        (f"{own}/send_redirects", "0"),
        (f"ipv6/conf/{bridge}/disable_ipv6", "1"),
    ]


def namespace_of(vm_id: str) -> str:
    """Return the name of a machine's network namespace: that of its link."""
    return link_name(vm_id)
