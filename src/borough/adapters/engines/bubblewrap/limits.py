"""How much a box may use: what the manifest asks for, and a default for everything that it does not mention."""

import resource
from dataclasses import dataclass

from borough.governance.manifests import Resources, Runtime

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxLimits:
    """The defaults of this host. Sizes are the most that one box may have."""

    memory_bytes: int = 1024 * _MIB
    processes: int = 256
    open_files: int = 1024
    file_bytes: int = 1024 * _MIB
    """Of one file that a box writes."""
    workspace_bytes: int = 4096 * _MIB
    """Of everything that an agent wrote; looked at while it runs, and enforced by ending it."""
    free_bytes: int = 256 * _MIB
    """What must stay free on the disk of the workspaces while a box runs."""
    tmp_bytes: int = 64 * _MIB
    shm_bytes: int = 64 * _MIB
    log_bytes: int = 8 * _MIB


def resource_limits(
    wanted: Resources, limits: BoxLimits, runtime: Runtime, *, memory_group: bool
) -> list[tuple[int, int]]:
    """Return what every process of the box is limited to (setrlimit(2)).

    Memory is limited for each process where no control group does it for all together (``memory_group``): by address
    space, except for Node, which reserves far more of it than it uses; for that by writable private memory.
    """
    memory = wanted.memory_limit_bytes or limits.memory_bytes
    kept = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, wanted.max_open_files or limits.open_files),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NPROC, wanted.max_processes or limits.processes),
        (resource.RLIMIT_MEMLOCK, 8 * _MIB),
        (resource.RLIMIT_MSGQUEUE, 819_200),
        (resource.RLIMIT_NICE, 0),
        (resource.RLIMIT_RTPRIO, 0),
        (resource.RLIMIT_SIGPENDING, 1024),
    ]
    if not memory_group:
        kept.append((resource.RLIMIT_DATA if runtime is Runtime.NODE else resource.RLIMIT_AS, memory))
    return kept
