"""Files and folders as streams of chunks, read in threads."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from borough.adapters.storage import trees

_CHUNK_BYTES = 1 << 18


async def plain_chunks(path: Path, *, offset: int = 0) -> AsyncIterator[bytes]:
    """Yield a file."""
    with path.open("rb") as file:
        file.seek(offset)
        while part := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            yield part


async def packed_chunks(root: Path) -> AsyncIterator[bytes]:
    """Yield the archive of a folder, while it is being made."""
    read, write = os.pipe()
    making = asyncio.get_running_loop().run_in_executor(None, _make, root, write)
    try:
        with os.fdopen(read, "rb", buffering=0) as archive:
            while part := await asyncio.to_thread(archive.read, _CHUNK_BYTES):
                yield part
    except BaseException:
        with suppress(OSError):  # nobody reads any more, so it cannot write any more
            await making
        raise
    await making


def _make(root: Path, write: int) -> None:
    with os.fdopen(write, "wb") as writer:
        trees.pack(root, writer)
