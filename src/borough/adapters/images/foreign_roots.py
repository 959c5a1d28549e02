"""Root folders that were fetched, made into what their engines start from."""

import shutil
from pathlib import Path

from borough.adapters.images.tools import image_failed, run
from borough.adapters.storage import trees
from borough.adapters.storage.catalogue import KERNEL, ROOT

ROOT_MIB = 128
_INIT = """#!/bin/sh
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev 2>/dev/null
mkdir -p /dev/pts /run
mount -t devpts none /dev/pts
mount -t tmpfs none /run
hostname borough
[ -s /etc/resolv.conf ] || echo "nameserver 1.1.1.1" >/etc/resolv.conf
while true; do setsid cttyhack sh </dev/ttyS0 >/dev/ttyS0 2>&1 || sh </dev/ttyS0 >/dev/ttyS0 2>&1; done
"""
_JAIL_FILES = {
    "etc/resolv.conf": "nameserver 1.1.1.1\n",
    "etc/rc.conf": 'sshd_enable="YES"\nsendmail_enable="NONE"\nsyslogd_flags="-ss"\n',
}


def file_system_argv(tree: Path, image: Path, size_mib: int) -> list[str]:
    """Make a file system with a folder in it, without mounting it."""
    return ["mke2fs", "-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", "-d", str(tree), str(image), f"{size_mib}M"]


def for_firecracker(kernel: Path, archive: Path, folder: Path) -> Path:
    """Make a folder with a kernel and a root file system; its address comes with the kernel's arguments. Blocks."""
    tree, made = folder / "tree", folder / "image"
    made.mkdir()
    _unpack(archive, tree)
    init = tree / "sbin/init"
    init.unlink(missing_ok=True)
    init.write_text(_INIT)
    init.chmod(0o755)
    run(file_system_argv(tree, made / ROOT, ROOT_MIB))
    shutil.copyfile(kernel, made / KERNEL)
    return made


def for_jail(archive: Path, folder: Path) -> Path:
    """Make a root folder for jails. Blocks."""
    tree = folder / "tree"
    _unpack(archive, tree)
    for name, content in _JAIL_FILES.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(content)
    return tree


def _unpack(archive: Path, tree: Path) -> None:
    tree.mkdir()
    try:
        with archive.open("rb") as content:
            trees.unpack(content, tree)
    except trees.Unpackable as error:
        raise image_failed(f"what was fetched is no archive of a root folder: {error}", str(archive)) from error
