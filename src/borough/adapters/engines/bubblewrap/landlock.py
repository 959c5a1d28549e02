"""What Landlock lets an agent do with files, on top of what is mounted at all (landlock(7)).

It is a second lock on the same door: should a mount be there that ought not to be, or be writable, this still holds.
It also keeps an agent from looking into or signalling the box's own first processes, which are not under it.
"""

import struct
from collections.abc import Sequence

from borough.adapters.engines.bubblewrap.argv import CODE_FILE, INSTALLED, NONCE_FILE, SDK_ROOT, SOCKET_FOLDER
from borough.adapters.engines.bubblewrap.view import Bind
from borough.governance.ports.workspaces import WORKSPACE

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_CHAR, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 6, 1 << 7, 1 << 8
_MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = 1 << 9, 1 << 10, 1 << 11, 1 << 12
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_SINCE = ((1, (1 << 13) - 1), (2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV))
_SCOPES_SINCE = 6
_SCOPES = 0b11  # abstract Unix sockets and signals stay within

_READ = _EXECUTE | _READ_FILE | _READ_DIR
_USE = _WRITE_FILE | _READ_FILE | _READ_DIR | _TRUNCATE | _IOCTL_DEV
_CHANGE = (
    _READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SOCK | _MAKE_FIFO | _MAKE_SYM
    | _REFER | _TRUNCATE
)  # fmt: skip
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV

_READABLE = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", SDK_ROOT, INSTALLED, SOCKET_FOLDER)
_SINGLE_FILES = (NONCE_FILE, CODE_FILE)
_CHANGEABLE = (WORKSPACE, "/tmp", "/dev/shm")  # noqa: S108 - the box's own, in memory


def attributes(version: int) -> bytes:
    """Return the ruleset's head: every right on files that this version knows is handled, so denied unless allowed."""
    head = struct.pack("=Q", _handled(version))
    if version >= _SCOPES_SINCE:
        return head + struct.pack("=QQ", 0, _SCOPES)
    return head


def rules(version: int, binds: Sequence[tuple[Bind, bool]]) -> list[tuple[str, int]]:
    """Return what is allowed where; of each of the host's paths it is told whether it is a folder."""
    handled = _handled(version)
    allowed = [
        *((path, _READ) for path in _READABLE),
        *((path, _READ_FILE) for path in _SINGLE_FILES),
        *((path, _CHANGE) for path in _CHANGEABLE),
        ("/proc", _USE),
        ("/dev", _USE),
        ("/", _READ_DIR),  # names at the root; it grants the same beneath, where the mounts decide what there is
    ]
    for bind, is_folder in binds:
        rights = _CHANGE if bind.writable else _READ
        allowed.append((bind.path, rights if is_folder else rights & _FILE_RIGHTS))
    return [(path, rights & handled) for path, rights in allowed]


def _handled(version: int) -> int:
    rights = 0
    for since, more in _SINCE:
        if version >= since:
            rights |= more
    return rights
