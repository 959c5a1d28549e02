"""Mounts whose owners are translated: what belongs to root on disk belongs to a machine's own user in its box.

So a machine's root may write everything of its root folder, is nobody on the host, and leaves disks that fit every
other machine (mount_setattr(2), MOUNT_ATTR_IDMAP; under an overlay since Linux 5.19).
"""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from borough.adapters import system_calls
from borough.adapters.engines.bubblewrap.keeper.mounts import write_setting

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442  # the same on every architecture
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE_CLONE = 1
_ATTR_IDMAP = 0x00100000
_MOVE_FROM_DESCRIPTOR = 0x4
_PR_SET_SECUREBITS = 28
_NO_SETUID_FIXUP = 1 << 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class UserNamespace:
    """A user namespace in which one user of the host is root, and nobody else is anybody.

    It needs a process to begin with, which starts while its maker goes on with other things.
    """

    def __init__(self) -> None:
        self._ready_r, ready_w = os.pipe()
        go_r, self._go_w = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            try:
                os.close(self._go_w)
                system_calls.unshare(system_calls.CLONE_NEWUSER)
                os.write(ready_w, b"1")
                os.read(go_r, 1)
            finally:
                os._exit(0)
        os.close(ready_w)
        os.close(go_r)

    def map(self, uid: int) -> int:
        """Make ``uid`` of the host its root, and return a descriptor of it; to be done once. Raises ``OSError``."""
        if os.read(self._ready_r, 1) != b"1":
            raise OSError("no user namespace can be made")
        for name in ("uid_map", "gid_map"):
            write_setting(f"/proc/{self._child}/{name}", f"0 {uid} 1")
        opened = os.open(f"/proc/{self._child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        os.close(self._go_w)
        self._go_w = -1
        return opened

    def close(self) -> None:
        """Collect its first process, which ends when it is mapped, or now."""
        os.close(self._ready_r)
        if self._go_w >= 0:
            os.close(self._go_w)
        os.waitpid(self._child, 0)


def bind(source: str, target: str, namespace: int) -> None:
    """Show ``source`` at ``target`` with owners translated by a user namespace."""
    tree = _call(_OPEN_TREE, ctypes.c_long(_AT_FDCWD), source.encode(), ctypes.c_long(_OPEN_TREE_CLONE | os.O_CLOEXEC))
    try:
        attributes = struct.pack("=QQQQ", _ATTR_IDMAP, 0, 0, namespace)
        _call(
            _MOUNT_SETATTR, ctypes.c_long(tree), b"", ctypes.c_long(_AT_EMPTY_PATH), attributes,
            ctypes.c_size_t(len(attributes)),
        )  # fmt: skip
        _call(
            _MOVE_MOUNT, ctypes.c_long(tree), b"", ctypes.c_long(_AT_FDCWD), target.encode(),
            ctypes.c_long(_MOVE_FROM_DESCRIPTOR),
        )  # fmt: skip
    finally:
        os.close(tree)


@contextmanager
def files_as(uid: int) -> Iterator[None]:
    """Make files as ``uid`` for a while, with all rights: what is made in a translated mount must be somebody there."""
    if _libc.prctl(_PR_SET_SECUREBITS, ctypes.c_ulong(_NO_SETUID_FIXUP), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "securebits")
    _libc.setfsgid(uid)
    _libc.setfsuid(uid)
    try:
        yield
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(0)
        _libc.prctl(_PR_SET_SECUREBITS, ctypes.c_ulong(0), 0, 0, 0)


def _call(number: int, *words: object) -> int:
    returned = _libc.syscall(ctypes.c_long(number), *words)
    if returned < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), f"system call {number}")
    return int(returned)
