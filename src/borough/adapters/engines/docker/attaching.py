"""Commands in containers: a connection that HTTP hands over, and what comes over it, told apart by stream.

Each part has a head of eight bytes: which stream, and how long (Engine API, "Attach to a container"). A terminal has no
heads.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from borough.adapters.engines.docker.client import EngineApi, failed
from borough.fleet.ports.engines import Chunk, Stream

_HEAD_BYTES = 8
_CHUNK_BYTES = 1 << 16
_STREAMS = {0: Stream.STDOUT, 1: Stream.STDOUT, 2: Stream.STDERR}
_OK = (b"101", b"200")


@asynccontextmanager
async def taken_over(
    api: EngineApi, path: str, body: Mapping[str, object]
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Send a request after which the connection is ours.

    Raises:
        Unavailable: the runtime refuses (``engine_failed``).
    """
    prefix = await api.prefix()
    content = json.dumps(body).encode()
    try:
        reader, writer = await asyncio.open_unix_connection(api.socket_path)
    except OSError as failure:
        raise failed(str(failure)) from failure
    try:
        writer.write(
            f"POST {prefix}{path} HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\n"
            f"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        head = await reader.readuntil(b"\r\n\r\n")
        status = head.split(b" ", 2)[1]
        if status not in _OK:
            raise failed((await reader.read(_CHUNK_BYTES)).decode(errors="replace").strip())
        yield reader, writer
    except (OSError, asyncio.IncompleteReadError) as failure:
        raise failed(str(failure)) from failure
    finally:
        writer.close()


async def parts(reader: asyncio.StreamReader, *, has_heads: bool) -> AsyncIterator[Chunk]:
    """Yield what comes, until the end."""
    while True:
        if not has_heads:
            part = await reader.read(_CHUNK_BYTES)
            if not part:
                return
            yield Chunk(stream=Stream.STDOUT, data=part)
            continue
        head = await reader.read(_HEAD_BYTES)
        if not head:
            return
        head += await reader.readexactly(_HEAD_BYTES - len(head))
        left, stream = int.from_bytes(head[4:], "big"), _STREAMS[head[0]]
        while left:
            part = await reader.read(min(left, _CHUNK_BYTES))
            if not part:
                return
            left -= len(part)
            yield Chunk(stream=stream, data=part)


async def feed(writer: asyncio.StreamWriter, content: AsyncIterator[bytes], *, ends: bool) -> None:
    """Pass standard input on, and its end."""
    try:
        async for part in content:
            writer.write(part)
            await writer.drain()
        if ends:
            writer.write_eof()
    except OSError:
        return  # the command does not read any more, which is its right


class Demultiplexer:
    """Takes the heads out of a log that comes in any pieces."""

    def __init__(self) -> None:
        self._rest = b""
        self._left = 0

    def take(self, content: bytes) -> bytes:
        """Return what of ``content`` was printed."""
        found = []
        self._rest += content
        while self._rest:
            if self._left == 0:
                if len(self._rest) < _HEAD_BYTES:
                    break
                self._left = int.from_bytes(self._rest[4:_HEAD_BYTES], "big")
                self._rest = self._rest[_HEAD_BYTES:]
                continue
            part, self._rest = self._rest[: self._left], self._rest[self._left :]
            self._left -= len(part)
            found.append(part)
        return b"".join(found)
