"""A machine's serial line, over the socket that QEMU holds; what is printed is in the log as ever."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

from borough.adapters.engines.qemu.argv import CONSOLE_SOCKET
from borough.adapters.engines.qemu.qmp import connect

_PART_BYTES = 65_536


async def sit_down(folder: Path, keys: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield what is printed from now on, ``b""`` once the line is open; ``keys`` are typed.

    QEMU lets one caller in at a time. Raises ``Unavailable`` (``engine_failed``) where nobody answers.
    """
    reader, writer = await connect(folder, CONSOLE_SOCKET)
    typing = asyncio.ensure_future(_type(writer, keys))
    try:
        yield b""
        while part := await reader.read(_PART_BYTES):
            yield part
    finally:
        typing.cancel()
        await asyncio.gather(typing, return_exceptions=True)
        writer.close()


async def _type(writer: asyncio.StreamWriter, keys: AsyncIterator[bytes]) -> None:
    async for part in keys:
        writer.write(part)
        await writer.drain()
