"""Limits on how much a folder may hold, where the file system keeps them: Btrfs by subvolume, ext4 and XFS by project.

Nothing is switched on that the owner of the file system has not switched on (``btrfs quota enable``, the mount option
``prjquota``), and nothing is believed: a limit is set on a folder made for that, and must stop a writer.
"""

import ctypes
import errno
import fcntl
import hashlib
import os
import struct
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol, Self
from uuid import uuid4

from borough.adapters.storage.layers import remove_tree

_MIB: Final = 1 << 20
_OVER: Final = frozenset({errno.EDQUOT, errno.ENOSPC})
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Quotas(Protocol):
    """Makes folders with a limit. Raises ``OSError`` where the file system does not do it."""

    def make(self, folder: Path, size_bytes: int) -> None:
        """Make a folder that never holds more than ``size_bytes``."""

    def is_limited(self, folder: Path) -> bool:
        """Tell whether a folder was made so."""


class SubvolumeQuotas:
    """Each folder is a subvolume of Btrfs, limited by its qgroup (btrfs-quota(8))."""

    _FIRST_INODE: Final = 256
    """Of every subvolume, and of nothing else (``BTRFS_FIRST_FREE_OBJECTID``)."""
    _SUBVOL_CREATE: Final = 0x5000940E
    _QGROUP_LIMIT: Final = 0x8030942B
    _MAX_REFERENCED: Final = 1

    def make(self, folder: Path, size_bytes: int) -> None:
        """Make a subvolume that refers to at most ``size_bytes``."""
        parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(parent, self._SUBVOL_CREATE, bytearray(struct.pack("q4088s", 0, os.fsencode(folder.name))))
        finally:
            os.close(parent)
        try:
            with _opened(folder) as opened:
                # Group 0 is that of the subvolume which the descriptor is of.
                limit = struct.pack("6Q", 0, self._MAX_REFERENCED, size_bytes, 0, 0, 0)
                fcntl.ioctl(opened.fd, self._QGROUP_LIMIT, limit)
        except OSError:
            remove_tree(folder)
            raise

    def is_limited(self, folder: Path) -> bool:
        """Tell whether a folder is a subvolume: only those that were limited are kept."""
        return folder.stat().st_ino == self._FIRST_INODE


class ProjectQuotas:
    """Each folder has a project of its own, which all that is made below it inherits (``fsxattr``, quotactl(2))."""

    _GET_XATTR: Final = 0x801C581F
    _SET_XATTR: Final = 0x401C5820
    _INHERIT: Final = 0x200
    _QUOTACTL_FD: Final = 443  # the same on every architecture
    _PROJECTS: Final = 2
    _GET_QUOTA: Final = 0x800007
    _SET_QUOTA: Final = 0x800008
    _BLOCK_LIMITS: Final = 1
    _BLOCK_BYTES: Final = 1024
    _DQBLK: Final = struct.Struct("8QI4x")
    _XATTR: Final = struct.Struct("5I8x")
    _TRIES: Final = 16

    def make(self, folder: Path, size_bytes: int) -> None:
        """Make a folder of a project that has at most ``size_bytes``."""
        folder.mkdir(mode=0o755)
        try:
            with _opened(folder) as opened:
                project = self._free_project(opened.fd, folder.name)
                blocks = max(1, size_bytes // self._BLOCK_BYTES)
                told = self._DQBLK.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, self._BLOCK_LIMITS)
                self._quotactl(opened.fd, self._SET_QUOTA, project, told)
                flags, extent, extents, _, cow = self._xattr(opened.fd)
                new = self._XATTR.pack(flags | self._INHERIT, extent, extents, project, cow)
                fcntl.ioctl(opened.fd, self._SET_XATTR, new)
        except OSError:
            remove_tree(folder)
            raise

    def is_limited(self, folder: Path) -> bool:
        """Tell whether a folder hands a project on."""
        try:
            with _opened(folder) as opened:
                flags, _, _, project, _ = self._xattr(opened.fd)
        except OSError:
            return False
        return bool(flags & self._INHERIT) and project != 0

    def _xattr(self, fd: int) -> tuple[int, int, int, int, int]:
        found = bytearray(self._XATTR.size)
        fcntl.ioctl(fd, self._GET_XATTR, found)
        flags, extent, extents, project, cow = self._XATTR.unpack(bytes(found))
        return flags, extent, extents, project, cow

    def _free_project(self, fd: int, name: str) -> int:
        """Return a project that has nothing: it follows from the name, and from chance where others have it."""
        for number in range(self._TRIES):
            digest = hashlib.sha256(f"{name}:{number}".encode()).digest()
            project = int.from_bytes(digest[:4], "big") >> 1 | 1 << 20
            _, _, space, _, _, inodes, _, _, _ = self._DQBLK.unpack(self._quotactl(fd, self._GET_QUOTA, project, b""))
            if not space and not inodes:
                return project
        raise OSError(errno.EAGAIN, "no project is free")

    def _quotactl(self, fd: int, command: int, project: int, told: bytes) -> bytes:
        data = ctypes.create_string_buffer(told, self._DQBLK.size)
        both = ctypes.c_uint(command << 8 | self._PROJECTS)
        failed = _libc.syscall(self._QUOTACTL_FD, fd, both, ctypes.c_uint(project), data)
        if failed:
            number = ctypes.get_errno()
            if command == self._GET_QUOTA and number == errno.ESRCH:  # nobody asked for this project yet
                return bytes(self._DQBLK.size)
            raise OSError(number, os.strerror(number))
        return data.raw


