"""What a host daemon reads off its own machine: the port ``HostSigns``, and what there is to promise."""

import asyncio
import os
import re
import shutil
import socket
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from borough.fleet.hosts import Pressure

_PROC: Final = Path("/proc")
_AVG10: Final = re.compile(r"^some avg10=([0-9.]+)", re.MULTILINE)
_MEMORY: Final = re.compile(r"^(MemTotal|MemAvailable):\s+(\d+) kB$", re.MULTILINE)
_FALLBACK_CPUS: Final = 4
_FALLBACK_MIB: Final = 8192
_MIB: Final = 1_048_576
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - to be recognised
_SOMEWHERE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses for documentation (RFC 5737, RFC 3849), which only the default route leads to."""


class LinuxSigns:
    """A Linux machine, by proc(5) and statvfs(3)."""

    def __init__(self, disks: Path, *, proc: Path = _PROC) -> None:
        """``disks`` is where machines' disks are kept."""
        self._disks = disks
        self._proc = proc

    async def pressure(self) -> Pressure:
        """Return how the host feels now."""
        return await asyncio.to_thread(self._pressure)

    async def boot_id(self) -> str:
        """Return what is another after each start of the host."""
        return (_text(self._proc / "sys/kernel/random/boot_id") or "unknown").strip()

    def _pressure(self) -> Pressure:
        return Pressure(
            memory_some_avg10=self._avg10("memory"),
            cpu_some_avg10=self._avg10("cpu"),
            io_some_avg10=self._avg10("io"),
            memory_available_mib=memory_mib("MemAvailable", proc=self._proc),
            disk_free_mib=_free_mib(self._disks),
        )

    def _avg10(self, what: str) -> float:
        found = _AVG10.search(_text(self._proc / "pressure" / what) or "")
        return float(found[1]) if found else 0.0


def reachable_address(host: str, port: int) -> str:
    """Return the ``host:port`` under which others find a server that listens on ``host``.

    Of a server that listens everywhere it is the address that this machine speaks to others with; of a machine that
    speaks to nobody, its name.
    """
    if host not in _EVERYWHERE:
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    for family, somewhere in _SOMEWHERE:
        with socket.socket(family, socket.SOCK_DGRAM) as probe, suppress(OSError):
            probe.connect((somewhere, 9))  # only looks the route up: nothing is sent
            found: str = probe.getsockname()[0]
            return f"[{found}]:{port}" if ":" in found else f"{found}:{port}"
    return f"{socket.gethostname()}:{port}"


def memory_mib(which: str, *, proc: Path = _PROC) -> int | None:
    """Return ``MemTotal`` or ``MemAvailable``, or ``None`` where the kernel does not tell."""
    found = dict(_MEMORY.findall(_text(proc / "meminfo") or ""))
    return int(found[which]) // 1024 if which in found else None


def total_memory_mib() -> int:
    """Return how much memory this machine has."""
    return memory_mib("MemTotal") or _FALLBACK_MIB


def usable_cpus() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) or _FALLBACK_CPUS


def nameservers(file: Path = Path("/etc/resolv.conf")) -> tuple[str, ...]:
    """Return whom this machine asks for names, without those that only it can ask (resolv.conf(5))."""
    words = [line.split() for line in (_text(file) or "").splitlines()]
    told = [line[1] for line in words if line[:1] == ["nameserver"] and len(line) > 1]
    return tuple(address for address in told if _is_reachable(address))


def _is_reachable(address: str) -> bool:
    try:
        return not ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def port_is_free(port: int) -> bool:
    """Tell whether nothing on this machine listens on a TCP port, by binding it."""
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104 - every address is meant
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                # As a server would bind: what only waits for its last packets does not count.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, port))
        except OSError:
            if family == socket.AF_INET6 and not socket.has_dualstack_ipv6():
                continue  # no IPv6 here: nobody listens there
            return False
    return True


def _free_mib(path: Path) -> int | None:
    try:
        return shutil.disk_usage(path).free // _MIB
    except OSError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return None
