"""The folder in which a machine's Firecracker runs: with the jailer it is all that Firecracker can see.

What it needs is linked there under fixed names, so that requests are the same with a jail and without. A link is the
same file: a disk takes no room twice, and what the guest writes is in it at once.
"""

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from borough.adapters import process
from borough.adapters.engines.firecracker.bodies import (
    API_SOCKET,
    KERNEL,
    LOG,
    MEMORY_FILE,
    PARENT_GROUP,
    ROOT,
    SEED,
    STATE_FILE,
    VSOCK_SOCKET,
)
from borough.adapters.engines.refusals import failed

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_GROUPS = Path("/sys/fs/cgroup")
_CHECKED = (0, 1)
"""Exit statuses of e2fsck: clean, or mended."""


def jail_root(jails: Path, firecracker: str, name: str) -> Path:
    """Return the folder that the jailer makes for a machine (jailer.md of Firecracker)."""
    return jails / Path(firecracker).name / name / "root"


def furnish(room: Path, disk: Path, seed: Path, *, owner: int | None, state: Path | None = None) -> None:
    """Put what a start needs into ``room``; ``state`` is a folder with a state with memory, to go on from. Blocks.

    Raises:
        OSError: a file could not be linked, as when disks and this folder are on different file systems.
    """
    room.mkdir(mode=0o700, parents=True, exist_ok=True)
    for socket in (API_SOCKET, VSOCK_SOCKET):
        (room / socket).unlink(missing_ok=True)  # Firecracker does not take the place of an old one
    files = {KERNEL: disk / KERNEL, ROOT: disk / ROOT, SEED: seed}
    if state is not None:
        files |= {STATE_FILE: state / STATE_FILE, MEMORY_FILE: state / MEMORY_FILE}
    for name in (STATE_FILE, MEMORY_FILE):
        (room / name).unlink(missing_ok=True)
    for name, source in files.items():
        (room / name).unlink(missing_ok=True)
        os.link(source, room / name)
    (room / LOG).touch(mode=0o600)
    if owner is not None:
        _give([room, room / LOG, *(room / name for name in files)], owner)


def grow(disk: Path, size_mib: int) -> None:
    """Make a machine's root file system as large as was asked for; never smaller. Blocks.

    Raises:
        Unavailable: it is damaged, or no ext4 (``engine_failed``).
    """
    root = disk / ROOT
    wanted = size_mib << 20
    if root.stat().st_size >= wanted:
        return
    checked = process.run(["e2fsck", "-f", "-p", str(root)], env=_ENVIRONMENT, timeout_s=600.0)
    if checked.code not in _CHECKED:
        raise failed(f"the machine's file system cannot be made larger: {checked.words}")
    os.truncate(root, wanted)
    grown = process.run(["resize2fs", str(root)], env=_ENVIRONMENT, timeout_s=600.0)
    if grown.code != 0:
        raise failed(f"the machine's file system cannot be made larger: {grown.words}")


def remove(room: Path, name: str) -> None:
    """Remove a machine's folder and the control groups that the jailer made. Blocks."""
    top = room.parent if room.name == "root" else room
    if top.exists():
        shutil.rmtree(top)
    for group in (_GROUPS / PARENT_GROUP / name, *_GROUPS.glob(f"*/{PARENT_GROUP}/{name}")):
        with suppress(FileNotFoundError):
            group.rmdir()


def _give(paths: Iterable[Path], owner: int) -> None:
    for path in paths:
        os.chown(path, owner, owner, follow_symlinks=False)
