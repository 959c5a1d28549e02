"""Who sits between a controller and a host, or in the place of a host, and writes down what is said to it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from borough.adapters.host.certificate import host_certificate


@dataclass(slots=True)
class Listener:
    """What it heard, after TLS where it speaks TLS."""

    addr: str = ""
    heard: bytearray = field(default_factory=bytearray)
    connections: int = 0


@asynccontextmanager
async def man_in_the_middle(
    folder: Path | None, *, port: int = 0, beyond: str | None = None
) -> AsyncIterator[Listener]:
    """Listen on ``port`` with a certificate of its own (``folder`` ``None``: plain), and pass on to ``beyond``.

    Without ``beyond`` it refuses the first request, and ends the connection.
    """
    made = Listener()
    tls = None if folder is None else host_certificate(folder).context

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.connections += 1
        try:
            await _converse(made, reader, writer, beyond)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=tls)
    made.addr = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield made


async def _converse(
    made: Listener, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, beyond: str | None
) -> None:
    if beyond is None:
        made.heard += await reader.read(65_536)
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        return
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    host, _, port = beyond.rpartition(":")
    inner_reader, inner_writer = await asyncio.open_connection(host, int(port), ssl=trusting)

    async def there() -> None:
        while part := await reader.read(65_536):
            made.heard += part
            inner_writer.write(part)

    async def back() -> None:
        while part := await inner_reader.read(65_536):
            writer.write(part)

    tasks = [asyncio.create_task(there()), asyncio.create_task(back())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        with suppress(ConnectionError):
            await asyncio.gather(*tasks, return_exceptions=True)
        inner_writer.close()
