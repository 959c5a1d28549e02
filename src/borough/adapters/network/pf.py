"""The firewall and the devices of a FreeBSD host, as documents and commands (pf.conf(5), ifconfig(8)).

The rules are one anchor, rendered whole from what is kept and loaded in one step; the host's own ``pf.conf`` has to
call it: ``nat-anchor "borough/*"``, ``rdr-anchor "borough/*"`` and ``anchor "borough/*"``. Replies belong to a state
that the call made, so a machine that may call nobody still answers. A published port is not reached from the host
itself by the host's own address: pf redirects what comes in, not what goes out.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network

from borough.fleet.addresses import link_name, mac_of
from borough.fleet.rulesets import Neighbour, Ruleset


def anchor_of(bridge: str) -> str:
    """Return the name of a host's anchor."""
    return f"borough/{bridge}"


def load_argv(bridge: str) -> Sequence[str]:
    """Return what replaces the anchor by the document on its standard input."""
    return ["pfctl", "-a", anchor_of(bridge), "-f", "-"]


def flush_argv(bridge: str) -> Sequence[str]:
    """Return what empties the anchor."""
    return ["pfctl", "-a", anchor_of(bridge), "-F", "all"]


def render_pf(ruleset: Ruleset, *, outside: str) -> str:
    """Return the document of the anchor; ``outside`` is the device of the way out."""
    bridge, network = ruleset.bridge, ruleset.network
    known = sorted(ruleset.neighbours, key=lambda each: each.address)
    lines = [
        _table("denied", (each.address for each in known if each.deny_outgoing)),
        _table("listed", (each.address for each in known if each.listed)),
        _table("private", (each.address for each in known if each.private)),
        f"nat on {outside} inet from {network} to ! {network} -> ({outside})",
        *(
            f"rdr on ! {bridge} inet proto tcp from any to (self) port {each.host_port}"
            f" -> {each.address} port {each.guest_port}"
            for each in sorted(ruleset.forwards, key=lambda each: each.host_port)
        ),
        *(f"block drop in quick on {link_name(each.vm_id)} inet from ! {each.address} to any" for each in known),
        *(f"block drop in quick on {link_name(each.vm_id)} inet6 all" for each in known),
        *_to_proxy(ruleset),
        f"block drop in quick on {bridge} inet from <denied> to any",
        *_together(known, bridge),
        f"pass in quick on {bridge} inet from <private> to (self) keep state",
        f"block drop in quick on {bridge} inet from {network} to <private>",
        f"block drop in quick on {bridge} inet from <private> to {network}",
        f"pass in quick on {bridge} inet from {network} to any keep state",
        f"pass out quick on {bridge} inet from any to {network} keep state",
    ]
    return "\n".join(lines) + "\n"


def bridge_commands(bridge: str, gateway: IPv4Address, network: IPv4Network) -> Sequence[Sequence[str]]:
    """Return what makes a host's bridge, or mends the one that is there."""
    return [
        ["ifconfig", bridge, "inet", f"{gateway}/{network.prefixlen}", "ether", mac_of(gateway), "up"],
        ["sysctl", "net.inet.ip.forwarding=1"],
        ["sysctl", "net.link.bridge.pfil_member=1"],
    ]


def tap_commands(vm_id: str, tap: str, bridge: str) -> Sequence[Sequence[str]]:
    """Return what gives a fresh ``tap`` the name of a machine's link and puts it on the bridge, apart from others."""
    device = link_name(vm_id)
    return [
        ["ifconfig", tap, "name", device],
        ["ifconfig", device, "description", f"borough:{vm_id}", "up"],
        ["ifconfig", bridge, "addm", device, "private", device],
    ]


def remove_commands(vm_id: str) -> Sequence[Sequence[str]]:
    """Return what removes a machine's link."""
    return [["ifconfig", link_name(vm_id), "destroy"]]


def _table(name: str, addresses: Iterable[IPv4Address]) -> str:
    listed = ", ".join(str(address) for address in addresses)
    return f"table <{name}> {{ {listed} }}" if listed else f"table <{name}> persist"


def _to_proxy(ruleset: Ruleset) -> list[str]:
    if ruleset.proxy_port is None:
        return []
    port = ruleset.proxy_port
    return [f"pass in quick on {ruleset.bridge} inet proto tcp from <listed> to (self) port {port} keep state"]


def _together(known: Sequence[Neighbour], bridge: str) -> list[str]:
    return [
        f"pass in quick on {bridge} inet from {one.address} to {other.address} keep state"
        for one in known
        for other in known
        if one.private and other.private and one.env_id == other.env_id and one != other
    ]
