"""One server a folder: whoever serves it holds a lock on its state folder as long as the process lives."""

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

from borough.adapters.credentials.operator import find_server
from borough.core.errors import Conflict

LOCK_FILE = "server.lock"
HOLD_WITHIN_S = 0.5
"""Somebody who only asks whether the town is held has the lock for a moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What is said when somebody holds a folder already."""

    what: str
    code: str
    resolution: str


TOWN = Held(what="this town", code="town_is_served", resolution="use that server, or stop it first: tt stop --server")
DATA_FOLDER = Held(
    what="this data folder",
    code="data_folder_is_served",
    resolution="use that daemon, or stop it first; AGENTD_DATA_DIR names another folder",
)


def hold_town(state_folder: Path) -> int:
    """Make this process the town's one server; see ``hold``."""
    return hold(state_folder, TOWN)


def hold(state_folder: Path, held: Held) -> int:
    """Make this process the folder's one server; return the descriptor that holds it until that is closed.

    Raises:
        Conflict: another process holds it (``held.code``).
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
            raise _refusal(state_folder, held) from None
        return descriptor


def _refusal(state_folder: Path, held: Held) -> Conflict:
    record = find_server(state_folder)
    who = f"pid {record.pid} at {record.address}" if record else "another process, which is still starting"
    return Conflict(f"{held.what} is served already, by {who}", code=held.code, resolution=held.resolution)
