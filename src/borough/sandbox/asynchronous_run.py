"""Runs for programs that are asynchronous: the same names, each awaited; the log is an asynchronous iterator.

What waits for the network runs in a thread; a run does one thing at a time, but for its log, which may be read beside.
Cancelling lets go of the answer; what was begun goes on.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from borough.sandbox.asynchronous import AsyncCommands, AsyncFiles
from borough.sandbox.run import Run
from borough.sandbox.run_values import Admission, Asked, Killed, RunInfo, RunResult


class AsyncRun:
    """A run on a ``borough up``; make one with ``create`` or ``connect``."""

    def __init__(self, inner: Run) -> None:
        self._inner = inner

    @classmethod
    async def create(
        cls,
        task: str,
        *,
        key: str | None = None,
        server: str | None = None,
        api_key: str | None = None,
        **asked: Unpack[Asked],
    ) -> Self:
        """Begin a run, as ``Run.create`` does."""
        begin = partial(Run.create, task, key=key, server=server, api_key=api_key, **asked)
        return cls(await asyncio.to_thread(begin))

    @staticmethod
    async def admission(
        task: str, *, server: str | None = None, api_key: str | None = None, **asked: Unpack[Asked]
    ) -> Admission:
        """Return the decision about such a run, as ``Run.admission`` does."""
        return await asyncio.to_thread(partial(Run.admission, task, server=server, api_key=api_key, **asked))

    @classmethod
    async def connect(cls, id: str, *, server: str | None = None, api_key: str | None = None) -> Self:  # noqa: A002 - what it is called everywhere
        """Return a run that exists; raises ``NothingThere``."""
        return cls(await asyncio.to_thread(partial(Run.connect, id, server=server, api_key=api_key)))

    @staticmethod
    async def list(**wanted: Any) -> Sequence[RunInfo]:
        """Return the newest runs; takes what ``Run.list`` takes."""
        return await asyncio.to_thread(partial(Run.list, **wanted))

    @property
    def id(self) -> str:
        """By which it can be connected to again."""
        return self._inner.id

    @property
    def name(self) -> str:
        """What things are called that are made for it."""
        return self._inner.name

    async def info(self) -> RunInfo:
        """Return all that the server knows of it now."""
        return await asyncio.to_thread(lambda: self._inner.info)

    async def state(self) -> str:
        """Return where it stands now."""
        return (await self.info()).state

    async def result(self) -> RunResult | None:
        """Return what was brought out of its machine; ``None``: nothing yet."""
        return await asyncio.to_thread(lambda: self._inner.result)

    async def log(self) -> AsyncIterator[str]:
        """Yield the lines that its command prints, as they come, until it has ended."""
        lines = self._inner.log()
        while (line := await asyncio.to_thread(next, lines, None)) is not None:
            yield line

    async def wait(self, *, timeout_s: float | None = None, check: bool = False) -> RunInfo:
        """Return how it ended, as ``Run.wait`` does."""
        return await asyncio.to_thread(partial(self._inner.wait, timeout_s=timeout_s, check=check))

    async def patch(self) -> str:
        """Return the files that it changed, as a unified patch; raises ``NothingThere``."""
        return await asyncio.to_thread(self._inner.patch)

    async def ledger(self) -> Sequence[dict[str, Any]]:
        """Return what the ledger tells of it, oldest first."""
        return await asyncio.to_thread(self._inner.ledger)

    async def evidence(self, path: str | Path) -> Path:
        """Write the proof of what it did into a file; return where."""
        return await asyncio.to_thread(self._inner.evidence, path)

    async def files(self) -> AsyncFiles:
        """Return the files of its machine; raises ``NothingThere``."""
        return AsyncFiles(await asyncio.to_thread(lambda: self._inner.files))

    async def commands(self) -> AsyncCommands:
        """Return what runs commands in its machine; raises ``NothingThere``."""
        return AsyncCommands(await asyncio.to_thread(lambda: self._inner.commands))

    async def cancel(self, reason: str = "") -> None:
        """End it, for it is no longer wanted; one that is over is no error."""
        await asyncio.to_thread(self._inner.cancel, reason)

    async def retry(self) -> None:
        """Begin it once more, as ``Run.retry`` does."""
        await asyncio.to_thread(self._inner.retry)

    async def kill(self, *, quarantine: bool = False, reason: str = "") -> Killed:
        """Take all power from it, as ``Run.kill`` does."""
        return await asyncio.to_thread(partial(self._inner.kill, quarantine=quarantine, reason=reason))

    async def close(self) -> None:
        """Let go of the connection; the run goes on."""
        self._inner.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(asyncio.to_thread(self._inner.__exit__, kind, problem, trace))
