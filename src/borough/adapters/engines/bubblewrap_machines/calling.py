"""The daemon's side of a warden: one connection for each order."""

import asyncio
import fcntl
import json
import os
import socket
import struct
import termios
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from borough.adapters.engines.bubblewrap_machines.door import LARGEST_ORDER_BYTES
from borough.adapters.engines.bubblewrap_machines.inside import NOT_FOUND
from borough.adapters.engines.bubblewrap_machines.warden import SOCKET
from borough.core.errors import Conflict, NotFound, Unavailable
from borough.fleet.ports.engines import Chunk, Stream

_CHUNK_BYTES = 1 << 16
_QUEUE = 64
_HANDED_WITHIN_S = 5.0
_SIGNALLED = 128


class Call:
    """One order to a warden, and what it says to that."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    async def hear(self) -> tuple[Mapping[str, Any], list[int]]:
        """Return the next answer with its descriptors.

        Raises:
            Unavailable: the machine has ended (``engine_failed``).
            OSError: the order could not be done.
        """
        loop = asyncio.get_running_loop()
        heard: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._connection, _ring, heard)
        try:
            await heard
        finally:
            loop.remove_reader(self._connection)
        try:
            content, descriptors, _, _ = socket.recv_fds(
                self._connection, LARGEST_ORDER_BYTES, 1, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            content, descriptors = b"", []
        if not content:
            raise ended()
        told: Mapping[str, Any] = json.loads(content)
        if "error" in told:
            raise OSError(told.get("number") or 0, told["error"])
        return told, descriptors


@asynccontextmanager
async def ordered(folder: Path, order: Mapping[str, object], descriptors: Sequence[int] = ()) -> AsyncIterator[Call]:
    """Give a warden an order; leaving the context ends what was started by it.

    Raises:
        Unavailable: the machine has ended (``engine_failed``).
        Conflict: the order is too long (``too_large``).
    """
    content = json.dumps(order).encode()
    if len(content) > LARGEST_ORDER_BYTES:
        raise Conflict(
            "the command line and environment are too long",
            code="too_large",
            resolution="write them into a file of the machine, and run that",
        )
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{directory}/{SOCKET}")
        finally:
            os.close(directory)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * LARGEST_ORDER_BYTES)
        socket.send_fds(connection, [content], list(descriptors))
        connection.setblocking(False)
        yield Call(connection)
    except (FileNotFoundError, ConnectionError) as failure:
        raise ended() from failure
    finally:
        connection.close()


async def run(
    folder: Path,
    order: Mapping[str, object],
    stdin: AsyncIterator[bytes],
    *,
    sizes: AsyncIterator[tuple[int, int]] | None = None,
) -> AsyncGenerator[Chunk, None]:
    """Run something in a machine: its output as it comes, and at last its exit status. ``sizes`` are the terminal's."""
    has_terminal = order.get("terminal") is not None
    pipes = _Pipes(has_terminal=has_terminal)
    feeding: list[asyncio.Task[None]] = []
    try:
        async with ordered(folder, order, pipes.theirs) as call:
            await pipes.begin()
            loop = asyncio.get_running_loop()
            feeding.append(loop.create_task(pipes.feed(stdin)))
            if has_terminal and sizes is not None:
                feeding.append(loop.create_task(pipes.resize(sizes)))
            ending = loop.create_task(_end_of(call))
            # What the command left running may hold its output open for ever: its own end is the end.
            ending.add_done_callback(lambda _: pipes.drain())
            try:
                async for chunk in pipes.output():
                    yield chunk
                status = await ending
            finally:
                ending.cancel()
                await asyncio.gather(ending, return_exceptions=True)
            yield Chunk(stream=Stream.EXIT, exit_code=_exit_code(status))
    finally:
        for task in feeding:
            task.cancel()
        await asyncio.gather(*feeding, return_exceptions=True)
        pipes.close()


