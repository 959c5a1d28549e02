"""A command of this host whose streams are read and written while it runs."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path

from borough.adapters import process
from borough.adapters.process import Child
from borough.fleet.ports.engines import Chunk, Stream

_CHUNK_BYTES = 65_536
_WAITING_CHUNKS = 16
"""What is printed faster than it is fetched waits in the command."""
_END_GRACE_S = 1.0


async def stream(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdin: AsyncIterator[bytes]
) -> AsyncGenerator[Chunk, None]:
    """Run a command and yield what it prints, and last its exit status; closing the iterator ends it.

    Raises:
        Unavailable: it cannot be started (``program_missing``, ``launch_failed``).
    """
    pipe = process.PIPE
    child = await asyncio.to_thread(process.start, argv, env=env, cwd=cwd, stdin=pipe, stdout=pipe, stderr=pipe)
    queue: asyncio.Queue[Chunk | None] = asyncio.Queue(_WAITING_CHUNKS)
    with child.popen:
        tasks = [
            asyncio.ensure_future(_hear(child, Stream.STDOUT, queue)),
            asyncio.ensure_future(_hear(child, Stream.STDERR, queue)),
        ]
        feeding = asyncio.ensure_future(_feed(child, stdin))
        try:
            open_streams = len(tasks)
            while open_streams:
                chunk = await queue.get()
                if chunk is None:
                    open_streams -= 1
                else:
                    yield chunk
            await asyncio.gather(*tasks)
            yield Chunk(stream=Stream.EXIT, exit_code=await asyncio.to_thread(child.wait))
        finally:
            for task in (*tasks, feeding):
                task.cancel()
            # Whoever gives up waiting must not leave it behind.
            await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(_end, child)))
            await asyncio.gather(*tasks, feeding, return_exceptions=True)


async def _hear(child: Child, name: Stream, queue: asyncio.Queue[Chunk | None]) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_CHUNK_BYTES)
    pipe = child.popen.stdout if name is Stream.STDOUT else child.popen.stderr
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        while part := await reader.read(_CHUNK_BYTES):
            await queue.put(Chunk(stream=name, data=part))
        await queue.put(None)
    finally:
        transport.close()


async def _feed(child: Child, stdin: AsyncIterator[bytes]) -> None:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, child.popen.stdin)
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    try:
        async for part in stdin:
            writer.write(part)
            await writer.drain()
    except OSError:
        return  # it does not want to hear more; what it says of that is in its output
    finally:
        writer.close()


def _end(child: Child) -> None:
    if child.poll() is None:
        process.end(child.ref, grace_s=_END_GRACE_S)
    child.wait()
