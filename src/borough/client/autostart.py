"""Starting a town's server in the background when a command needs it and none runs.

Two commands at once start one server: the second waits for the first at a file lock, then finds what it started.
"""

import fcntl
import http.client
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from borough.client.discovery import STATE_FOLDER, NoServer, ServerRecord, read_record, started_ticks

READY_WITHIN_S: Final = 30.0
LOCK_FILE: Final = "autostart.lock"
SERVER_LOCK: Final = "server.lock"
"""Held by the server of a town as long as it lives."""
LOG_FILE: Final = "townhall.log"
_POLL_S: Final = 0.05
_LOG_TAIL_BYTES: Final = 4096


class Starter(Protocol):
    """Starts a program that outlives its starter."""

    def __call__(self, argv: Sequence[str], cwd: Path, log: Path, env: Mapping[str, str]) -> int:
        """Start ``argv`` in a session of its own, its output appended to ``log``; return its pid."""


def ensure_server(
    town: Path,
    *,
    argv: Sequence[str],
    env: Mapping[str, str],
    start: Starter,
    say: Callable[[str], None],
    within_s: float = READY_WITHIN_S,
) -> ServerRecord:
    """Return the record of the town's running server, after starting one if there was none.

    Raises:
        NoServer: it ended or was not ready within ``within_s``; the end of its log is in ``reason``.
    """
    log = town / STATE_FOLDER / "logs" / LOG_FILE
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _lock(town / STATE_FOLDER / LOCK_FILE):
        record = read_record(town)
        if record is not None:
            return record
        # Whoever holds the town is starting right now: then there is only to wait.
        pid = None if is_held(town) else start(argv, town, log, env)
        ticks = None if pid is None else started_ticks(pid)
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            record = read_record(town)
            if record is not None and is_ready(record.address):
                if record.pid == pid:
                    say(f"started a server for this town: {record.address} (pid {pid}, log {log})")
                return record
            if not is_held(town) and (pid is None or ticks is None or started_ticks(pid) != ticks):
                raise _failed(town, log, "it ended before it was ready")
            time.sleep(_POLL_S)
        raise _failed(town, log, f"it was not ready within {within_s:g} s")


def is_held(town: Path) -> bool:
    """Tell whether a server holds the town, be it ready or not."""
    try:
        descriptor = os.open(town / STATE_FOLDER / SERVER_LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def is_ready(address: str, *, timeout_s: float = 2.0) -> bool:
    """Tell whether a server at ``address`` says that it is ready; over TLS, whether it accepts a connection."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout_s)
    try:
        if parts.scheme == "https":
            connection.connect()
            return True
        connection.request("GET", "/ready", headers={"Host": parts.netloc})
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _failed(town: Path, log: Path, what: str) -> NoServer:
    return NoServer(
        f"a server for the town in {town} was started, but {what}",
        code="server_start_failed",
        reason=_last_words(log),
        resolution=f"read {log}, or run 'townhall' in that folder to see it start",
    )


def _last_words(log: Path) -> str:
    """Return what the server said of its failure: its last ``error:`` line with the reason, else its last line."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except OSError as problem:
        return f"its log cannot be read: {problem}"
    told = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if not told:
        return lines[-1] if lines else "it wrote nothing to its log"
    error, *after = lines[told[-1] :]
    why = next((line.removeprefix("why: ") for line in after if line.startswith("why: ")), None)
    return "; ".join(part for part in (error.removeprefix("error: "), why) if part)
