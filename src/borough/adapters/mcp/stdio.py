"""An MCP server as a process of ours: started here, spoken to through its pipes, and ended with all that it started."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Self

import anyio
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

from borough.adapters import process, procfs
from borough.adapters.process import Child, Marker

LONGEST_MESSAGE_BYTES = 4 * 1_048_576
ENDS_BY_ITSELF_WITHIN_S = 2.0
TERM_GRACE_S = 2.0
MOST_NOISE = 100
"""Lines that are no messages; some servers write a few to the wrong place."""
_KEPT_VARIABLES = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR")

Launch = Callable[[Sequence[str], Mapping[str, str]], Child]
"""Starts a server with pipes for its standard input and output."""


def launch(argv: Sequence[str], env: Mapping[str, str]) -> Child:
    """Start a server on this machine, with the daemon's user and none of its secrets.

    Raises:
        Unavailable: there is no such program, or it cannot be started.
    """
    return process.start(argv, env=env, stdin=process.PIPE, stdout=process.PIPE, stderr=process.NOTHING)


def server_environment(given: Mapping[str, str], marker: Marker) -> dict[str, str]:
    """Return what a server finds in its environment: what every program needs, what it was given, who owns it."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {**kept, **given, marker.name: marker.value}


@asynccontextmanager
async def stdio_streams(
    argv: Sequence[str], env: Mapping[str, str], marker: Marker, start: Launch = launch
) -> AsyncIterator[tuple["Incoming", "Outgoing"]]:
    """Start a server and yield what it says and what it hears; afterwards nothing of it is left."""
    child = start(argv, server_environment(env, marker))
    try:
        reader, said, writer = await _pipes(child)
        try:
            yield Incoming(reader), Outgoing(writer)
        finally:
            writer.close()
            said.close()
    finally:
        # Whoever gives up waiting must not leave it behind.
        await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(_end, child, marker)))


async def _pipes(child: Child) -> tuple[asyncio.StreamReader, asyncio.BaseTransport, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LONGEST_MESSAGE_BYTES)
    said, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), child.popen.stdout)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, child.popen.stdin)
    return reader, said, asyncio.StreamWriter(transport, protocol, None, loop)


def _end(child: Child, marker: Marker) -> None:
    """Its input has ended, which asks it to end; then TERM, then KILL, for it and all that it started."""
    procfs.wait_gone([child.ref], within_s=ENDS_BY_ITSELF_WITHIN_S)
    process.reap(marker, grace_s=TERM_GRACE_S)
    child.wait()


class Incoming:
    """What a server says, one message a line, as the SDK's sessions read it."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._noise = 0
        self.ended = asyncio.Event()

    async def receive(self) -> SessionMessage | Exception:
        """Return the next message, or what is wrong with it; raises ``anyio.EndOfStream``."""
        try:
            line = await self._reader.readline()
        except ValueError:
            line = b""  # longer than any message may be: there is no telling where the next one begins
        if not line or self._noise > MOST_NOISE:
            self.ended.set()
            raise anyio.EndOfStream
        try:
            return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
        except ValueError as error:
            self._noise += 1
            return error

    async def aclose(self) -> None:
        """Hold nothing: the pipe is closed with the server."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class Outgoing:
    """What a server hears."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def send(self, item: SessionMessage, /) -> None:
        """Send a message; raises ``anyio.BrokenResourceError`` when nobody hears it."""
        if self._writer.is_closing():
            raise anyio.BrokenResourceError
        try:
            self._writer.write(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            await self._writer.drain()
        except OSError:
            raise anyio.BrokenResourceError from None

    async def aclose(self) -> None:
        """Tell the server that nothing more will come."""
        self._writer.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
