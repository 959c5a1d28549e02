"""What QEMU is started with, as pure lists. Paths of one machine's own things are relative to its folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from borough.adapters.engines.places import CONSOLE_LOG
from borough.fleet.images import ImageForm
from borough.fleet.ports.disks import Disk
from borough.fleet.ports.network import Link

PROGRAM = "qemu-system-x86_64"
QMP_SOCKET, CONSOLE_SOCKET, AGENT_SOCKET = "qmp.sock", "console.sock", "agent.sock"
DISK_NODE = "disk"
"""How QMP calls the machine's own disk."""
PID_FILE = "qemu.pid"
"""QEMU removes it when it ends in order (``-pidfile``, qemu(1)): where it was left behind, QEMU was killed."""
AGENT_PORT = "org.qemu.guest_agent.0"
TRANSLATION_CACHE_MIB = 128
_DRIVERS: Mapping[ImageForm, tuple[str, str]] = {
    ImageForm.QCOW2: ("qcow2", "file"),
    ImageForm.RAW: ("raw", "file"),
    ImageForm.VOLUME: ("raw", "host_device"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """One start of one machine."""

    program: str
    name: str
    """With the marker: it is what proves whose the process is."""
    acceleration: str
    cpus: int
    memory_mib: int
    disk: Disk
    seed: Path
    link: Link
    closed: bool
    """Nothing but published ports gets through."""
    publish_on: str
    paused: bool = False
    """Load everything, run nothing: for returning to a state with memory."""


def boot_argv(boot: Boot) -> Sequence[str]:
    """Return the command that is a machine, run in its folder; what QEMU never needs again seccomp closes to it."""
    return [
        boot.program,
        *name_arguments(boot.name),
        "-machine", "q35",
        "-accel", accelerator(boot.acceleration),
        "-cpu", "host" if boot.acceleration == "kvm" else "max",
        "-smp", f"cpus={boot.cpus}",
        "-m", f"size={boot.memory_mib}M",
        "-nodefaults", "-no-user-config",
        "-display", "none",
        "-pidfile", PID_FILE,
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-chardev", f"socket,id=qmp,path={QMP_SOCKET},server=on,wait=off",
        "-mon", "chardev=qmp,mode=control",
        "-chardev", f"socket,id=console,path={CONSOLE_SOCKET},server=on,wait=off,logfile={CONSOLE_LOG},logappend=on",
        "-serial", "chardev:console",
        "-object", "rng-random,id=rng,filename=/dev/urandom",
        "-device", "virtio-rng-pci,rng=rng",
        "-device", "virtio-serial-pci",
        "-chardev", f"socket,id=agent,path={AGENT_SOCKET},server=on,wait=off",
        "-device", f"virtserialport,chardev=agent,name={AGENT_PORT}",
        *_disks(boot),
        "-netdev", netdev(boot.link, closed=boot.closed, publish_on=boot.publish_on),
        "-device", f"virtio-net-pci,netdev=net,mac={boot.link.mac}",
        *(["-S"] if boot.paused else []),
    ]  # fmt: skip


def name_arguments(name: str) -> list[str]:
    """Return the pair of arguments by which a machine's process is known."""
    return ["-name", f"guest={name},debug-threads=on"]


def name_in(arguments: Sequence[str]) -> str | None:
    """Return the machine's name out of a command line of QEMU, or ``None`` when it is another's."""
    if not arguments or not Path(arguments[0]).name.startswith("qemu-system-") or "-name" not in arguments[:-1]:
        return None
    first, _, _ = arguments[arguments.index("-name") + 1].partition(",")
    return first.removeprefix("guest=")


def accelerator(acceleration: str) -> str:
    """Return how code of the guest is run; what translation keeps is bounded."""
    return f"tcg,thread=multi,tb-size={TRANSLATION_CACHE_MIB}" if acceleration == "tcg" else acceleration


def netdev(link: Link, *, closed: bool, publish_on: str) -> str:
    """Return where the machine's card leads: to its tap, or into a network that QEMU makes up for it alone."""
    if link.device is not None:
        return f"tap,id=net,ifname={link.device},script=no,downscript=no"
    forwards = [
        f"hostfwd=tcp:{publish_on}:{host}-{link.address}:{guest}" for guest, host in sorted(link.port_map.items())
    ]
    restricted = ["restrict=on"] if closed else []
    own = [f"net={link.network}", f"host={link.gateway}", f"dns={user_mode_nameserver(link)}", "ipv6=off"]
    return ",".join(["user,id=net", *own, f"dhcpstart={link.address}", *restricted, *forwards])


def user_mode_nameserver(link: Link) -> IPv4Address:
    """Return an address that no machine has, where user-mode networking answers for the host's name server."""
    return link.network.broadcast_address - 1


def _disks(boot: Boot) -> list[str]:
    driver, below = _DRIVERS[boot.disk.form]
    disk = {
        "driver": driver,
        "node-name": DISK_NODE,
        "discard": "unmap",
        "file": {"driver": below, "filename": str(boot.disk.path), "discard": "unmap"},
    }
    seed = {
        "driver": "raw",
        "node-name": "seed",
        "read-only": True,
        "file": {"driver": "file", "filename": str(boot.seed), "read-only": True},
    }
    return [
        "-blockdev", _json(disk), "-device", f"virtio-blk-pci,drive={DISK_NODE},bootindex=0",
        "-blockdev", _json(seed), "-device", "virtio-blk-pci,drive=seed",
    ]  # fmt: skip


def _json(node: Mapping[str, Any]) -> str:
    """No path can become an option this way."""
    return json.dumps(node, separators=(",", ":"))
