"""The processes of a box, found by their pid namespace: stopped and let go on where no control group does that."""

import os
from signal import SIGCONT, SIGSTOP

from borough.adapters import procfs
from borough.adapters.process import ProcessRef

_LOOKS = 20


def of(inner: ProcessRef) -> list[ProcessRef]:
    """Return all processes in the box whose first process is ``inner``, but that one."""
    wanted = _namespace(inner.pid)
    if wanted is None or not procfs.is_alive(inner):
        return []
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib has no quicker way to thousands of names
        if name.isdigit() and int(name) != inner.pid and _namespace(int(name)) == wanted:
            ref = procfs.identify(int(name))
            if ref is not None:
                found.append(ref)
    return found


def stop(inner: ProcessRef) -> None:
    """Stop them all; those that others started meanwhile, too."""
    stopped: set[ProcessRef] = set()
    for _ in range(_LOOKS):
        fresh = [ref for ref in of(inner) if ref not in stopped]
        if not fresh:
            return
        procfs.tell(fresh, SIGSTOP)
        stopped.update(fresh)


def let_go_on(inner: ProcessRef) -> None:
    """Let them go on."""
    procfs.tell(of(inner), SIGCONT)


def _namespace(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino  # noqa: PTH116 - as above
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
