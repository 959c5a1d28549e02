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

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442  # the same on every architecture
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE_CLONE = 1
_ATTR_IDMAP = 0x00100000
_MOVE_FROM_DESCRIPTOR = 0x4
_PR_SET_SECUREBITS = 28
_NO_SETUID_FIXUP = 1 << 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def user_namespace(uid: int) -> int:
    """Return a descriptor of a user namespace in which ``uid`` of the host is root, and nobody else is anybody."""
    ready_r, ready_w = os.pipe()
    go_r, go_w = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(go_w)
            system_calls.unshare(system_calls.CLONE_NEWUSER)
            os.write(ready_w, b"1")
            os.read(go_r, 1)
        finally:
            os._exit(0)
    os.close(ready_w)
    os.close(go_r)
    try:
        if os.read(ready_r, 1) != b"1":
            raise OSError("no user namespace can be made")
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{child}/{name}", "w", encoding="ascii") as table:  # noqa: PTH123 - start-up time
                table.write(f"0 {uid} 1")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_r)
        os.close(go_w)
        os.waitpid(child, 0)


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
