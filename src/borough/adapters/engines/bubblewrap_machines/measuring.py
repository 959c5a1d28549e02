"""What a machine uses, by what the kernel tells of its processes and its end of the network."""

import os
from pathlib import Path

from borough.adapters.engines.bubblewrap import members
from borough.adapters.engines.bubblewrap.cgroups import Groups
from borough.adapters.engines.bubblewrap_machines.layers import used_bytes
from borough.adapters.process import ProcessRef
from borough.adapters.storage.files import UPPER
from borough.fleet.ports.engines import MachineStats

_USER, _SYSTEM, _CHILDREN_USER, _CHILDREN_SYSTEM = 11, 12, 13, 14  # in ``stat`` after the command (proc(5))
_RECEIVED, _SENT = 0, 8
_DEVICE = "eth0"


def measure(inner: ProcessRef, groups: Groups | None, disk: Path | None) -> MachineStats:
    """Return what the machine uses now; of processes that ended, processor time counts that was collected inside."""
    pids = [inner.pid, *(ref.pid for ref in members.of(inner))]
    ticks, pages = 0, 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            pages += int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        ticks += int(fields[_USER]) + int(fields[_SYSTEM])
        if pid == inner.pid:
            ticks += int(fields[_CHILDREN_USER]) + int(fields[_CHILDREN_SYSTEM])
    counted = None if groups is None else groups.memory_bytes()
    received, sent = _traffic(inner.pid)
    return MachineStats(
        cpu_seconds=ticks / os.sysconf("SC_CLK_TCK"),
        memory_bytes=counted if counted is not None else pages * os.sysconf("SC_PAGE_SIZE"),
        disk_bytes=None if disk is None else used_bytes(disk / UPPER),
        processes=len(pids),
        received_bytes=received,
        sent_bytes=sent,
    )


def _traffic(pid: int) -> tuple[int | None, int | None]:
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None, None
    for line in lines:
        name, _, counts = line.partition(":")
        if name.strip() == _DEVICE:
            fields = counts.split()
            return int(fields[_RECEIVED]), int(fields[_SENT])
    return None, None
