"""Paths opened beneath a folder without following any link, so that what is opened is what was named."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from borough.adapters import system_calls
from borough.adapters.system_calls import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS

_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS
_WALK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_OFFERED = (errno.ENOSYS, errno.EPERM)


class LinkOnTheWay(OSError):
    """A symbolic link stands where a folder or file was named."""


@contextmanager
def opened(root: int, relative: str) -> Iterator[int]:
    """Yield a descriptor that only names (``O_PATH``) what ``relative`` is below ``root``, be it a link.

    Raises:
        FileNotFoundError, NotADirectoryError: it is not there.
        LinkOnTheWay: a step before the last is a link.
    """
    descriptor = _named(root, relative or ".")
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def parent(root: int, relative: str, *, make: tuple[int, int] | None = None) -> Iterator[int]:
    """Yield a descriptor of the folder that ``relative`` is in; with ``make``, missing ones are made for that owner."""
    steps = [step for step in relative.split("/")[:-1] if step]
    if make is not None:
        for place in range(len(steps)):
            _make_folder(root, "/".join(steps[: place + 1]), make)
    descriptor = reopened(root, "/".join(steps), os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def reopened(root: int, relative: str, flags: int) -> int:
    """Return a descriptor with ``flags`` of what is there; a link is refused (``LinkOnTheWay``).

    What it is may be looked at by the caller before: a descriptor is got in two steps, so opening a device or a pipe
    has no effect of its own.
    """
    with opened(root, relative) as named:
        return reopen(named, flags)


def reopen(named: int, flags: int) -> int:
    """Turn a descriptor that only names into one with ``flags``."""
    if stat.S_ISLNK(os.fstat(named).st_mode):
        raise LinkOnTheWay(errno.ELOOP, "it is a symbolic link")
    return os.open(f"/proc/self/fd/{named}", flags | os.O_CLOEXEC | os.O_NONBLOCK)


def _make_folder(root: int, relative: str, owner: tuple[int, int]) -> None:
    with parent(root, relative) as above:
        name = relative.rpartition("/")[2]
        with suppress(FileExistsError):  # what counts is that it is there afterwards
            os.mkdir(name, 0o755, dir_fd=above)
            if os.geteuid() == 0:
                os.chown(name, *owner, dir_fd=above, follow_symlinks=False)


def _named(root: int, relative: str) -> int:
    try:
        return system_calls.openat2(root, relative, os.O_PATH | os.O_NOFOLLOW, resolve=_RESOLVE)
    except OSError as failure:
        if failure.errno == errno.ELOOP:
            raise LinkOnTheWay(failure.errno, "a symbolic link is on the way") from failure
        if failure.errno not in _NOT_OFFERED:
            raise
    return walked(root, relative)  # kernels before 5.6, and containers that hide the call


def walked(root: int, relative: str) -> int:
    """As ``openat2`` would, step by step."""
    steps = [step for step in relative.split("/") if step not in ("", ".")]
    if ".." in steps:
        raise LinkOnTheWay(errno.EXDEV, "it leads upwards")
    here = os.open(".", _WALK, dir_fd=root)
    try:
        for step in steps[:-1]:
            here = _step(here, step)
        if steps:
            last = os.open(steps[-1], os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = last
    except BaseException:
        os.close(here)
        raise
    return here


def _step(here: int, name: str) -> int:
    try:
        below = os.open(name, _WALK, dir_fd=here)
    except NotADirectoryError as failure:
        if stat.S_ISLNK(os.lstat(name, dir_fd=here).st_mode):
            raise LinkOnTheWay(errno.ELOOP, "a symbolic link is on the way") from failure
        raise
    os.close(here)
    return below
