"""Sandboxes for programs that are asynchronous: the same names, each awaited.

What waits for the network runs in a thread; a sandbox does one thing at a time. Callbacks are called in the event
loop's own thread. Cancelling lets go of the answer; what was begun goes on in the fleet.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

from borough.sandbox.blocking import Commands, Files, Listener, Sandbox
from borough.sandbox.values import CommandResult, FileInfo


class AsyncCommands:
    """What runs in a sandbox."""

    def __init__(self, inner: Commands) -> None:
        self._inner = inner

    async def run(
        self,
        command: str | Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: str | bytes = b"",
        timeout_s: float | None = None,
        on_stdout: Listener | None = None,
        on_stderr: Listener | None = None,
        check: bool = False,
    ) -> CommandResult:
        """Run a command to its end, as ``Commands.run`` does."""
        run = partial(
            self._inner.run, command, env=env, cwd=cwd, stdin=stdin, timeout_s=timeout_s, check=check,
            on_stdout=_in_loop(on_stdout), on_stderr=_in_loop(on_stderr),
        )  # fmt: skip
        return await asyncio.to_thread(run)


class AsyncFiles:
    """The files of a sandbox."""

    def __init__(self, inner: Files) -> None:
        self._inner = inner

    async def read(self, path: str) -> str:
        """Return a file as text; raises ``NothingThere``."""
        return await asyncio.to_thread(self._inner.read, path)

    async def read_bytes(self, path: str) -> bytes:
        """Return a file; raises ``NothingThere``."""
        return await asyncio.to_thread(self._inner.read_bytes, path)

    async def write(self, path: str, content: str | bytes) -> int:
        """Write a file, with the folders above it; return how many bytes."""
        return await asyncio.to_thread(self._inner.write, path, content)

    async def list(self, path: str = "/") -> list[FileInfo]:
        """Return the names in a folder; raises ``NothingThere``."""
        return await asyncio.to_thread(self._inner.list, path)


class AsyncSandbox:
    """A machine of the fleet; make one with ``create`` or ``connect``."""

    def __init__(self, inner: Sandbox) -> None:
        self._inner = inner
        self.commands = AsyncCommands(inner.commands)
        self.files = AsyncFiles(inner.files)

    @classmethod
    async def create(cls, **asked: Any) -> Self:
        """Make a machine and return when it runs; takes what ``Sandbox.create`` takes."""
        return cls(await asyncio.to_thread(partial(Sandbox.create, **asked)))

    @classmethod
    async def connect(cls, id: str, *, server: str | None = None, api_key: str | None = None) -> Self:  # noqa: A002 - what it is called everywhere
        """Return a sandbox that exists; raises ``NothingThere``."""
        return cls(await asyncio.to_thread(partial(Sandbox.connect, id, server=server, api_key=api_key)))

    async def snapshot(self, name: str) -> None:
        """Keep its present state under a name; idempotent."""
        await asyncio.to_thread(self._inner.snapshot, name)

    async def restore(self, name: str) -> None:
        """Return to a snapshot; raises ``NothingThere``."""
        await asyncio.to_thread(self._inner.restore, name)

    async def clone(self, snapshot: str, **asked: Any) -> Self:
        """Make another sandbox from a snapshot of this one; takes what ``Sandbox.clone`` takes."""
        return type(self)(await asyncio.to_thread(partial(self._inner.clone, snapshot, **asked)))

    @property
    def id(self) -> str:
        """The name by which it can be connected to again."""
        return self._inner.id

    @property
    def vm_id(self) -> str:
        """The id of its machine."""
        return self._inner.vm_id

    async def state(self) -> str:
        """Return how its machine stands, as the controller knows it now."""
        return await asyncio.to_thread(lambda: self._inner.state)

    async def address(self, port: int) -> tuple[str, int]:
        """Return host and port at which a published port answers; raises ``Refused``."""
        return await asyncio.to_thread(self._inner.address, port)

    async def stop(self) -> None:
        """Stop the machine; its disk stays."""
        await asyncio.to_thread(self._inner.stop)

    async def start(self) -> None:
        """Start it again."""
        await asyncio.to_thread(self._inner.start)

    async def extend(self, lifetime_s: int) -> None:
        """Let it live for so long from now on."""
        await asyncio.to_thread(self._inner.extend, lifetime_s)

    async def kill(self) -> None:
        """Delete it, with its disk; one that is gone already is no error."""
        await asyncio.shield(asyncio.to_thread(self._inner.kill))

    async def close(self) -> None:
        """Let go of the connection; the sandbox lives on until it is killed or expires."""
        self._inner.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.kill()
        finally:
            await self.close()


def _in_loop(listener: Callable[[str], None] | None) -> Callable[[str], None] | None:
    """Return what tells ``listener`` in this loop's thread."""
    if listener is None:
        return None
    loop = asyncio.get_running_loop()
    return lambda text: _done(loop, listener, text)


def _done(loop: asyncio.AbstractEventLoop, listener: Callable[[str], None], text: str) -> None:
    async def tell() -> None:
        listener(text)

    asyncio.run_coroutine_threadsafe(tell(), loop).result()
