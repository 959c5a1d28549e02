"""Where the embedded server lives: its private folder, its socket, the lock on its data and its log."""

import fcntl
import os
import signal
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from borough.core.errors import Unavailable

MAX_SOCKET_PATH_BYTES = 107
"""``sun_path`` of unix(7), without its final NUL."""
_LOG_TAIL_BYTES = 4096
_MAX_LOG_BYTES = 1_048_576
_DISK_FULL_MARKS = ("No space left on device", "Disk quota exceeded", "Short write while writing to the AOF")
_NO_ROOM_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Why a server ended."""

    reason: str
    disk_full: bool = False


class House:
    """The folder of one embedded server; mode 0700 and ours alone."""

    def __init__(self, directory: Path, *, socket: Path | None = None) -> None:
        self.directory = directory.absolute()
        self.log = self.directory / "valkey.log"
        self.record = self.directory / "server.json"
        """Pid and start time of the server, for whoever must prove what it is."""
        self._lock = self.directory / "data.lock"
        self._wanted_socket = (socket or self.directory / "valkey.sock").absolute()
        self._pointer = self.directory / "socket.path"
        self._log_start = 0

    def open(self) -> None:
        """Make the folder, or check that it is ours."""
        make_private(self.directory)
        make_private(self._wanted_socket.parent, only_if_missing=True)

    def try_lock(self) -> int | None:
        """Return a descriptor that locks the data, or ``None`` when a living process holds the lock.

        The server inherits the descriptor: the lock ends with the last process that works on the data, whatever
        became of its starter, so that two servers can never write the same files.
        """
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def is_held(self) -> bool:
        """Tell whether a living process works on the data."""
        lock = self.try_lock()
        if lock is not None:
            os.close(lock)
        return lock is None

    @property
    def socket(self) -> Path:
        """Where clients reach the server. A path too long for a socket is replaced by the one that was chosen."""
        if _fits(self._wanted_socket):
            return self._wanted_socket
        return self._pointed_socket() or self._wanted_socket

    def choose_socket(self) -> Path:
        """Return where a server is to listen; only for the holder of the lock.

        A path too long for a socket is replaced by one in a private short folder, named in a pointer file.
        """
        if _fits(self._wanted_socket):
            return self._wanted_socket
        known = self._pointed_socket()
        if known is not None:
            return known
        chosen = Path(tempfile.mkdtemp(prefix="borough-", dir=_short_base())) / "s"
        write_private(self._pointer, os.fsencode(chosen))
        return chosen

    def tidy(self) -> None:
        """Remove what a stopped server leaves, the short folder included, unless the next one runs already."""
        if not self.directory.is_dir():
            return
        lock = self.try_lock()
        if lock is None:
            return
        try:
            self._remove_traces()
        finally:
            os.close(lock)

    def _remove_traces(self) -> None:
        self.record.unlink(missing_ok=True)
        if _fits(self._wanted_socket):
            self._wanted_socket.unlink(missing_ok=True)
            return
        chosen = self._pointed_socket()
        self._pointer.unlink(missing_ok=True)
        if chosen is not None:
            chosen.unlink(missing_ok=True)
            chosen.parent.rmdir()

    def open_log(self) -> int:
        """Return a descriptor to append to the log; an old log that has grown long makes room first."""
        if self.log.exists() and self.log.stat().st_size > _MAX_LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.log, flags, 0o600)
        self._log_start = os.fstat(descriptor).st_size
        return descriptor

    def free_bytes(self) -> int:
        """Return how much more the disk takes."""
        room = os.statvfs(self.directory)
        return room.f_bavail * room.f_frsize

    def explain_end(self, exit_code: int | None) -> End:
        """Say why the server ended, from its exit code, the last lines of its log and the room on the disk."""
        return why_it_ended(exit_code, log=self._log_tail(), free_bytes=self.free_bytes(), where=str(self.directory))

    def _log_tail(self) -> str:
        """Return the last lines that the present server wrote; nothing of those before it."""
        try:
            size = self.log.stat().st_size
            with self.log.open("rb") as log:
                log.seek(max(self._log_start if size >= self._log_start else 0, size - _LOG_TAIL_BYTES))
                return log.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def _pointed_socket(self) -> Path | None:
        try:
            chosen = Path(os.fsdecode(self._pointer.read_bytes()))
            is_private = chosen.is_absolute() and _is_private(chosen.parent)
        except FileNotFoundError:
            return None
        return chosen if is_private and _fits(chosen) else None


def why_it_ended(exit_code: int | None, *, log: str, free_bytes: int, where: str) -> End:
    """Say why a server ended; ``exit_code`` is ``None`` for one that was not our child."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    was_killed = exit_code is not None and exit_code < 0
    full_by_log = any(mark in line for line in lines[-8:] for mark in _DISK_FULL_MARKS)
    if full_by_log or (free_bytes < _NO_ROOM_BYTES and not was_killed):
        return End(reason=f"disk full: {free_bytes // 1024} KiB are free in {where}", disk_full=True)
    if exit_code is None:
        return End(reason="it went away")
    if was_killed:
        return End(reason=f"killed by {signal.Signals(-exit_code).name}")
    last = f": {lines[-1]}" if lines else ""
    return End(reason=f"exit code {exit_code}{last}")


def make_private(directory: Path, *, only_if_missing: bool = False) -> None:
    """Make ``directory`` with mode 0700, or check that it is ours and give it that mode.

    Raises:
        Unavailable: it is somebody else's, or no folder (``store_folder_unsafe``).
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        if only_if_missing:
            return
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise Unavailable(
            f"{directory} cannot hold the town's data",
            code="store_folder_unsafe",
            reason="it is not a folder that belongs to this user",
            resolution="move it away, or run the server as the user who owns it",
        )
    if stat.S_IMODE(found.st_mode) != stat.S_IRWXU:
        directory.chmod(stat.S_IRWXU)


def write_private(path: Path, content: bytes) -> None:
    """Write ``path`` whole or not at all, mode 0600."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def started_ticks(pid: int) -> int:
    """Return when a process started, in clock ticks after boot: field 22 of ``/proc/PID/stat`` (proc(5))."""
    content = Path(f"/proc/{pid}/stat").read_text()
    return int(content.rpartition(")")[2].split()[19])


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES


def _is_private(directory: Path) -> bool:
    found = directory.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & 0o077 == 0


def _short_base() -> str:
    """Return a short folder for sockets: the user's own where the session has one."""
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    if own and Path(own).is_dir() and len(os.fsencode(own)) < MAX_SOCKET_PATH_BYTES // 2 and os.access(own, os.W_OK):
        return own
    return "/tmp"  # noqa: S108 - the folder made in it is private and checked at each use
