"""What Firecracker is started with and asked for, as pure values.

The requests are those of the API description that is published with Firecracker (``firecracker.yaml``); paths in them
are relative to the folder that the machine's Firecracker runs in, with the jailer and without.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from borough.fleet.ports.network import Link
from borough.fleet.resources import Size
from borough.fleet.vms import VmId

API_SOCKET, VSOCK_SOCKET, LOG = "api.sock", "vsock.sock", "firecracker.log"
KERNEL, ROOT, SEED = "vmlinux", "rootfs.ext4", "seed.img"
STATE_FILE, MEMORY_FILE = "state.snap", "memory.snap"
GUEST_CID = 3
"""The first that a guest may have; each machine has a socket of its own, so all may have the same."""
PARENT_GROUP = "borough-firecracker"
_OVERHEAD_MIB = 128
"""What Firecracker itself may take beside the guest's memory."""
_CPU_PERIOD_US = 100_000
_FIRST_UID = 100_000
_ARGUMENTS = "console=ttyS0 reboot=k panic=1 pci=off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request to a machine's API socket."""

    method: str
    path: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One start of one machine's Firecracker."""

    firecracker: str
    name: str
    jailer: str | None = None
    user: int | None = None
    """Under whom the jailer runs it."""
    jails: Path | None = None
    group_version: int | None = None
    """Of the control groups there are, if any."""
    size: Size


def launch_argv(launch: Launch) -> Sequence[str]:
    """Return the command that is a machine's Firecracker, before anything is asked of it."""
    own = ["--api-sock", API_SOCKET]
    if launch.jailer is None:
        return [launch.firecracker, "--id", launch.name, *own]
    return [
        launch.jailer,
        "--id", launch.name,
        "--exec-file", launch.firecracker,
        "--uid", str(launch.user),
        "--gid", str(launch.user),
        "--chroot-base-dir", str(launch.jails),
        *group_arguments(launch.group_version, launch.size),
        "--", *own,
    ]  # fmt: skip


def group_arguments(version: int | None, size: Size) -> list[str]:
    """Return the limits that the jailer sets for Firecracker and the guest together."""
    if version is None:
        return []
    memory_bytes = (size.mem_mib + _OVERHEAD_MIB) << 20
    quota = size.cpu * _CPU_PERIOD_US
    limits: dict[str, object] = {"pids.max": 64 + 2 * size.cpu}
    if version == 1:
        limits |= {"memory.limit_in_bytes": memory_bytes, "cpu.cfs_quota_us": quota}
    else:
        limits |= {"memory.max": memory_bytes, "memory.swap.max": 0, "cpu.max": f"{quota} {_CPU_PERIOD_US}"}
    told = ["--cgroup-version", str(version), "--parent-cgroup", PARENT_GROUP]
    for name, value in limits.items():
        told += ["--cgroup", f"{name}={value}"]
    return told


def boot_requests(link: Link, size: Size) -> Sequence[Request]:
    """Return what makes a machine and starts it, in this order."""
    return [
        _put("/logger", {"log_path": LOG, "level": "Warning", "show_level": True}),
        _put("/machine-config", {"vcpu_count": size.cpu, "mem_size_mib": size.mem_mib}),
        _put("/boot-source", {"kernel_image_path": KERNEL, "boot_args": kernel_arguments(link)}),
        _drive("rootfs", ROOT, root=True),
        _drive("seed", SEED, root=False),
        _put(
            "/network-interfaces/eth0",
            {"iface_id": "eth0", "host_dev_name": str(link.device), "guest_mac": link.mac},
        ),
        _put("/vsock", {"guest_cid": GUEST_CID, "uds_path": VSOCK_SOCKET}),
        _put("/entropy", {}),
        _put("/actions", {"action_type": "InstanceStart"}),
    ]


def load_request() -> Request:
    """Return what makes a machine of a state with memory, and lets it run."""
    memory = {"backend_type": "File", "backend_path": MEMORY_FILE}
    return _put("/snapshot/load", {"snapshot_path": STATE_FILE, "mem_backend": memory, "resume_vm": True})


def save_request() -> Request:
    """Return what writes the state of a paused machine."""
    paths = {"snapshot_path": STATE_FILE, "mem_file_path": MEMORY_FILE}
    return _put("/snapshot/create", {"snapshot_type": "Full", **paths})


def pause_request(*, paused: bool) -> Request:
    """Return what freezes a machine, or lets it go on."""
    return Request(method="PATCH", path="/vm", body={"state": "Paused" if paused else "Resumed"})


def shutdown_request() -> Request:
    """Return what asks the guest to shut down, as a keyboard would."""
    return _put("/actions", {"action_type": "SendCtrlAltDel"})


def kernel_arguments(link: Link) -> str:
    """Return the kernel's command line: its address is given as the kernel's documentation of ``ip=`` has it."""
    address = f"ip={link.address}::{link.gateway}:{link.network.netmask}::eth0:off"
    return f"{_ARGUMENTS} {address}"


def name_of(marker: str, vm_id: VmId) -> str:
    """Return the id of a machine's Firecracker: letters, digits and hyphens, at most 64."""
    return f"{prefix_of(marker)}{vm_id}"


def prefix_of(marker: str) -> str:
    """Return what the ids of a host's machines begin with."""
    return f"borough-{hashlib.blake2b(marker.encode(), digest_size=12).hexdigest()}-"


def name_in(arguments: Sequence[str]) -> str | None:
    """Return the id out of a command line of Firecracker, or ``None`` when it is another's."""
    if not arguments or "firecracker" not in Path(arguments[0]).name:
        return None
    for place, word in enumerate(arguments):
        if word.startswith("--id="):
            return word.removeprefix("--id=")
        if word == "--id" and place + 1 < len(arguments):
            return arguments[place + 1]
    return None


def user_of(address: IPv4Address) -> int:
    """Return the user of the host under whom the machine at ``address`` runs: one of its own on this host."""
    return _FIRST_UID + int.from_bytes(address.packed[2:])


def _drive(name: str, path: str, *, root: bool) -> Request:
    body = {"drive_id": name, "path_on_host": path, "is_root_device": root, "is_read_only": not root}
    return _put(f"/drives/{name}", body | ({"cache_type": "Writeback"} if root else {}))


def _put(path: str, body: Mapping[str, Any]) -> Request:
    return Request(method="PUT", path=path, body=body)
