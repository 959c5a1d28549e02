"""What the store itself can do: a call of ours is overheard once, then sent again as it was, over the same socket."""

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import cast

from libvalkey import Reader, ReplyError, pack_command

from bench.http_load import Run

Command = tuple[bytes, ...]
UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_ESCAPED = re.compile(rb"\\(x[0-9a-f]{2}|.)")
_PLAIN = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}


class StoreConnection(asyncio.Protocol):
    """A connection to the store, for commands one after the other or many at once."""

    def __init__(self) -> None:
        self._reader = Reader()
        self._replies: asyncio.Queue[object] = asyncio.Queue()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, socket: Path) -> "StoreConnection":
        _, connection = await asyncio.get_running_loop().create_unix_connection(cls, str(socket))
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._replies.put_nowait(reply)

    def send(self, *commands: Command) -> None:
        assert self._transport is not None
        self._transport.write(b"".join(pack_command(command) for command in commands))

    async def reply(self) -> object:
        reply = await self._replies.get()
        if isinstance(reply, ReplyError):
            raise RuntimeError(  # noqa: TRY004 - the reply is an error of the store, not of a type
                f"the store refused the repeated call: {reply}"
            )
        return reply

    async def call(self, *commands: Command) -> None:
        """Send commands at once and wait for all replies."""
        self.send(*commands)
        for _ in commands:
            await self.reply()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def overhear(socket: Path, act: Callable[[], Awaitable[object]], *, text: bytes) -> Command:
    """Return the function call that holds ``text`` among those that the store gets while ``act`` runs (MONITOR)."""
    ear = await StoreConnection.open(socket)
    await ear.call((b"MONITOR",))
    await act()
    try:
        async with asyncio.timeout(5):
            while True:
                line = await ear.reply()
                assert isinstance(line, bytes)
                if b'"fcall"' in line.lower() and text in line and b" lua]" not in line:
                    return parsed(line)
    finally:
        ear.close()


def parsed(line: bytes) -> Command:
    """Return the arguments of a line of MONITOR."""
    quoted = re.findall(rb'"((?:[^"\\]|\\.)*)"', line.partition(b"] ")[2])
    return tuple(_ESCAPED.sub(_unescaped, argument) for argument in quoted)


def _unescaped(found: re.Match[bytes]) -> bytes:
    what = found[1]
    if what.startswith(b"x") and len(what) > 1:
        return bytes([int(what[1:], 16)])
    return _PLAIN.get(what, what)


def again(command: Command, task_id: str) -> Command:
    """Return the call for another task: the first id in it that is not the supervisor's becomes ``task_id``."""
    ids = [found for argument in command for found in UUID.findall(argument) if not found.startswith(b"00000000-")]
    old, new = ids[0], task_id.encode()
    return tuple(argument.replace(old, new) for argument in command)


async def drive_store(socket: Path, command: Command, *, connections: int, count: int) -> Run:
    """Send ``command`` for ``count`` new tasks over ``connections``, one at a time on each."""
    run = Run()
    calls = iter([again(command, str(uuid.uuid4())) for _ in range(count)])
    opened = [await StoreConnection.open(socket) for _ in range(connections)]

    async def work(connection: StoreConnection) -> None:
        for call in calls:
            began = time.perf_counter()
            await connection.call(call)
            run.latencies_s.append(time.perf_counter() - began)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for connection in opened:
            group.create_task(work(connection))
    run.seconds = time.perf_counter() - began
    for connection in opened:
        connection.close()
    return run


async def fill(socket: Path, commands: Sequence[Command], *, count: int, batch: int = 200) -> None:
    """Send ``commands``, in their order, for each of ``count`` new tasks, many at a time."""
    connection = await StoreConnection.open(socket)
    for start in range(0, count, batch):
        ids = [str(uuid.uuid4()) for _ in range(min(batch, count - start))]
        for command in commands:
            await connection.call(*(again(command, task_id) for task_id in ids))
    connection.close()


async def until_quiet(socket: Path) -> None:
    """Wait until the store no longer rewrites its log in the background."""
    connection = await StoreConnection.open(socket)
    async with asyncio.timeout(120):
        while True:
            connection.send((b"INFO", b"persistence"))
            told = await connection.reply()
            if isinstance(told, bytes) and b"aof_rewrite_in_progress:0" in told:
                break
            await asyncio.sleep(0.1)
    connection.close()
