"""What the tools of jails are called with (jail(8), jexec(8), jls(8), rctl(8))."""

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from borough.fleet.resources import Size
from borough.fleet.vms import VmId, check_vm_id

LISTING = ("jls", "name")
DEVICES_RULESET = 4
"""The one that FreeBSD's devfs.rules(5) has for jails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start of one jail."""

    name: str
    vm_id: VmId
    root: Path
    address: IPv4Address
    bridge: str
    console: Path
    command: tuple[str, ...]
    env: Mapping[str, str]
    stop_within_s: int


def start_argv(start: Start) -> Sequence[str]:
    """Return what makes a jail and starts what runs in it: its command, or its system's own start."""
    return [
        "jail", "-c",
        f"name={start.name}",
        f"path={start.root}",
        f"host.hostname={start.vm_id}",
        f"ip4.addr={start.bridge}|{start.address}/32",
        "ip6=disable",
        "persist",
        "mount.devfs",
        f"devfs_ruleset={DEVICES_RULESET}",
        "enforce_statfs=2",
        "children.max=0",
        "securelevel=2",
        "sysvmsg=new", "sysvsem=new", "sysvshm=new",
        "allow.noraw_sockets",
        "allow.nomount",
        "exec.clean",
        f"exec.consolelog={start.console}",
        f"exec.start={_first_command(start)}",
        f"exec.stop={_last_command(start)}",
        f"stop.timeout={start.stop_within_s}",
    ]  # fmt: skip


def stop_argv(name: str) -> Sequence[str]:
    """Return what ends a jail in order: its own shutdown first, then whatever is left in it."""
    return ["jail", "-r", name]


def remove_argv(name: str) -> Sequence[str]:
    """Return what removes a jail by force, with everything in it, asking nobody."""
    return ["jail", "-R", name]


def limit_argv(name: str, size: Size) -> Sequence[Sequence[str]]:
    """Return what limits a jail: memory is denied, the processor is held back."""
    return [
        ["rctl", "-a", f"jail:{name}:memoryuse:deny={size.mem_mib}M"],
        ["rctl", "-a", f"jail:{name}:pcpu:deny={size.cpu * 100}"],
    ]


def unlimit_argv(name: str) -> Sequence[str]:
    """Return what forgets a jail's limits."""
    return ["rctl", "-r", f"jail:{name}"]


def inside_argv(jexec: str, name: str, command: str) -> Sequence[str]:
    """Return what runs ``command`` in the jail's shell, with nothing of our environment."""
    return [jexec, "-l", "-U", "root", name, "/bin/sh", "-c", command]


def name_of(marker: str, vm_id: VmId) -> str:
    """Return a jail's name: the host's mark and the machine's id. A dot would be a jail in a jail."""
    return f"{prefix_of(marker)}{vm_id}"


def prefix_of(marker: str) -> str:
    """Return what the names of a host's jails begin with."""
    return f"bo-{hashlib.blake2b(marker.encode(), digest_size=4).hexdigest()}-"


def machines_in(listing: str, marker: str) -> list[VmId]:
    """Return the machines of this host among the names of jails."""
    found = []
    for name in listing.split():
        if name.startswith(prefix_of(marker)):
            try:
                found.append(check_vm_id(name.removeprefix(prefix_of(marker))))
            except ValueError:
                continue  # nothing that we made
    return found


def _first_command(start: Start) -> str:
    if not start.command:
        return "/bin/sh /etc/rc"
    variables = [f"{name}={shlex.quote(value)}" for name, value in start.env.items()]
    # In the background: the jail is made when this returns.
    return " ".join(["/usr/bin/env", *variables, shlex.join(start.command), "&"])


def _last_command(start: Start) -> str:
    return "/bin/sh /etc/rc.shutdown jail" if not start.command else "/bin/kill -TERM -1"
