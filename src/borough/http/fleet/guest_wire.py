"""What goes over the wire of a machine's inside: commands, files, snapshots, use.

Times are in seconds since the epoch; bytes are in base64.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

ExecPart = Annotated[str, Meta(max_length=131_072)]


class Terminal(Struct, kw_only=True, forbid_unknown_fields=True):
    """The size of a terminal."""

    rows: Annotated[int, Meta(ge=1, le=1000)]
    cols: Annotated[int, Meta(ge=1, le=1000)]


class Exec(Struct, kw_only=True, forbid_unknown_fields=True):
    """A command: ``argv``, or a ``command`` line for the machine's own shell."""

    argv: Annotated[list[ExecPart], Meta(max_length=4096)] = []
    command: ExecPart | None = None
    env: dict[str, str] = {}
    cwd: str | None = None
    user: str | None = None
    stdin: bytes = b""
    """In base64."""
    tty: Terminal | None = None
    timeout_s: Annotated[float, Meta(gt=0, le=86_400)] | None = None


class Chunk(Struct, kw_only=True):
    """A line of the answer to a command; the last has ``exit_code``, or ``error`` when it could not be run."""

    stream: Literal["stdout", "stderr", "exit", "error"]
    data: bytes | UnsetType = UNSET
    """In base64."""
    exit_code: int | UnsetType = UNSET
    error: str | UnsetType = UNSET
    code: str | UnsetType = UNSET


class FileEntry(Struct, kw_only=True):
    """One name of a folder."""

    name: str
    path: str
    is_dir: bool
    size: int
    modified: int


class Written(Struct, kw_only=True):
    """How many bytes came."""

    bytes: int


class Stats(Struct, kw_only=True):
    """What a machine uses; what cannot be told is absent."""

    cpu_seconds: float | UnsetType = UNSET
    memory_bytes: int | UnsetType = UNSET
    disk_bytes: int | UnsetType = UNSET
    processes: int | UnsetType = UNSET
    received_bytes: int | UnsetType = UNSET
    sent_bytes: int | UnsetType = UNSET


class TakeSnapshot(Struct, kw_only=True, forbid_unknown_fields=True):
    """Under which name."""

    name: str


class Snapshot(Struct, kw_only=True):
    """A state that can be returned to."""

    name: str
    created_at: int
    size_bytes: int
    with_memory: bool
