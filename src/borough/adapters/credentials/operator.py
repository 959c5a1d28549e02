"""What a server leaves in its state folder so that its owner's programs find it and are let in."""

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

import msgspec

from borough.adapters.credentials import files
from borough.auth.credentials import same_secret
from borough.core.errors import Invalid

TOKEN_FILE = "operator.token"  # noqa: S105 - a file's name
SERVER_FILE = "server.json"
KEY_FILE = "town.key"
_PREFIX = "bop_"
_TOKEN = re.compile(rb"bop_[0-9a-f]{64}\n?")
_KEY_BYTES = 32
_ENDED = frozenset({b"Z", b"X", b"x"})
_START_TIME = 22 - 4
"""Where field 22 of ``/proc/<pid>/stat`` stands among the fields after the state."""


class ServerRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a server listens and which process it is."""

    address: str
    """Its URL, as a client on this machine reaches it."""
    pid: int
    start_ticks: int
    """When the process started, in clock ticks since boot (proc(5)): with the pid, an identity."""
    socket: str | None = None
    """The operators' Unix socket, where governance is served too."""
    fleet: bool = False
    """The fleet's controller is served too."""
    images: str | None = None
    """Where images for this machine lie, if it is a host of that fleet."""


@dataclass(frozen=True, slots=True)
class OperatorToken:
    """The operator's credential, as a server knows it."""

    _secret: str

    def matches(self, secret: str) -> bool:
        """Tell whether ``secret`` is it, in a time that tells nothing else."""
        return same_secret(secret, self._secret)

    def reveal(self) -> str:
        """Return it, for a client's header."""
        return self._secret

    def __repr__(self) -> str:
        return "OperatorToken(****)"


def operator_token(state_folder: Path) -> OperatorToken:
    """Return the operator's credential of a server, made if it is not there.

    Raises:
        Invalid: the file is not safe (``unsafe_file``) or holds something else (``damaged_file``).
    """
    path = state_folder / TOKEN_FILE
    content = files.private_content(path, _new_token)
    return _parsed(content, path)


def find_operator_token(state_folder: Path) -> OperatorToken | None:
    """Return the operator's credential if a server left one; raises as ``operator_token``."""
    path = state_folder / TOKEN_FILE
    content = files.read_private(path)
    return None if content is None else _parsed(content, path)


def town_key(state_folder: Path) -> bytes:
    """Return the key that signs workers' tokens, made if it is not there.

    Raises:
        Invalid: the file is not safe (``unsafe_file``) or has another length (``damaged_file``).
    """
    path = state_folder / KEY_FILE
    content = files.private_content(path, lambda: secrets.token_bytes(_KEY_BYTES))
    if len(content) != _KEY_BYTES:
        raise _damaged(path)
    return content


def announce_server(
    state_folder: Path,
    address: str,
    *,
    pid: int | None = None,
    socket: Path | None = None,
    images: Path | None = None,
) -> ServerRecord:
    """Write where this process (or ``pid``) serves, and at which ``socket`` operators may speak to it.

    ``images`` is the folder of images of a server that is the fleet's controller and its first host.

    Raises:
        Invalid: the folder is not safe (``unsafe_file``), or there is no such process (``no_process``).
    """
    process = os.getpid() if pid is None else pid
    ticks = process_start_ticks(process)
    if ticks is None:
        raise Invalid(f"there is no process {process}", code="no_process", resolution="name one that runs")
    told = None if socket is None else str(socket)
    record = ServerRecord(
        address=address,
        pid=process,
        start_ticks=ticks,
        socket=told,
        fleet=images is not None,
        images=None if images is None else str(images),
    )
    files.replace_file(state_folder / SERVER_FILE, msgspec.json.encode(record) + b"\n", mode=files.PRIVATE)
    return record


def find_server(state_folder: Path) -> ServerRecord | None:
    """Return the record of a server that still runs, or ``None``.

    Raises:
        Invalid: the file is not safe (``unsafe_file``) or not a record (``damaged_file``).
    """
    path = state_folder / SERVER_FILE
    content = files.read_public(path)
    if content is None:
        return None
    try:
        record = msgspec.json.decode(content, type=ServerRecord)
    except msgspec.MsgspecError:
        raise _damaged(path) from None
    return record if process_start_ticks(record.pid) == record.start_ticks else None


def withdraw_server(state_folder: Path, record: ServerRecord) -> bool:
    """Remove the record if it is still this one; return whether it was removed."""
    own = msgspec.json.encode(record) + b"\n"
    return files.remove_file(state_folder / SERVER_FILE, holding=lambda content: content == own)


def process_start_ticks(pid: int) -> int | None:
    """Return when process ``pid`` started, in clock ticks since boot, or ``None`` when there is none."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold blanks and parentheses itself; field 3, the state, follows the last one.
    state, *fields = line[line.rindex(b")") + 2 :].split()
    return None if state in _ENDED else int(fields[_START_TIME])


def _new_token() -> bytes:
    return f"{_PREFIX}{secrets.token_hex(32)}\n".encode()


def _parsed(content: bytes, path: Path) -> OperatorToken:
    if not _TOKEN.fullmatch(content):
        raise _damaged(path)
    return OperatorToken(content.decode().strip())


def _damaged(path: Path) -> Invalid:
    return Invalid(
        f"{path} does not hold what it should",
        code="damaged_file",
        resolution=f"stop the town's server, remove the file (rm {path}) and start again: a new one is made",
    )
