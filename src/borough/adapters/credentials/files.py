"""Private files in a folder: no link is followed, the owner is checked, a file is there whole or not at all."""

import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from borough.core.errors import Invalid

PRIVATE = 0o600
_OTHERS = 0o077
_OTHERS_WRITE = 0o022
_LONGEST_FILE_BYTES = 65_536


def private_content(path: Path, make: Callable[[], bytes]) -> bytes:
    """Return what ``path`` holds; where it is not there, create it with what ``make`` returns.

    Two programs that do so at once get the same content.

    Raises:
        Invalid: the file or its folder is not safe (``unsafe_file``).
    """
    with _folder(path) as folder:
        found = _read(folder, path, others=_OTHERS)
        if found is None:
            with contextlib.suppress(FileExistsError):
                _create(folder, path.name, make())
            found = _read(folder, path, others=_OTHERS)
    if found is None:
        raise _unsafe(path, "it vanished while it was read", "start again")
    return found


def read_private(path: Path) -> bytes | None:
    """Return what ``path`` holds, or ``None`` where it or its folder is not there.

    Raises:
        Invalid: it is a link, another user's, or others may read it (``unsafe_file``).
    """
    return _read_if_there(path, others=_OTHERS)


def read_public(path: Path) -> bytes | None:
    """As ``read_private``, for files that others may read but not write."""
    return _read_if_there(path, others=_OTHERS_WRITE)


def replace_file(path: Path, content: bytes, *, mode: int) -> None:
    """Put ``content`` at ``path`` in one step; a link that stands there is replaced, not followed.

    Raises:
        Invalid: the folder is not safe (``unsafe_file``).
    """
    with _folder(path) as folder:
        temporary = _temporary(folder, path.name, content, mode=mode)
        try:
            os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as error:
            os.unlink(temporary, dir_fd=folder)
            raise _unsafe(path, str(error.strerror), f"look at it: ls -ld {path}") from None
        os.fsync(folder)


def remove_file(path: Path, *, holding: Callable[[bytes], bool]) -> bool:
    """Remove ``path`` if what it holds is ours, as ``holding`` tells; return whether it was removed."""
    found = read_public(path)
    if found is None or not holding(found):
        return False
    path.unlink(missing_ok=True)
    return True


def _read_if_there(path: Path, *, others: int) -> bytes | None:
    if not path.parent.exists():
        return None
    with _folder(path) as folder:
        return _read(folder, path, others=others)


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    """Open the folder of ``path`` once, so that nobody can swap it between two steps."""
    folder = path.parent
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _unsafe(folder, f"it cannot be opened as a folder: {error.strerror}", f"ls -ld {folder}") from None
    try:
        found = os.fstat(descriptor)
        if found.st_uid not in {os.geteuid(), 0}:
            raise _unsafe(folder, "it belongs to another user", "run as the user who owns the town")
        if stat.S_IMODE(found.st_mode) & _OTHERS_WRITE:
            raise _unsafe(folder, "others may write to it", f"chmod go-w {folder}")
        yield descriptor
    finally:
        os.close(descriptor)


def _read(folder: int, path: Path, *, others: int) -> bytes | None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path.name, flags, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unsafe(path, f"it is a link or cannot be read: {error.strerror}", f"ls -l {path}") from None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise _unsafe(path, "it is not an ordinary file", f"ls -l {path}")
        if found.st_uid not in {os.geteuid(), 0}:
            raise _unsafe(path, "it belongs to another user", "remove it; a new one is made")
        if stat.S_IMODE(found.st_mode) & others:
            raise _unsafe(path, "others may read or change it", f"remove it, so that a new one is made: rm {path}")
        return file.read(_LONGEST_FILE_BYTES)


def _create(folder: int, name: str, content: bytes) -> None:
    """Make ``name`` appear with its whole content, or raise ``FileExistsError``: link(2) never replaces."""
    temporary = _temporary(folder, name, content, mode=PRIVATE)
    try:
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        os.fsync(folder)
    finally:
        os.unlink(temporary, dir_fd=folder)


def _temporary(folder: int, name: str, content: bytes, *, mode: int) -> str:
    temporary = f".{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, PRIVATE, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def _unsafe(path: Path, reason: str, resolution: str) -> Invalid:
    return Invalid(f"{path} is not safe to use: {reason}", code="unsafe_file", reason=reason, resolution=resolution)
