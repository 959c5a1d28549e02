"""What a machine with a process of its own uses, read off that process, its disk and its link."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from borough.adapters.engines.places import Kept
from borough.adapters.process import ProcessRef
from borough.fleet.ports.engines import MachineStats

_USER_TICKS, _SYSTEM_TICKS = 11, 12  # positions in ``stat`` after the command's closing parenthesis (proc(5))
_RECEIVED, _SENT = 0, 8  # bytes, in ``net/dev`` (proc(5)), which is of the process's own network namespace
_RESIDENT = "VmRSS:"


def measure(ref: ProcessRef | None, kept: Kept, *, disk: Path) -> MachineStats:
    """Return what the machine uses now; of one that does not run, its disk."""
    if ref is None:
        return MachineStats(disk_bytes=disk_bytes(disk))
    process = Path(f"/proc/{ref.pid}")
    device = kept.link.device
    with suppress(FileNotFoundError, ProcessLookupError):  # it ends just now
        fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
        ticks = int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])
        status = (process / "status").read_text().splitlines()
        resident = next((int(line.split()[1]) << 10 for line in status if line.startswith(_RESIDENT)), None)
        received, sent = (None, None) if device is None else _traffic(process, device)
        return MachineStats(
            cpu_seconds=ticks / os.sysconf("SC_CLK_TCK"),
            memory_bytes=resident,
            disk_bytes=disk_bytes(disk),
            received_bytes=received,
            sent_bytes=sent,
        )
    return MachineStats(disk_bytes=disk_bytes(disk))


def _traffic(process: Path, device: str) -> tuple[int | None, int | None]:
    """Return what the machine received and sent: what the host's end of its link sent and received."""
    for line in (process / "net" / "dev").read_text().splitlines():
        name, _, counted = line.partition(":")
        if name.strip() == device:
            numbers = counted.split()
            return int(numbers[_SENT]), int(numbers[_RECEIVED])
    return None, None


def disk_bytes(disk: Path) -> int | None:
    """Return how much a disk takes on this host, where that can be told."""
    about = disk.stat()
    return None if stat.S_ISBLK(about.st_mode) else about.st_blocks * 512
