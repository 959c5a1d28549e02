"""The process at the other end of a socket, as the kernel vouches for it."""

import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from borough.adapters.procfs import ProcessRef, identify

_CREDENTIALS = struct.Struct("3i")
_MOST_STEPS = 4096
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who connected (unix(7), ``SO_PEERCRED``)."""

    pid: int
    """0 when it is in a process namespace that cannot be seen from here."""
    uid: int


def peer_of(connection: socket.socket) -> Peer:
    """Return who is at the other end of ``connection``."""
    pid, uid, _gid = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return Peer(pid=pid, uid=uid)


def belongs_to(pid: int, root: ProcessRef) -> bool:
    """Tell whether process ``pid`` is ``root`` or descends from it.

    Parents are followed upwards. What was orphaned inside a process namespace of its own has that namespace's first
    process as its parent, which descends from ``root``; where ``root`` itself has another namespace than this
    process, being in that same one is proof as well.
    """
    if pid <= 0 or identify(root.pid) != root:
        return False
    if _is_below(pid, root.pid):
        return True
    own, its = _namespace(os.getpid()), _namespace(root.pid)
    return its is not None and its != own and _namespace(pid) == its


def _is_below(pid: int, root: int) -> bool:
    for _ in range(_MOST_STEPS):
        if pid == root:
            return True
        if pid <= 1:
            return False
        pid = _parent(pid)
    return False


def _parent(pid: int) -> int:
    try:
        text = (_PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # The name in parentheses may hold blanks and parentheses itself; state and parent follow the last one (proc(5)).
    return int(text[text.rindex(b")") + 2 :].split()[1])


def _namespace(pid: int) -> str | None:
    try:
        return str((_PROC / str(pid) / "ns" / "pid").readlink())
    except OSError:
        return None
