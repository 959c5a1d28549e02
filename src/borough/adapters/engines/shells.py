"""Commands inside machines, streamed, and ended with all that they started; however their shell is reached."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from borough.adapters.engines import inside
from borough.adapters.engines.piping import stream
from borough.core.errors import BoroughError, Unavailable
from borough.fleet.ports.engines import Chunk, ExecOrder, Stream

_BEGINS = b"\x01borough begins\n"
_BEGIN_LINE = "printf '\\001borough begins\\n'; printf '\\001borough begins\\n' >&2"
"""Told by the shell inside once it is there: before that, whatever fails is the way in, not the command."""
_MOST_NOISE_BYTES = 65_536
_BOTH = 2
_LOST = 255
_ENDING_WITHIN_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrance:
    """The way to a machine's shell."""

    vm_id: str
    argv: Callable[[str, bool], Sequence[str]]
    """Returns what runs a command in the shell inside, with a terminal or without."""
    environment: Mapping[str, str]
    folder: Path
    """Where that is run on this host."""
    ready: Callable[[], Awaitable[None]]
    """Returns when the shell can be reached; raises ``Unavailable`` (``guest_unreachable``)."""
    still_runs: Callable[[], Awaitable[bool]]
    """Tells whether the machine has not ended."""


async def execute(entrance: Entrance, order: ExecOrder, stdin: AsyncIterator[bytes]) -> AsyncGenerator[Chunk, None]:
    """Run a command; the last chunk has the exit code. Closing the iterator ends it with all that it started.

    Raises:
        Unavailable: the machine cannot be entered (``guest_unreachable``), or the time was over (``exec_timeout``).
    """
    await entrance.ready()
    token = uuid4().hex
    script = inside.script_of(order, token)
    chunks = _piped(entrance, script, stdin) if order.tty is None else _terminal(entrance, script, stdin)
    deadline = None if order.timeout_s is None else time.monotonic() + order.timeout_s
    ended = False
    resizing = None
    if order.tty is not None and order.sizes is not None:
        resizing = asyncio.ensure_future(_resizes(entrance, token, order.sizes))
    try:
        async with aclosing(chunks):
            while (chunk := await _next(chunks, deadline)) is not None:
                ended = chunk.stream is Stream.EXIT
                if ended and chunk.exit_code == _LOST and not await entrance.still_runs():
                    raise unreachable(entrance.vm_id, "the machine ended while the command ran")
                yield chunk
    except TimeoutError:
        raise Unavailable(
            f"the command did not end within {order.timeout_s or 0:g} s and was ended",
            code="exec_timeout",
            resolution="give it more time, or run it in the background",
        ) from None
    finally:
        if resizing is not None:
            resizing.cancel()
            await asyncio.gather(resizing, return_exceptions=True)
        if not ended:
            # Whoever gives up waiting must not leave it behind.
            await asyncio.shield(asyncio.ensure_future(_end(entrance, token)))


def shell(entrance: Entrance) -> inside.Shell:
    """Return what runs scripts in that machine."""

    async def run(script: str, stdin: AsyncIterator[bytes]) -> AsyncGenerator[Chunk, None]:
        await entrance.ready()
        async with aclosing(_piped(entrance, script, stdin)) as chunks:
            async for chunk in chunks:
                yield chunk

    return run


def unreachable(vm_id: str, why: str) -> Unavailable:
    """Return the error for a machine that cannot be entered."""
    return Unavailable(
        f"{vm_id} cannot be entered: {why}",
        code="guest_unreachable",
        resolution="read its console (tt logs); an image must start an SSH server and read its NoCloud seed",
    )


def _piped(entrance: Entrance, script: str, stdin: AsyncIterator[bytes]) -> AsyncGenerator[Chunk, None]:
    script = f"{_BEGIN_LINE}\n{script}"
    argv = entrance.argv(inside.starter(script), False)
    told = stream(argv, env=entrance.environment, cwd=entrance.folder, stdin=inside.after(script, stdin))
    return _begun(told, entrance.vm_id)


async def _terminal(entrance: Entrance, script: str, stdin: AsyncIterator[bytes]) -> AsyncGenerator[Chunk, None]:
    """A terminal would echo a script and take its control characters, so it is brought in beforehand."""
    bring = 'umask 077; file="$(mktemp)" && cat >"$file" && echo "$file"'
    parts = inside.only(f'rm -f -- "$0"\n{script}'.encode())
    brought = await inside.gather(_piped(entrance, bring, parts), "a command", most_bytes=_MOST_NOISE_BYTES)
    argv = entrance.argv(f"exec sh {brought.decode().strip()}", True)
    async with aclosing(stream(argv, env=entrance.environment, cwd=entrance.folder, stdin=stdin)) as chunks:
        async for chunk in chunks:
            yield chunk


async def _resizes(entrance: Entrance, token: str, sizes: AsyncIterator[tuple[int, int]]) -> None:
    """SSH's client has no terminal here whose size it could pass on, so that of the other end is set by a command."""
    async for rows, columns in sizes:
        chunks = _piped(entrance, inside.resizing(token, rows, columns), inside.only())
        await inside.gather(chunks, "a size", most_bytes=_MOST_NOISE_BYTES)


async def _end(entrance: Entrance, token: str) -> None:
    with suppress(TimeoutError, BoroughError):  # then the machine itself has gone, and the command with it
        async with asyncio.timeout(_ENDING_WITHIN_S):
            chunks = _piped(entrance, inside.ending(token), inside.only())
            await inside.gather(chunks, "a command", most_bytes=_MOST_NOISE_BYTES)


async def _next(chunks: AsyncGenerator[Chunk, None], deadline: float | None) -> Chunk | None:
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    async with asyncio.timeout(left):
        return await anext(chunks, None)


async def _begun(chunks: AsyncGenerator[Chunk, None], vm_id: str) -> AsyncGenerator[Chunk, None]:
    """Yield what a command says once the shell inside has begun, on either stream: what its start-up files print
    before that is nobody's. Raises ``Unavailable`` (``guest_unreachable``) when it never begins.
    """
    noise = {Stream.STDOUT: b"", Stream.STDERR: b""}
    async with aclosing(chunks):
        async for chunk in chunks:
            if chunk.stream is Stream.EXIT and len(noise) == _BOTH:
                said = noise[Stream.STDERR].decode(errors="replace").strip() or f"exit status {chunk.exit_code}"
                raise unreachable(vm_id, said)
            if chunk.stream not in noise:
                yield chunk
                continue
            before, begun, after = (noise[chunk.stream] + chunk.data).partition(_BEGINS)
            if not begun:
                noise[chunk.stream] = before[-_MOST_NOISE_BYTES:]
                continue
            del noise[chunk.stream]
            if after:
                yield Chunk(stream=chunk.stream, data=after)
