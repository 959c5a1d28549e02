"""Copies of files: blocks are shared where the file system can (``FICLONE``), holes stay holes where it cannot."""

import errno
import fcntl
import os
from pathlib import Path

_FICLONE = 0x40049409
"""ioctl_ficlonerange(2)."""
_UNSHARED = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.ENOSYS, errno.EPERM)


def copy(source: Path, target: Path) -> bool:
    """Make ``target`` a copy of ``source``; tell whether they share blocks. Raises ``OSError``, ``ENOSPC`` too."""
    with source.open("rb") as reader, target.open("xb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        except OSError as failure:
            if failure.errno not in _UNSHARED:
                raise
            _copy_data(reader.fileno(), writer.fileno())
            return False
        return True


def _copy_data(source: int, target: int) -> None:
    size = os.fstat(source).st_size
    os.truncate(target, size)
    place = 0
    while place < size:
        try:
            begin = os.lseek(source, place, os.SEEK_DATA)
        except OSError as failure:
            if failure.errno == errno.ENXIO:
                return  # nothing but a hole is left
            raise
        place = os.lseek(source, begin, os.SEEK_HOLE)
        os.lseek(target, begin, os.SEEK_SET)
        while begin < place:
            begin += os.sendfile(target, source, begin, place - begin)
