"""Opening a Unix socket so that nobody else can stand in for it, and closing it so that nothing stays behind."""

import contextlib
import errno
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from borough.core.errors import BoroughError, Conflict, Invalid, Unavailable

MOST_PATH_BYTES = 107
"""Of a Unix socket's address on Linux (unix(7))."""
BACKLOG = 512
_FOLDER_MODE = 0o700
OWNERS_ALONE = 0o600
OPEN_TO_ALL = 0o666
"""For a socket that asks for a proof by itself: a daemon of root runs each agent as a user of its own."""
_OTHERS_WRITE = 0o022
_STICKY = 0o1000


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSocket:
    """A listening socket and the file that stands for it."""

    path: Path
    listening: socket.socket
    inode: int

    def close(self) -> None:
        """Close it, and remove the file if it is still this one."""
        self.listening.close()
        with contextlib.suppress(FileNotFoundError):  # somebody removed it, or its whole folder
            if self.path.lstat().st_ino == self.inode:
                self.path.unlink()


def open_socket(path: Path, *, mode: int = OWNERS_ALONE) -> OpenSocket:
    """Listen at ``path``, for those whom ``mode`` lets connect. What a killed daemon left there is replaced.

    Raises:
        Conflict: another daemon answers there (``socket_in_use``), or something else stands there (``socket_taken``).
        Invalid: the path is too long, or its folder is not safe (``invalid_socket``).
        Unavailable: it cannot be opened (``socket_refused``).
    """
    if len(os.fsencode(path)) > MOST_PATH_BYTES:
        raise Invalid(
            f"the socket's path {path} is longer than {MOST_PATH_BYTES} bytes",
            code="invalid_socket",
            resolution="name a shorter one: --socket PATH, or SCARAB_SOCKET",
        )
    _prepare_folder(path.parent)
    _clear(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~mode)  # it must not be open to others for a moment either
    try:
        listening.bind(str(path))
        inode = path.lstat().st_ino
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise _refused(path, error) from None
    finally:
        os.umask(before)
    return OpenSocket(path=path, listening=listening, inode=inode)


def _prepare_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        raise _refused(folder, error) from None
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid not in {os.geteuid(), 0} or (mode & _OTHERS_WRITE and not mode & _STICKY):
        raise Invalid(
            f"{folder} is no place for a socket: others may replace what is in it",
            code="invalid_socket",
            resolution=f"chmod go-w {folder}, or name another socket: --socket PATH",
        )


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens on."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid not in {os.geteuid(), 0}:
        raise Conflict(
            f"{path} is not a socket of yours",
            code="socket_taken",
            resolution="remove it, or name another socket: --socket PATH",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno not in {errno.ECONNREFUSED, errno.ENOENT}:
                raise _refused(path, error) from None
            path.unlink(missing_ok=True)
            return
    raise Conflict(
        f"somebody listens on {path} already",
        code="socket_in_use",
        resolution="stop that daemon, or name another socket: --socket PATH",
    )


def _refused(path: Path, error: OSError) -> BoroughError:
    return Unavailable(
        f"{path} cannot be opened: {error.strerror}",
        code="socket_refused",
        resolution="name another socket: --socket PATH, or SCARAB_SOCKET",
    )
