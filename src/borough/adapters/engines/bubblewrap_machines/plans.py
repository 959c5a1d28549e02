"""What a warden is given: everything that makes and confines a machine, worked out from values."""

import hashlib
import platform
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from borough.adapters.engines.bubblewrap import seccomp
from borough.adapters.engines.bubblewrap.keeper.boxes import FIRST_DATA, STATUS
from borough.adapters.network.commands import proxy_environment
from borough.adapters.process import OWNER
from borough.adapters.storage.bases import LOWER
from borough.fleet.host_image import OWN_PROGRAMS
from borough.fleet.ports.engines import MachineOrder
from borough.fleet.ssh_keys import is_usable
from borough.fleet.vms import VmId
from borough.governance.trust import TrustLevel

_MIB = 1 << 20
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FIRST_UID, _UIDS = 1_946_157_056, 1 << 26
"""A range that systemd's documentation of users and groups leaves unused, beside the one of agents' boxes."""
_OPEN_FILES = 4096
_SHM = "/dev/shm"  # noqa: S108 - the machine's own


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSettings:
    """How machines of this engine are made on this host."""

    state: Path
    """A private folder: one folder for each machine, with its warden's socket and its console's log."""
    marker: str
    """The host's own."""
    staging: str
    """An empty folder that wardens mount over, each for itself."""
    fixed: Mapping[str, str]
    """What of the host is in it, by name: bubblewrap and its libraries."""
    own_roots: Path | None = None
    """Where folders of the image ``host`` are made; nothing else has the host's programs shown in it."""
    use_cgroups: bool = True
    log_bytes: int = 16 * _MIB
    shm_bytes: int = 64 * _MIB
    run_bytes: int = 64 * _MIB
    processes: int = 1024


def owner_of(marker: str, vm_id: str, *, first: str = "machine") -> str:
    """Return the value of the marker that all of a machine's processes outside and inside carry."""
    return f"{first}:{marker}:{vm_id}"


def group_of(marker: str, vm_id: str) -> str:
    """Return the name of a machine's control groups."""
    return f"vm-{marker[:8]}-{vm_id}"


def ahead_of(marker: str) -> str:
    """Return how the names of control groups begin that are no machine's yet."""
    return group_of(marker, "ahead-")


def identity_of(vm_id: VmId) -> int:
    """Return the user of the host that is root in a machine, where a daemon that is root gives it one."""
    return _FIRST_UID + int.from_bytes(hashlib.sha256(vm_id.encode()).digest()[:4], "big") % _UIDS


def arguments(
    settings: MachineSettings, *, hostname: str, joins_network: bool, shown: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """Return bubblewrap's arguments; ``@ROOT@`` stands for where the warden mounts the machine's root.

    ``shown`` is where in the machine something of the host is seen, read-only, by the name under which it is staged.
    """
    seen = [word for target, name in shown.items() for word in ("--ro-bind", f"{settings.staging}/{name}", target)]
    return [
        "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup",
        *([] if joins_network else ["--unshare-net"]),
        "--disable-userns", "--uid", "0", "--gid", "0", "--hostname", hostname,
        "--cap-drop", "ALL", "--die-with-parent", "--new-session", "--clearenv", "--setenv", "PATH", PATH,
        "--bind", "@ROOT@", "/", "--proc", "/proc",
        "--dev", "/dev", "--size", str(settings.shm_bytes), "--perms", "1777", "--tmpfs", _SHM,
        "--remount-ro", "/dev",
        "--size", str(settings.run_bytes), "--tmpfs", "/run", *seen,
        "--seccomp", str(FIRST_DATA), "--json-status-fd", str(STATUS), "--chdir", "/",
    ]  # fmt: skip


def plan(
    settings: MachineSettings,
    order: MachineOrder,
    *,
    groups: Mapping[str, object] | None,
    nameservers: Sequence[str],
    shown: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, object]:
    """Return what the warden reads on its standard input.

    ``groups``: the control groups that its doorman is to be in, and what they may use.
    ``shown`` is what of the host is seen in the machine: where in it → where on the host.
    """
    if order.disk is None:
        raise ValueError(f"{order.vm_id} has no disk")
    owner = owner_of(settings.marker, order.vm_id)
    staged = {target: f"host/{number}" for number, target in enumerate(shown)}
    return {
        "vm_id": order.vm_id,
        "marker": {OWNER: owner, "PATH": PATH},
        "identity": identity_of(order.vm_id),
        "shown": {name: shown[target] for target, name in staged.items()},
        "lower": str((order.disk.path / LOWER).resolve()),
        "layers": str(order.disk.path),
        "namespace": None if order.link.namespace is None else f"/run/netns/{order.link.namespace}",
        "bubblewrap": arguments(
            settings, hostname=order.vm_id, joins_network=order.link.namespace is not None, shown=staged
        ),
        "argv": list(order.spec.command),
        "env": environment(order, owner, has_own_programs=bool(shown)),
        "files": _files(order, nameservers),
        "limits": _limits(order, settings, grouped=groups is not None),
        "groups": groups,
        "seccomp": seccomp.program(platform.machine(), TrustLevel.TRUSTED, processes=True, inet=True).hex(),
        "log_limit_bytes": settings.log_bytes,
    }


def environment(order: MachineOrder, owner: str, *, has_own_programs: bool = False) -> dict[str, str]:
    """Return the environment of everything in a machine."""
    path = f"{PATH}:{OWN_PROGRAMS}" if has_own_programs else PATH
    own = {"PATH": path, "HOME": "/root", "USER": "root", "LANG": "C.UTF-8", "HOSTNAME": order.vm_id}
    if order.spec.egress_allowlist:
        # Without a link the machine has its own loopback and nothing else: there the proxy listens.
        at = "127.0.0.1" if order.link.namespace is None else order.link.gateway
        own |= proxy_environment(str(at))
    return {**own, **order.spec.env, OWNER: owner}


def _files(order: MachineOrder, nameservers: Sequence[str]) -> list[tuple[str, str, str, bool]]:
    """Return the files that a machine is given: path, mode, content, and whether one that is there stays."""
    found = [
        ("/etc/hosts", "0644", f"127.0.0.1 localhost\n{order.link.address} {order.vm_id}\n", False),
        ("/etc/resolv.conf", "0644", "".join(f"nameserver {each}\n" for each in nameservers), True),
    ]
    keys = [key for key in order.spec.ssh_keys if is_usable(key)]
    if keys or order.spec.origin is not None:  # who may enter the machine it was made from may not enter this one
        found.append(("/root/.ssh/authorized_keys", "0600", "".join(f"{key}\n" for key in keys), False))
    return found


def _limits(order: MachineOrder, settings: MachineSettings, *, grouped: bool) -> list[tuple[int, int]]:
    """Return what each process is limited to (setrlimit(2)); memory too, where no control group counts it together."""
    limits = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_NPROC, settings.processes),
        (resource.RLIMIT_MEMLOCK, 8 * _MIB),
        (resource.RLIMIT_MSGQUEUE, 819_200),
        (resource.RLIMIT_NICE, 0),
        (resource.RLIMIT_RTPRIO, 0),
    ]
    if not grouped:
        limits.append((resource.RLIMIT_AS, order.spec.size.mem_mib * _MIB))
    return limits
