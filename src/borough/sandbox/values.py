"""What sandboxes answer with."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """How a command ended and what it printed."""

    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """One name of a folder."""

    name: str
    path: str
    is_dir: bool
    size_bytes: int
    modified_at: int
    """Seconds since the epoch."""