def find_quotas(runtime: Path) -> Quotas | str:
    """Return what limits folders below ``runtime``, or why nothing does."""
    if os.geteuid() != 0:
        return "setting limits takes root"
    why = ""
    for kind in (SubvolumeQuotas(), ProjectQuotas()):
        try:
            if _stops_a_writer(kind, runtime):
                return kind
            why = "a limit was taken, and stopped nobody"
        except OSError as failure:
            why = why or f"the file system keeps none ({failure.strerror})"
    return why


def _stops_a_writer(quotas: Quotas, runtime: Path) -> bool:
    folder = runtime / f".quota-{uuid4().hex}"
    try:
        quotas.make(folder, _MIB)
        return _is_stopped(folder / "file")
    finally:
        remove_tree(folder)


def _is_stopped(file: Path) -> bool:
    """Tell whether two limits' worth of bytes are too much, for a writer who may not pass limits by."""
    stopped: list[bool] = []

    def write() -> None:
        with suppress(OSError):  # in a container: there this right is not had anyway
            _give_up_passing_limits()
        try:
            with file.open("wb", buffering=0) as opened:
                for _ in range(32):
                    opened.write(os.urandom(_MIB // 16))
                    os.fsync(opened.fileno())
        except OSError as refusal:
            stopped.append(refusal.errno in _OVER)

    # Rights belong to a thread: this one ends with the writing.
    writer = threading.Thread(target=write, name="quota probe")
    writer.start()
    writer.join()
    return stopped == [True]


def _give_up_passing_limits() -> None:
    """Give up ``CAP_SYS_RESOURCE``, which quotas of projects let pass (capabilities(7)), in this thread."""
    header = struct.pack("Ii", 0x20080522, 0)
    data = ctypes.create_string_buffer(24)
    if _libc.capget(ctypes.c_char_p(header), data):
        raise OSError(ctypes.get_errno(), "capget")
    words = list(struct.unpack("6I", data.raw))
    words[0] &= ~(1 << 24)
    if _libc.capset(ctypes.c_char_p(header), ctypes.c_char_p(struct.pack("6I", *words))):
        raise OSError(ctypes.get_errno(), "capset")


class _opened:  # noqa: N801 - it reads as a word
    """A folder's descriptor, for as long as a block."""

    def __init__(self, folder: Path) -> None:
        self.fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
