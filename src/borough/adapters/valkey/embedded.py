"""The embedded Valkey server: found, started or adopted, watched, restarted.

It listens on a Unix socket in a private folder and writes every acknowledged change to disk. It does not end with its
starter: after a ``SIGKILL`` of ours it lives on, still holding the lock on its data, and the next start adopts it.
So there is at most one server a folder, and its data have an owner at every moment.
"""

import asyncio
import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from pathlib import Path

import msgspec
import structlog

from borough.adapters.process import Child, start_server
from borough.adapters.valkey.binary import find_binary, server_argv
from borough.adapters.valkey.housing import End, House, started_ticks, write_private
from borough.core.clock import utc_now
from borough.core.errors import Unavailable

_PRIVATE_UMASK = 0o077
"""What is said in a town is nobody else's to read, wherever its files are copied to."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long things may take."""

    silent_start_s: float = 30.0
    """How long a start may take without a sign of life; loading data is one."""
    stop_s: float = 10.0
    first_pause_s: float = 0.1
    longest_pause_s: float = 10.0
    stable_after_s: float = 60.0
    """A server that ran so long starts the next pauses from the first one again."""
    look_for_room_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """How the embedded server does."""

    running: bool = False
    since: datetime | None = None
    """Since when it runs, or has been down; of an adopted one: since when we know it."""
    pid: int | None = None
    """``None`` also for a server that somebody else started."""
    adopted: bool = False
    restarts: int = 0
    last_reason: str | None = None
    """Why it ended or did not start the last time."""


class _Sign(Enum):
    SILENT = "silent"
    LOADING = "loading"
    READY = "ready"


