"""Copies of the layer that a machine writes to: what it deleted, replaced and marked is copied as it is.

An overlay says "deleted" by a device 0:0 and "replaced" by an extended attribute (kernel documentation, overlayfs).
"""

import os
import shutil
import stat
from pathlib import Path

from borough.adapters.storage.bases import LOWER
from borough.adapters.storage.copying import copy
from borough.adapters.storage.files import UPPER, WORK
from borough.adapters.storage.layers import remove_tree

SNAPSHOTS = "snapshots"


def keep(disk: Path, name: str) -> Path:
    """Keep the layer of a disk under a name, whole or not at all; return where it is."""
    kept = disk / SNAPSHOTS
    kept.mkdir(mode=0o700, exist_ok=True)
    target, draft = kept / name, kept / f".{name}.new"
    remove_tree(draft)
    _copy(disk / UPPER, draft)
    remove_tree(target)
    draft.rename(target)
    return target


def bring_back(disk: Path, name: str) -> None:
    """Make a kept layer the disk's again. The machine must not run."""
    draft = disk / f".{UPPER}.new"
    remove_tree(draft)
    _copy(disk / SNAPSHOTS / name, draft)
    remove_tree(disk / UPPER)
    draft.rename(disk / UPPER)
    remove_tree(disk / WORK)
    (disk / WORK).mkdir(mode=0o755)


def unfold(disk: Path, name: str, target: Path) -> None:
    """Make another disk at ``target`` that stands on what this one stands on, with a kept layer over it."""
    target.mkdir(mode=0o755)
    (target / LOWER).symlink_to((disk / LOWER).readlink())
    _copy(disk / SNAPSHOTS / name, target / UPPER)
    (target / WORK).mkdir(mode=0o755)


def used_bytes(folder: Path) -> int:
    """Return how much room a folder takes on the disk."""
    return sum(
        os.lstat(f"{place}/{name}").st_blocks * 512 for place, _, files in os.walk(folder) for name in files
    )  # fmt: skip


def _copy(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700)
    for entry in os.scandir(source):
        before, after = Path(entry.path), target / entry.name
        about = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(about.st_mode):
            _copy(before, after)
            continue
        if stat.S_ISREG(about.st_mode):
            copy(before, after)
            shutil.copystat(before, after)
        elif stat.S_ISLNK(about.st_mode):
            after.symlink_to(before.readlink())
        elif stat.S_ISCHR(about.st_mode) or stat.S_ISFIFO(about.st_mode):
            os.mknod(after, about.st_mode, about.st_rdev)
        else:
            continue  # a socket: whoever listened does not any more
        _own(after, about)
    shutil.copystat(source, target)
    _own(target, source.stat())


def _own(path: Path, about: os.stat_result) -> None:
    if os.geteuid() == 0:
        os.lchown(path, about.st_uid, about.st_gid)
