"""A database file that only its owner can touch, also in a folder that others may write into.

Beside a database lie files that SQLite trusts as much as the database itself: a log or a journal that somebody else
put there would be played into it. In a folder that others may write into (``/tmp``) all of them are therefore ours
before SQLite looks: its sticky bit then keeps everybody else from replacing them.
"""

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from borough.core.errors import Conflict

SIDE_FILES: Final = ("-wal", "-shm", "-journal")
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class StoreLock:
    """Held by the one process that has a store open, as long as it lives."""

    def __init__(self, path: Path) -> None:
        """Take the lock of the store at ``path``; raises ``Conflict`` (``store_in_use``, ``store_not_private``)."""
        self._path = path
        self._descriptor = private_file(path.with_name(f"{path.name}.lock"))
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise Conflict(
                f"{path} is in use by another process",
                code="store_in_use",
                reason="one process writes a store, so that what it has in memory is true",
                resolution=f"end that process, or use another file (to find it: fuser {path}.lock)",
            ) from None

    def release(self) -> None:
        """Let others have the store."""
        os.close(self._descriptor)


def private_folder(folder: Path) -> Path:
    """Return the real path of ``folder``, made owner-only where it is missing.

    Raises:
        Conflict: somebody else could swap files in it (``store_not_private``).
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    real = folder.resolve(strict=True)
    found = real.stat()
    if found.st_uid not in (os.geteuid(), 0):
        raise _not_private(real, f"it belongs to user {found.st_uid}", f"choose a folder of your own instead of {real}")
    if found.st_mode & _OTHERS_WRITE and not found.st_mode & stat.S_ISVTX:
        raise _not_private(real, "others may replace files in it", f"chmod go-w {real}, or choose another folder")
    return real


def is_shared(folder: Path) -> bool:
    """Tell whether others may put files into ``folder``."""
    return bool(folder.stat().st_mode & _OTHERS_WRITE)


def private_file(path: Path) -> int:
    """Return a descriptor of the file, made owner-only where it is missing; no link is followed.

    Raises:
        Conflict: it is no plain file, is somebody else's, or others may open it (``store_not_private``).
    """
    try:
        return os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _open_existing(path)


def guard_side_files(path: Path) -> None:
    """Make all that SQLite would trust beside ``path`` ours; see the module."""
    for suffix in SIDE_FILES:
        descriptor = private_file(path.with_name(path.name + suffix))
        try:
            if suffix == "-journal" and os.fstat(descriptor).st_size == 0:
                # A journal that begins with a zero byte holds nothing to play back, and stays where it is.
                os.write(descriptor, b"\0")
        finally:
            os.close(descriptor)


def drop_guard(path: Path) -> None:
    """Remove the empty journal that ``guard_side_files`` put beside ``path``."""
    with suppress(FileNotFoundError):  # there is one in shared folders only
        path.with_name(f"{path.name}-journal").unlink()


def _open_existing(path: Path) -> int:
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        way_out = f"see what it is (ls -l {path}), then move it away or choose another file"
        raise _not_private(path, f"it cannot be opened as a plain file: {error.strerror}", way_out) from error
    found = os.fstat(descriptor)
    told = None
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        told = "it is no plain file with one name", f"move {path} away or choose another file"
    elif found.st_uid != os.geteuid():
        told = f"it belongs to user {found.st_uid}", f"choose another file than {path}, in a folder of your own"
    elif found.st_mode & _OTHERS:
        told = f"others may open it (mode {stat.S_IMODE(found.st_mode):04o})", f"chmod 600 {path}"
    if told is not None:
        os.close(descriptor)
        raise _not_private(path, *told)
    return descriptor


def _not_private(path: Path, reason: str, resolution: str) -> Conflict:
    return Conflict(f"{path} is not private", code="store_not_private", reason=reason, resolution=resolution)
