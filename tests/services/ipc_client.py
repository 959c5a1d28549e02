"""A client of the sockets that knows nothing of the code under test but the bytes."""

import asyncio
import json
import struct
from pathlib import Path
from typing import Any, Self


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, path: Path) -> Self:
        return cls(*await asyncio.open_unix_connection(str(path)))

    async def send(self, message: Any) -> None:
        await self.raw(json.dumps(message).encode())

    async def raw(self, body: bytes) -> None:
        self.writer.write(struct.pack(">I", len(body)) + body)
        await self.writer.drain()

    async def receive(self, *, within_s: float = 10) -> Any:
        """Return the next message; ``None`` at the end of the connection."""
        async with asyncio.timeout(within_s):
            try:
                (length,) = struct.unpack(">I", await self.reader.readexactly(4))
            except asyncio.IncompleteReadError as end:
                return None if not end.partial else f"cut short: {end.partial!r}"
            except ConnectionError:
                return None
            return json.loads(await self.reader.readexactly(length))

    async def ask(self, message: Any) -> Any:
        await self.send(message)
        return await self.receive()

    async def close(self) -> None:
        self.writer.close()
        await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)
