"""A host's terminals, over WebSockets: what is typed goes there, what is printed comes from there."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

import aiohttp
import msgspec

from borough.adapters.host import wire
from borough.fleet.ports.engines import Chunk, ExecOrder, Stream

MOST_MESSAGE_BYTES: Final = 1_048_576
_PART_BYTES: Final = 65_536
HEARTBEAT_S: Final = 20.0


async def executed(
    socket: aiohttp.ClientWebSocketResponse, order: ExecOrder, stdin: AsyncIterator[bytes]
) -> AsyncGenerator[Chunk, None]:
    """Yield what the command prints, and its end.

    Raises:
        BoroughError: the host tells that it went wrong.
    """
    await socket.send_str(msgspec.json.encode(wire.exec_body(order, b"")).decode())
    tasks = [asyncio.ensure_future(_type(socket, stdin))]
    if order.sizes is not None:
        tasks.append(asyncio.ensure_future(_resize(socket, order.sizes)))
    try:
        async with aclosing(_heard(socket)) as messages:
            async for message in messages:
                if isinstance(message, bytes):
                    yield Chunk(stream=Stream.STDOUT, data=message)
                    continue
                chunk = wire.chunk_of(msgspec.json.decode(message, type=wire.SaidChunk))
                yield chunk
                if chunk.exit_code is not None:
                    return
    finally:
        await _end(tasks)


async def console(socket: aiohttp.ClientWebSocketResponse, keys: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield what the machine prints, ``b""`` first; raises as ``executed``."""
    yield b""
    tasks = [asyncio.ensure_future(_type(socket, keys))]
    try:
        async with aclosing(_heard(socket)) as messages:
            async for message in messages:
                if isinstance(message, bytes):
                    yield message
                else:
                    wire.chunk_of(msgspec.json.decode(message, type=wire.SaidChunk))
    finally:
        await _end(tasks)


async def _heard(socket: aiohttp.ClientWebSocketResponse) -> AsyncGenerator[bytes | str, None]:
    async for message in socket:
        if message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
            yield message.data


async def _type(socket: aiohttp.ClientWebSocketResponse, keys: AsyncIterator[bytes]) -> None:
    async for part in keys:
        for start in range(0, len(part), _PART_BYTES):
            await socket.send_bytes(part[start : start + _PART_BYTES])


async def _resize(socket: aiohttp.ClientWebSocketResponse, sizes: AsyncIterator[tuple[int, int]]) -> None:
    async for rows, columns in sizes:
        await socket.send_json({"rows": rows, "cols": columns})


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