class EmbeddedServer:
    """One embedded server and the task that keeps it running."""

    def __init__(
        self,
        directory: Path,
        *,
        binary: Path | None = None,
        socket: Path | None = None,
        needed_bytes: int = 16 * 1_048_576,
        patience: Patience | None = None,
    ) -> None:
        self._house = House(directory, socket=socket)
        self._binary = binary
        self._needed_bytes = needed_bytes
        self._patience = patience or Patience()
        self._process: Child | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._status = ServerStatus()

    @property
    def url(self) -> str:
        """The address for ``client.connect``; known once the server has started."""
        return f"unix://{self._house.socket}"

    @property
    def status(self) -> ServerStatus:
        """How the server does now."""
        return self._status

    @property
    def is_ours(self) -> bool:
        """Tell whether the server that runs works on this folder's data, whoever started it."""
        return self._process is not None or self._house.is_held()

    async def start(self) -> None:
        """Adopt the server that runs in the folder or start one; return when it answers. Watch it from then on.

        Raises:
            Unavailable: there is no binary (``store_binary_missing``), or it did not start (``store_unavailable``,
                ``store_full``) for the reason given.
        """
        self._house.open()
        await self._bring_up()
        self._watcher = asyncio.get_running_loop().create_task(self._keep_running())

    async def stop(self, *, adopted_too: bool = False) -> None:
        """Stop watching, and stop the server if we started it (or are told to). Stopping twice is fine."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None
        if self._process is not None:
            await _end(self._process, within_s=self._patience.stop_s)
            self._process = None
        elif self._status.running:
            if not adopted_too:
                return
            await self._shut_down_adopted()
        self._house.tidy()
        self._status = replace(self._status, running=False, since=utc_now(), pid=None)

    async def _keep_running(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = 0.0
        while True:
            began = loop.time()
            await self._until_gone()
            end = self._house.explain_end(self._reap())
            self._note_end(end)
            if loop.time() - began >= self._patience.stable_after_s:
                pause_s = 0.0
            pause_s = await self._restart(end, pause_s)

    async def _restart(self, end: End, pause_s: float) -> float:
        """Try until the server is up again, pausing longer each time; return the next pause."""
        while True:
            if end.disk_full:
                await self._until_there_is_room()
            await asyncio.sleep(pause_s)
            pause_s = min(self._patience.longest_pause_s, max(self._patience.first_pause_s, pause_s * 2))
            try:
                await self._bring_up()
            except Unavailable as error:
                end = End(reason=error.reason or error.message, disk_full=error.code == "store_full")
                self._note_end(end)
            else:
                self._status = replace(self._status, restarts=self._status.restarts + 1)
                _log.warning("embedded_server_is_back", restarts=self._status.restarts)
                return pause_s

    async def _until_there_is_room(self) -> None:
        """A full disk is no crash: starting again would only fill it further."""
        while True:
            await asyncio.sleep(self._patience.look_for_room_s)
            if self._house.free_bytes() >= self._needed_bytes:
                return

    def _note_end(self, end: End) -> None:
        since = utc_now() if self._status.running else self._status.since
        self._status = replace(self._status, running=False, since=since, pid=None, last_reason=end.reason)
        _log.error("embedded_server_is_down", reason=end.reason, folder=str(self._house.directory))

    async def _bring_up(self) -> None:
        """Adopt or start; several starters may try at once, one of them starts and the others adopt."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience.silent_start_s
        while True:
            sign = await _ask(self._house.socket)
            if sign is _Sign.READY:
                self._status = replace(self._status, running=True, since=utc_now(), pid=None, adopted=True)
                return
            if sign is _Sign.LOADING:
                deadline = loop.time() + self._patience.silent_start_s
            else:
                lock = self._house.try_lock()
                if lock is not None:
                    await self._start_holding(lock)
                    return
            if loop.time() >= deadline:
                raise self._silent_holder()
            await asyncio.sleep(0.02)

    async def _start_holding(self, lock: int) -> None:
        """Start a server that inherits ``lock``, and wait until it answers."""
        try:
            socket = self._house.choose_socket()
            argv = server_argv(find_binary(self._binary), directory=self._house.directory, socket=socket)
            self._process = self._launch(argv, lock)
        except OSError as error:
            raise _start_failure(self._house.explain_end(None), str(error)) from error
        finally:
            os.close(lock)
        try:
            self._write_record(self._process.pid, socket)
            await self._until_ready(self._process, socket)
        except BaseException:
            await _end(self._process, within_s=0.0)
            self._process = None
            raise
        self._status = replace(self._status, running=True, since=utc_now(), pid=self._process.pid, adopted=False)

    def _launch(self, argv: Sequence[str], lock: int) -> Child:
        log = self._house.open_log()
        try:
            return start_server(
                argv, env={"LC_ALL": "C"}, cwd=self._house.directory, log=log, pass_fds=(lock,), umask=_PRIVATE_UMASK
            )
        except Unavailable as error:
            raise _start_failure(self._house.explain_end(None), error.message) from error
        finally:
            os.close(log)

    def _write_record(self, pid: int, socket: Path) -> None:
        record = {"pid": pid, "started_ticks": started_ticks(pid), "socket": str(socket), "starter_pid": os.getpid()}
        write_private(self._house.record, msgspec.json.encode(record))

    async def _until_ready(self, process: Child, socket: Path) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience.silent_start_s
        while (sign := await _ask(socket)) is not _Sign.READY:
            exit_code = process.poll()
            if exit_code is not None:
                end = self._house.explain_end(exit_code)
                raise _start_failure(end, end.reason)
            if sign is _Sign.LOADING:
                deadline = loop.time() + self._patience.silent_start_s
            elif loop.time() >= deadline:
                raise _start_failure(End(reason=""), f"no answer within {self._patience.silent_start_s:.0f} s")
            await asyncio.sleep(0.01)

    async def _until_gone(self) -> None:
        """Return when the server no longer answers: a connection that only listens ends with the process."""
        pause_s = 0.002
        while True:
            with contextlib.suppress(OSError):  # no connection: the question below decides
                reader, writer = await asyncio.open_unix_connection(self._house.socket)
                try:
                    await reader.read()
                finally:
                    writer.close()
            if self._process is not None:
                if self._process.poll() is not None:
                    return
            elif await _ask(self._house.socket) is _Sign.SILENT:
                return
            await asyncio.sleep(pause_s)  # between the end of its connections and its own, or it refuses ours
            pause_s = min(0.2, pause_s * 2)

    def _reap(self) -> int | None:
        if self._process is None:
            return None
        exit_code = self._process.wait()  # at once: it has ended
        self._process = None
        return exit_code

    async def _shut_down_adopted(self) -> None:
        refused = b""
        try:
            async with asyncio.timeout(self._patience.stop_s):
                reader, writer = await asyncio.open_unix_connection(self._house.socket)
                try:
                    writer.write(b"SHUTDOWN NOSAVE\r\n")  # the append-only file is whole; a snapshot is not wanted
                    refused = await reader.read()
                finally:
                    writer.close()
                while not refused and self._house.is_held():  # noqa: ASYNC110 - its lock ends with the process, silently
                    await asyncio.sleep(0.01)
        except TimeoutError:
            refused = b"it goes on running"
        if refused:
            raise Unavailable(
                "the adopted store did not stop",
                code="store_unavailable",
                reason=refused.decode("utf-8", "replace").strip(),
                resolution="stop it where it was started",
            )

    def _silent_holder(self) -> Unavailable:
        return Unavailable(
            f"another process holds the data in {self._house.directory} but does not answer",
            code="store_unavailable",
            reason=f"{self._house.record} names it; it is stopped, or still ending",
            resolution="wait for it, or end that process, then start again",
        )


async def _ask(socket: Path) -> _Sign:
    """Ask for a sign of life. Any answer but LOADING is one: even a server out of connections is there."""
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(b"PING\r\n")
                answer = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return _Sign.SILENT
    if not answer:
        return _Sign.SILENT
    return _Sign.LOADING if answer.startswith(b"-LOADING") else _Sign.READY


async def _end(process: Child, *, within_s: float) -> None:
    """Ask a server of ours to end, insist after ``within_s``, and reap it."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    process.terminate()
    while process.poll() is None:
        if loop.time() >= deadline:
            process.kill()
        await asyncio.sleep(0.005)


def _start_failure(end: End, reason: str) -> Unavailable:
    return Unavailable(
        "the embedded store did not start",
        code="store_full" if end.disk_full else "store_unavailable",
        reason=end.reason if end.disk_full else reason,
        resolution="free space on its disk" if end.disk_full else "see valkey.log in its folder",
    )
