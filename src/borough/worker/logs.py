"""Sends what an agent CLI prints to the server, in order, while it prints.

The output is spooled in a file; memory holds only its end. The server keeps an attempt's log by offset, so a part
whose answer was lost is simply sent again, also to a server that was restarted meanwhile.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from borough.http.town.worker_wire import LogSize
from borough.worker.connection import Away, BrokenOff, Connection, Refused

log = logging.getLogger(__name__)

SPOOL_BYTES = 64 * 1024 * 1024
PART_BYTES = 256 * 1024
TAIL_BYTES = 1_048_576
_LOOK_S = 0.25
GATHER_S = 0.1
"""How long small writes are gathered before they are sent."""


class Spool:
    """The output of one attempt: ``write`` by the main thread, ``part`` by the shipper."""

    def __init__(self, path: Path, *, limit_bytes: int = SPOOL_BYTES) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._limit = limit_bytes
        self._tail = bytearray()
        self.size = 0
        """Bytes that can be sent."""
        self.printed = 0
        """Bytes of output in all, kept or not."""

    def write(self, data: bytes) -> None:
        """Take in output; beyond the limit only the end is remembered, in memory."""
        self.printed += len(data)
        self._tail += data
        if len(self._tail) > 2 * TAIL_BYTES:
            del self._tail[:-TAIL_BYTES]
        if self.size < self._limit:
            kept = data[: self._limit - self.size]
            if len(kept) < len(data):
                kept += b"\n[the rest of this attempt's output is not kept]\n"
            self._append(kept)

    def note(self, line: str) -> None:
        """Add a line of the worker's own to the log; it is no output of the CLI."""
        self._append(f"[{line}]\n".encode())

    def tail(self) -> bytes:
        """Return the end of the output: all of it, or at least the last ``TAIL_BYTES``."""
        return bytes(self._tail)

    def part(self, offset: int, limit: int) -> bytes:
        """Return at most ``limit`` bytes from ``offset``."""
        return os.pread(self._file, min(limit, self.size - offset), offset)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _append(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._file, rest, self.size)
            rest = rest[written:]
            self.size += written


class Shipper:
    """Sends a spool's content to the log of one attempt."""

    def __init__(self, connection: Connection, spool: Spool, *, task_id: str) -> None:
        self._connection = connection
        self._spool = spool
        self._task_id = task_id
        self._news = threading.Event()
        self._ending = threading.Event()
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log shipper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def notify(self) -> None:
        """There is more in the spool."""
        self._news.set()

    def finish(self, *, in_a_hurry: Callable[[], bool], within_s: float) -> None:
        """Return once all is sent, or cannot be sent any more; in a hurry, give up what is left after ``within_s``."""
        self._ending.set()
        self._news.set()
        deadline: float | None = None
        while self._thread.is_alive() and (deadline is None or time.monotonic() < deadline):
            self._thread.join(_LOOK_S)
            if deadline is None and in_a_hurry():
                deadline = time.monotonic() + within_s
        if self._thread.is_alive():
            log.warning("the end of the log of task %s was not sent in time", self._task_id)
            self._cancelled.set()
            self._connection.break_off()
            self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        try:
            self._ship()
        except Refused as refusal:
            log.info("the log of task %s is not accepted any more: %s", self._task_id, refusal)
        except Away as away:
            log.warning("the log of task %s cannot be sent: %s", self._task_id, away)
        except BrokenOff:
            log.info("the log of task %s is broken off", self._task_id)

    def _ship(self) -> None:
        sent = 0
        while not self._cancelled.is_set():
            ending = self._ending.is_set()
            if sent < self._spool.size:
                sent = self._send(sent)
            elif ending:
                return
            else:
                self._news.wait()
                self._news.clear()
                self._ending.wait(GATHER_S)

    def _send(self, sent: int) -> int:
        """Send one part; return how much of the spool the server has."""
        data = self._spool.part(sent, PART_BYTES)
        try:
            size = self._post(sent, data)
        except Refused as refusal:
            if refusal.code != "log_hole":
                raise
            size = self._post(0, b"")  # the server lost its end, in a crash of its machine say: go on from there
        return min(size, sent + len(data))

    def _post(self, offset: int, data: bytes) -> int:
        path = f"/v1/tasks/{self._task_id}/log?offset={offset}"
        return self._connection.post(path, data).read(LogSize).size
