"""What bhyve's tools are called with (bhyve(8), bhyveload(8), bhyvectl(8), daemon(8)), and what ``ps`` says of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from borough.fleet.ports.network import Link
from borough.fleet.resources import Size
from borough.fleet.vms import VmId, check_vm_id

FIRMWARE = Path("/usr/local/share/uefi-firmware/BHYVE_UEFI.fd")
DEVICES = Path("/dev/vmm")
PROCESSES = ("ps", "-axww", "-o", "pid=", "-o", "uid=", "-o", "lstart=", "-o", "command=")
_STARTED_WORDS = 5
"""Of ``lstart``: weekday, month, day, time, year."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """One start of one machine."""

    name: str
    size: Size
    disk: Path
    seed: Path
    link: Link
    firmware: Path | None
    """``None``: the guest is FreeBSD and is loaded by bhyveload."""
    folder: Path


def load_argv(boot: Boot) -> Sequence[str]:
    """Return what loads a FreeBSD guest's kernel into a new machine."""
    return ["bhyveload", "-m", f"{boot.size.mem_mib}M", "-d", str(boot.disk), "-c", "/dev/null", boot.name]


def boot_argv(boot: Boot) -> Sequence[str]:
    """Return what starts a machine; it runs on by itself, and what it prints goes to its console's log."""
    firmware = [] if boot.firmware is None else ["-l", f"bootrom,{boot.firmware}"]
    return [
        "daemon", "-f", "-p", str(boot.folder / "bhyve.pid"), "-o", str(boot.folder / "console.log"),
        "bhyve",
        "-A", "-H", "-P",
        "-c", f"cpus={boot.size.cpu}",
        "-m", f"{boot.size.mem_mib}M",
        "-s", "0:0,hostbridge",
        "-s", f"3:0,virtio-blk,{boot.disk}",
        "-s", f"4:0,virtio-net,{boot.link.device},mac={boot.link.mac}",
        "-s", f"5:0,virtio-blk,{boot.seed},ro",
        "-s", "6:0,virtio-rnd",
        "-s", "31:0,lpc",
        *firmware,
        "-l", "com1,stdio",
        boot.name,
    ]  # fmt: skip


def destroy_argv(name: str) -> Sequence[str]:
    """Return what removes a machine from the kernel."""
    return ["bhyvectl", "--destroy", f"--vm={name}"]


def name_of(marker: str, vm_id: VmId) -> str:
    """Return how the kernel knows a machine: at most 31 letters, the host's mark and the machine's id."""
    return f"{prefix_of(marker)}{vm_id}"


def prefix_of(marker: str) -> str:
    """Return what the names of a host's machines begin with."""
    return f"bo-{hashlib.blake2b(marker.encode(), digest_size=4).hexdigest()}-"


def machine_of(name: str, marker: str) -> VmId | None:
    """Return the machine that a name stands for, if it is one of this host's."""
    if not name.startswith(prefix_of(marker)):
        return None
    try:
        return check_vm_id(name.removeprefix(prefix_of(marker)))
    except ValueError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A process as ``ps`` told of it: who it is, and no other."""

    pid: int
    started: str


def find_process(listing: str, name: str, *, user: int) -> Listed | None:
    """Return the process that is the machine: exactly its title, or exactly bhyve called with its name at the end."""
    for line in listing.splitlines():
        words = line.split(None, 2 + _STARTED_WORDS)
        if len(words) < 3 + _STARTED_WORDS or int(words[1]) != user:
            continue
        command = words[-1].strip()
        called = command.split()
        is_titled = command in {f"bhyve: {name} (bhyve)", f"bhyve: {name}"}
        is_called = Path(called[0]).name == "bhyve" and called[-1] == name
        if is_titled or is_called:
            return Listed(pid=int(words[0]), started=" ".join(words[2 : 2 + _STARTED_WORDS]))
    return None
