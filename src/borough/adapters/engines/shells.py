"""Commands inside machines over SSH, streamed, and ended with all that they started."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from uuid import uuid4

from borough.adapters.engines import inside
from borough.adapters.engines.piping import stream
from borough.adapters.engines.ssh import ENVIRONMENT, Door, Ssh, answers, unreachable
from borough.core.errors import BoroughError, Unavailable
from borough.fleet.ports.machines import Chunk, ExecOrder, Stream

_BEGINS = b"\x01borough begins\n"
_BEGIN_LINE = "printf '\\001borough begins\\n'; printf '\\001borough begins\\n' >&2"
"""Told by the shell inside once it is there: before that, whatever fails is the way in, not the command."""
_MOST_NOISE_BYTES = 65_536
_BOTH = 2
_LOST = 255
_ENDING_WITHIN_S = 20.0

StillRuns = Callable[[], Awaitable[bool]]


class SshShell:
    """Runs commands in machines that have an SSH server and know our key."""

    def __init__(self, ssh: Ssh, *, within_s: float) -> None:
        """``within_s``: how long a machine that starts may take until it answers."""
        self._ssh = ssh
        self._within_s = within_s

    async def execute(
        self, door: Door, order: ExecOrder, stdin: AsyncIterator[bytes], *, still_runs: StillRuns
    ) -> AsyncGenerator[Chunk, None]:
        """Run a command; the last chunk has the exit code. Closing the iterator ends it with all that it started.

        Raises:
            Unavailable: the machine cannot be entered (``guest_unreachable``), or the time was over (``exec_timeout``).
        """
        await answers(door, within_s=self._within_s, still_runs=still_runs)
        token = uuid4().hex
        script = inside.script_of(order, token)
        chunks = self._piped(door, script, stdin) if order.tty is None else self._terminal(door, script, stdin)
        deadline = None if order.timeout_s is None else time.monotonic() + order.timeout_s
        ended = False
        try:
            async with aclosing(chunks):
                while (chunk := await _next(chunks, deadline)) is not None:
                    ended = chunk.stream is Stream.EXIT
                    if ended and chunk.exit_code == _LOST and not await still_runs():
                        raise unreachable(door, "the machine ended while the command ran")
                    yield chunk
        except TimeoutError:
            raise Unavailable(
                f"the command did not end within {order.timeout_s or 0:g} s and was ended",
                code="exec_timeout",
                resolution="give it more time, or run it in the background",
            ) from None
        finally:
            if not ended:
                # Whoever gives up waiting must not leave it behind.
                await asyncio.shield(asyncio.ensure_future(self._end(door, token)))

    def shell(self, door: Door, *, still_runs: StillRuns) -> inside.Shell:
        """Return what runs scripts in that machine."""

        async def run(script: str, stdin: AsyncIterator[bytes]) -> AsyncGenerator[Chunk, None]:
            await answers(door, within_s=self._within_s, still_runs=still_runs)
            async with aclosing(self._piped(door, script, stdin)) as chunks:
                async for chunk in chunks:
                    yield chunk

        return run

    def _piped(self, door: Door, script: str, stdin: AsyncIterator[bytes]) -> AsyncGenerator[Chunk, None]:
        script = f"{_BEGIN_LINE}\n{script}"
        argv = self._ssh.argv(door, inside.starter(script))
        told = stream(argv, env=ENVIRONMENT, cwd=door.folder, stdin=inside.after(script, stdin))
        return _begun(told, door)

    async def _terminal(self, door: Door, script: str, stdin: AsyncIterator[bytes]) -> AsyncGenerator[Chunk, None]:
        """A terminal would echo a script and take its control characters, so it is brought in beforehand."""
        bring = 'umask 077; file="$(mktemp)" && cat >"$file" && echo "$file"'
        parts = inside.only(f'rm -f -- "$0"\n{script}'.encode())
        brought = await inside.gather(self._piped(door, bring, parts), "a command", most_bytes=_MOST_NOISE_BYTES)
        argv = self._ssh.argv(door, f"exec sh {brought.decode().strip()}", terminal=True)
        async with aclosing(stream(argv, env=ENVIRONMENT, cwd=door.folder, stdin=stdin)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _end(self, door: Door, token: str) -> None:
        with suppress(TimeoutError, BoroughError):  # then the machine itself has gone, and the command with it
            async with asyncio.timeout(_ENDING_WITHIN_S):
                await inside.gather(
                    self._piped(door, inside.ending(token), inside.only()), "a command", most_bytes=_MOST_NOISE_BYTES
                )


async def _next(chunks: AsyncGenerator[Chunk, None], deadline: float | None) -> Chunk | None:
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    async with asyncio.timeout(left):
        return await anext(chunks, None)


async def _begun(chunks: AsyncGenerator[Chunk, None], door: Door) -> AsyncGenerator[Chunk, None]:
    """Yield what a command says once the shell inside has begun, on either stream: what its start-up files print
    before that is nobody's. Raises ``Unavailable`` (``guest_unreachable``) when it never begins.
    """
    noise = {Stream.STDOUT: b"", Stream.STDERR: b""}
    async with aclosing(chunks):
        async for chunk in chunks:
            if chunk.stream is Stream.EXIT and len(noise) == _BOTH:
                said = noise[Stream.STDERR].decode(errors="replace").strip() or f"exit status {chunk.exit_code}"
                raise unreachable(door, said)
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