class _Pipes:
    """Standard input, output and errors of a command, without a thread."""

    def __init__(self, *, has_terminal: bool) -> None:
        self._queue: asyncio.Queue[Chunk | None] = asyncio.Queue()
        self._paused = False
        self._reading: dict[int, Stream] = {}
        self._write = -1
        self._handing: socket.socket | None = None
        """Over which a terminal of the machine's own comes."""
        self.theirs: list[int] = []
        if has_terminal:
            self._handing, theirs = socket.socketpair()
            self.theirs = [theirs.detach(), os.open(os.devnull, os.O_WRONLY), os.open(os.devnull, os.O_WRONLY)]
            return
        stdin, self._write = os.pipe()
        self.theirs.append(stdin)
        for stream in (Stream.STDOUT, Stream.STDERR):
            read, write = os.pipe()
            self._reading[read] = stream
            self.theirs.append(write)

    async def begin(self) -> None:
        """Read on; the command's ends are its own now."""
        for descriptor in self.theirs:
            os.close(descriptor)
        self.theirs = []
        if self._handing is not None:
            ours = await asyncio.to_thread(_handed, self._handing)
            self._reading[ours] = Stream.STDOUT
            self._write = os.dup(ours)
        loop = asyncio.get_running_loop()
        for descriptor in (*self._reading, self._write):
            os.set_blocking(descriptor, False)
        for descriptor in self._reading:
            loop.add_reader(descriptor, self._read, descriptor)

    async def output(self) -> AsyncIterator[Chunk]:
        """Yield what comes, until every end is closed."""
        loop = asyncio.get_running_loop()
        open_ones = len(self._reading)
        while open_ones:
            chunk = await self._queue.get()
            if chunk is None:
                open_ones -= 1
            else:
                yield chunk
            if self._paused and self._queue.qsize() < _QUEUE:
                self._paused = False
                for descriptor in self._reading:
                    loop.add_reader(descriptor, self._read, descriptor)

    async def feed(self, content: AsyncIterator[bytes]) -> None:
        """Pass standard input on, and its end."""
        with suppress(OSError):  # the command does not read any more, which is its right
            async for part in content:
                view = memoryview(part)
                while view:
                    try:
                        view = view[os.write(self._write, view) :]
                    except BlockingIOError:
                        await self._writable()
            if self._handing is not None:
                return  # a terminal has no end of its own; whoever sits at it sends one
        self._close_input()

    async def resize(self, sizes: AsyncIterator[tuple[int, int]]) -> None:
        """Give the terminal the sizes that come; the kernel tells whoever is in its foreground."""
        async for rows, columns in sizes:
            fcntl.ioctl(self._write, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self) -> None:
        """Close what is open."""
        loop = asyncio.get_running_loop()
        self._close_input()
        for descriptor in [*self._reading]:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        for descriptor in self.theirs:
            os.close(descriptor)
        self._reading, self.theirs = {}, []
        if self._handing is not None:
            self._handing.close()

    def _read(self, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            part = os.read(descriptor, _CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            part = b""  # a terminal whose other end is closed says EIO
        if part:
            self._queue.put_nowait(Chunk(stream=self._reading[descriptor], data=part))
            if self._queue.qsize() >= _QUEUE:
                self._paused = True
                for each in self._reading:  # until somebody takes what there is
                    loop.remove_reader(each)
            return
        self._end(descriptor)

    def drain(self) -> None:
        """Take what is there and nothing more: the command has ended."""
        for descriptor, stream in [*self._reading.items()]:
            with suppress(OSError):  # nothing more is there, or a terminal's other end is closed
                while part := os.read(descriptor, _CHUNK_BYTES):
                    self._queue.put_nowait(Chunk(stream=stream, data=part))
            self._end(descriptor)

    def _end(self, descriptor: int) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        del self._reading[descriptor]
        self._queue.put_nowait(None)

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_writer(self._write, _ring, ready)
        try:
            await ready
        finally:
            loop.remove_writer(self._write)

    def _close_input(self) -> None:
        if self._write >= 0:
            with suppress(OSError):  # it was never waited for
                asyncio.get_running_loop().remove_writer(self._write)
            os.close(self._write)
            self._write = -1


def _ring(bell: "asyncio.Future[None]") -> None:
    if not bell.done():
        bell.set_result(None)


def ended() -> Unavailable:
    """Return the error for a machine that ended meanwhile."""
    return Unavailable(
        "the machine is not running",
        code="engine_failed",
        reason="its warden does not answer",
        resolution="read its state and logs, and start it",
    )


def told_by(status: int, said: bytes) -> NotFound | Conflict:
    """Return the error for a file operation that did not succeed."""
    text = said.decode(errors="replace") or f"exit status {status}"
    if status == NOT_FOUND:
        return NotFound(text, code="file_not_found", resolution="list the folder above it")
    return Conflict(text, code="file_refused", resolution="see what is there, and what belongs to whom")


async def _end_of(call: Call) -> int:
    """Return the wait status of what was started; that it was started is said before, and nothing to wait for."""
    while True:
        told, _ = await call.hear()
        if "exit" in told:
            return int(told["exit"])


def _handed(handing: socket.socket) -> int:
    handing.settimeout(_HANDED_WITHIN_S)
    try:
        _, descriptors, _, _ = socket.recv_fds(handing, 16, 1, socket.MSG_CMSG_CLOEXEC)
    except OSError as failure:
        raise OSError(f"no terminal came: {failure}") from failure
    if not descriptors:
        raise OSError("the command ended before it had a terminal")
    return descriptors[0]


def _exit_code(status: int) -> int:
    return _SIGNALLED + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
