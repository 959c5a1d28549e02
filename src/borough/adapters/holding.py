"""One server a town: whoever serves it holds a lock on its state folder as long as the process lives."""

import fcntl
import os
import time
from pathlib import Path

from borough.adapters.credentials.operator import find_server
from borough.core.errors import Conflict

LOCK_FILE = "server.lock"
HOLD_WITHIN_S = 0.5
"""Somebody who only asks whether the town is held has the lock for a moment."""


def hold_town(state_folder: Path) -> int:
    """Make this process the town's one server; return the descriptor that holds the town until it is closed.

    Raises:
        Conflict: another process holds it (``town_is_served``).
    """
    descriptor = os.open(state_folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + HOLD_WITHIN_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            os.close(descriptor)
            raise _held(state_folder) from None
        return descriptor


def _held(state_folder: Path) -> Conflict:
    record = find_server(state_folder)
    who = f"pid {record.pid} at {record.address}" if record else "another process, which is still starting"
    return Conflict(
        f"this town is served already, by {who}",
        code="town_is_served",
        resolution="use that server, or stop it first: tt stop --server",
    )
