"""The firewall of a host, whole, from what is kept: one document that replaces the one before in one transaction.

Ports are one map from port to address, so that adding or removing a forward is exact. Replies pass before anything is
denied, so that a machine that may not call out can still answer. What Docker's chains drop is for the adapter to mend:
a drop in any chain wins over an accept in another.

Nothing is bridged from machine to machine: the host routes between them, so that replies can be told from calls there
too (connections are tracked for bridged frames by few kernels). What a link sends that is neither ARP nor IPv4 under
its own addresses is dropped, IPv6 with it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from borough.fleet.addresses import link_name, mac_of

TABLE = "borough"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A port of the host that leads to a machine."""

    host_port: int
    address: IPv4Address
    guest_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A machine on the host's network."""

    vm_id: str
    env_id: str
    address: IPv4Address
    deny_outgoing: bool = False
    """It calls nobody, neighbours included, and answers everybody who may reach it."""
    private: bool = False
    """Reached by machines of its own environment only."""
    listed: bool = False
    """It may call the egress proxy, although it may call nobody else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The network of one container with an egress list: it may call the proxy at its own gateway."""

    bridge: str
    gateway: IPv4Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruleset:
    """Everything that a host's firewall is to hold."""

    bridge: str
    network: IPv4Network
    forwards: tuple[Forward, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    proxy_port: int | None = None
    """Where machines with an egress list find the proxy on the gateway, if there is one."""
    closed_bridges: tuple[str, ...] = ()
    """Bridges of a container runtime from which nothing may call out."""
    way_prefix: str | None = None
    """How bridges of single containers are called, from which nothing may call out but to the proxy."""
    ways: tuple[Way, ...] = ()
    ipv6: bool = False
    """The host speaks it, so that it has to be closed too."""
    table: str = field(default=TABLE)


def render(ruleset: Ruleset) -> str:
    """Return the document that ``nft -f -`` takes; applying it twice is the same as once."""
    lines = [
        f"table ip {ruleset.table} {{}}",
        f"delete table ip {ruleset.table}",
        f"table bridge {ruleset.table} {{}}",
        f"delete table bridge {ruleset.table}",
        *_ip(ruleset),
        *_bridge(ruleset),
        *(_ip6(ruleset) if ruleset.ipv6 else []),
    ]
    return "\n".join(lines) + "\n"


def _ip(ruleset: Ruleset) -> list[str]:
    bridge, network = ruleset.bridge, ruleset.network
    forwards = (f"{each.host_port} : {each.address} . {each.guest_port}" for each in _sorted(ruleset.forwards))
    return [
        f"table ip {ruleset.table} {{",
        *_set("map ports", "inet_service : ipv4_addr . inet_service", forwards),
        *_set("set denied", "ipv4_addr", _addresses(each for each in ruleset.neighbours if each.deny_outgoing)),
        *_set("set listed", "ipv4_addr", _addresses(each for each in ruleset.neighbours if each.listed)),
        *_set("set private", "ipv4_addr", _addresses(each for each in ruleset.neighbours if each.private)),
        *_set("set together", "ipv4_addr . ipv4_addr", _pairs(ruleset.neighbours)),
        *_set("set closed", "ifname", (f'"{name}"' for name in ruleset.closed_bridges)),
        *_set("set ways", "ifname . ipv4_addr", (f'"{way.bridge}" . {way.gateway}' for way in ruleset.ways)),
        "  chain prerouting {",
        "    type nat hook prerouting priority dstnat;",
        "    fib daddr type local meta l4proto tcp dnat ip to tcp dport map @ports;",
        "  }",
        "  chain output {",
        "    type nat hook output priority -100;",
        "    fib daddr type local meta l4proto tcp dnat ip to tcp dport map @ports;",
        "  }",
        "  chain postrouting {",
        "    type nat hook postrouting priority srcnat;",
        f'    oifname "{bridge}" ip saddr 127.0.0.0/8 masquerade;',
        f'    oifname "{bridge}" ip saddr {network} ct status dnat masquerade;',
        f'    ip saddr {network} oifname != "{bridge}" masquerade;',
        "  }",
        "  chain forward {",
        "    type filter hook forward priority filter;",
        "    ct state established,related accept;",
        f'    iifname "{bridge}" ip saddr @denied counter drop;',
        "    iifname @closed counter drop;",
        *_from_ways(ruleset),
        "    ct status dnat accept;",
        f'    iifname "{bridge}" oifname "{bridge}" ip saddr . ip daddr @together accept;',
        f'    oifname "{bridge}" ip daddr @private counter drop;',
        f'    iifname "{bridge}" oifname "{bridge}" ip saddr @private counter drop;',
        "  }",
        "  chain input {",
        "    type filter hook input priority filter;",
        "    ct state established,related accept;",
        *_to_proxy(ruleset),
        f'    iifname "{bridge}" ip saddr @denied counter drop;',
        "    iifname @closed counter drop;",
        *_from_ways(ruleset),
        "  }",
        "  chain told {",
        "    type filter hook output priority filter;",
        # Between machines the host is the way: it must not tell them of a shorter one that is closed.
        f'    oifname "{bridge}" icmp type redirect drop;',
        "  }",
        "}",
    ]


def _addresses(neighbours: Iterable[Neighbour]) -> Iterable[str]:
    return (str(each.address) for each in neighbours)


def _from_ways(ruleset: Ruleset) -> list[str]:
    return [] if ruleset.way_prefix is None else [f'    iifname "{ruleset.way_prefix}*" counter drop;']


def _to_proxy(ruleset: Ruleset) -> list[str]:
    if ruleset.proxy_port is None:
        return []
    ways = [f"    iifname . ip daddr @ways tcp dport {ruleset.proxy_port} accept;"] if ruleset.ways else []
    return [*ways, f'    iifname "{ruleset.bridge}" ip saddr @listed tcp dport {ruleset.proxy_port} accept;']


def _bridge(ruleset: Ruleset) -> list[str]:
    """Each link speaks for its own addresses only, and to the host only."""
    known = list(ruleset.neighbours)
    return [
        f"table bridge {ruleset.table} {{",
        *_set("set links", "ifname . ether_addr . ipv4_addr", map(_link, known)),
        "  chain forward {",
        "    type filter hook forward priority filter;",
        '    iifname "tt-*" oifname "tt-*" counter drop;',
        '    iifname "tt-*" jump spoofed;',
        "  }",
        "  chain input {",
        "    type filter hook input priority filter;",
        '    iifname "tt-*" jump spoofed;',
        "  }",
        "  chain spoofed {",
        "    ether type arp iifname . arp saddr ether . arp saddr ip @links return;",
        "    ether type ip iifname . ether saddr . ip saddr @links return;",
        "    counter drop;",
        "  }",
        "}",
    ]


def _ip6(ruleset: Ruleset) -> list[str]:
    """Containers that may not call out do not by IPv6 either, whatever they make themselves of an address."""
    prefixes = [] if ruleset.way_prefix is None else [f"{ruleset.way_prefix}*"]
    drops = [f'    iifname "{name}" counter drop;' for name in (*ruleset.closed_bridges, *prefixes)]
    return [
        f"table ip6 {ruleset.table} {{}}",
        f"delete table ip6 {ruleset.table}",
        f"table ip6 {ruleset.table} {{",
        *("  chain forward {", "    type filter hook forward priority filter;", *drops, "  }"),
        *("  chain input {", "    type filter hook input priority filter;", *drops, "  }"),
        "}",
    ]


def _link(neighbour: Neighbour) -> str:
    return f'"{link_name(neighbour.vm_id)}" . {mac_of(neighbour.address)} . {neighbour.address}'


def _pairs(neighbours: Sequence[Neighbour]) -> Iterable[str]:
    by_environment: dict[str, list[IPv4Address]] = {}
    for neighbour in neighbours:
        if neighbour.private:
            by_environment.setdefault(neighbour.env_id, []).append(neighbour.address)
    for addresses in by_environment.values():
        yield from (f"{one} . {other}" for one in addresses for other in addresses if one != other)


def _set(name: str, kind: str, elements: Iterable[str]) -> list[str]:
    listed = ", ".join(elements)
    inside = [f"    elements = {{ {listed} }}"] if listed else []
    return [f"  {name} {{", f"    type {kind}", *inside, "  }"]


def _sorted(forwards: Iterable[Forward]) -> list[Forward]:
    return sorted(forwards, key=lambda each: each.host_port)
