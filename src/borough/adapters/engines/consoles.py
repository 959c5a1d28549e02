"""What machines print: a file that is read while it grows, and that never takes more than it may.

Old parts are given back to the file system as holes, so that a place in what was printed stays the same place.
"""

import asyncio
import errno
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from borough.adapters.system_calls import punch_hole

_CHUNK_BYTES = 65_536
_FOLLOWS_EVERY_S = 0.1
_BLOCK_BYTES = 4096


async def follow(console: Path, offset: int, *, goes_on: Callable[[], Awaitable[bool]]) -> AsyncGenerator[bytes, None]:
    """Yield what was printed from ``offset`` on, and what comes as long as it ``goes_on``; dropped parts are passed."""
    while True:
        more = await goes_on()
        while part := await asyncio.to_thread(_read, console, offset):
            offset = part[0] + len(part[1])
            yield part[1]
        if not more:
            return
        await asyncio.sleep(_FOLLOWS_EVERY_S)


def trim(console: Path, keep_bytes: int) -> None:
    """Give back what was printed before the last ``keep_bytes``. Blocks."""
    try:
        file = os.open(console, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        drop = (os.fstat(file).st_size - keep_bytes) // _BLOCK_BYTES * _BLOCK_BYTES
        if drop > 0 and _first_kept(file, 0) < drop:
            try:
                punch_hole(file, 0, drop)
            except OSError as failure:
                if failure.errno != errno.EOPNOTSUPP:
                    raise
                os.ftruncate(file, 0)  # a file system without holes; who prints appends
    finally:
        os.close(file)


def _read(console: Path, offset: int) -> tuple[int, bytes] | None:
    """Return where the next part begins, and the part."""
    try:
        file = os.open(console, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        start = _first_kept(file, offset)
        part = os.pread(file, _CHUNK_BYTES, start)
    finally:
        os.close(file)
    return (start, part) if part else None


def _first_kept(file: int, offset: int) -> int:
    with suppress(OSError):  # nothing after it yet
        return os.lseek(file, offset, os.SEEK_DATA)
    return offset
