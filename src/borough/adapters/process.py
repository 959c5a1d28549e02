"""The only place that starts a process: an argument list, a session of its own, never a shell.

Nothing here asks the kernel for a signal on the parent's death (``PR_SET_PDEATHSIG``): it follows the parent's
*thread*, is lost at the next fork, and would have to be set between fork and exec of a threaded program. What must
not outlive a worker is ended by that worker's guard (``procfs``); what may outlive its server (workers, the embedded
store) is found again by pid and start time.
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from borough.adapters import procfs
from borough.adapters.procfs import (
    ATTEMPT,
    OWNER,
    Marker,
    ProcessRef,
    descendants,
    identify,
    is_alive,
    marker_value,
    myself,
    owned,
)
from borough.core.errors import Unavailable

__all__ = [
    "ATTEMPT",
    "NOTHING",
    "OWNER",
    "PIPE",
    "Child",
    "Finished",
    "Marker",
    "ProcessRef",
    "adopt_orphans",
    "collect_orphans",
    "descendants",
    "end",
    "identify",
    "is_alive",
    "marker_value",
    "myself",
    "owned",
    "reap",
    "run",
    "start",
    "start_guard",
    "start_server",
    "without_secrets",
]

PIPE: Final = subprocess.PIPE
NOTHING: Final = subprocess.DEVNULL

SECRET_VARIABLES: Final = frozenset(
    {
        "REDIS_URL",
        "TINYTOWN_REDIS_PASSWORD",
        "TINYTOWN_TOKEN_FILE",
        "TINYTOWN_TOWNHALL_API_KEY",
        "TINYTOWN_TOWNHALL_API_KEY_PATH",
        "TT_API_KEY",
    }
)
"""The server's own credentials; nothing that it starts inherits them, nor any variable named ``BOROUGH_…``."""

_PR_SET_CHILD_SUBREAPER = 36
_MOST_WORDS = 2000


class Child:
    """A process that we started. Keep it: it is what collects the exit status."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self.popen = popen
        # A child that ended at once is a zombie of ours: the pid is still taken, its start time no longer of interest.
        self.ref = identify(popen.pid) or ProcessRef(popen.pid, -1)

    @property
    def pid(self) -> int:
        """Its pid, which is also the id of its session and process group."""
        return self.popen.pid

    def poll(self) -> int | None:
        """Return the exit status if it has ended (negative: the signal), and collect it."""
        return self.popen.poll()

    def terminate(self) -> None:
        """Ask it to end."""
        self.popen.terminate()

    def kill(self) -> None:
        """End it."""
        self.popen.kill()

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for its end and return the exit status; raises ``subprocess.TimeoutExpired``."""
        return self.popen.wait(timeout_s)


def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.STDOUT,
    pass_fds: Sequence[int] = (),
    umask: int = -1,
) -> Child:
    """Start ``argv`` in a session and process group of its own, with exactly ``env`` and, open, ``pass_fds``.

    ``umask`` -1 is ours.

    Raises:
        Unavailable: there is no such program (``program_missing``) or it cannot be started (``launch_failed``).
    """
    try:
        popen = subprocess.Popen(  # noqa: S603 - an argument list, no shell; callers choose what runs
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            bufsize=0,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
            umask=umask,
        )
    except (OSError, ValueError) as failure:
        raise _not_started(argv, cwd, failure) from failure
    return Child(popen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A command that has ended."""

    argv: tuple[str, ...]
    code: int
    """Its exit status; negative: the signal."""
    stdout: bytes
    stderr: bytes

    @property
    def words(self) -> str:
        """Return what it said last, in one line: its errors, or else its output."""
        said = (self.stderr.strip() or self.stdout.strip()).decode(errors="replace")
        return " ".join(said.split())[-_MOST_WORDS:] or f"exit status {self.code}"


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    stdin: bytes = b"",
    cwd: Path | None = None,
    timeout_s: float = 60.0,
    pass_fds: Sequence[int] = (),
) -> Finished:
    """Run ``argv`` to its end and return what it said. Blocks: call it in a thread.

    Raises:
        Unavailable: there is no such program (``program_missing``), it cannot be started (``launch_failed``), or it
            did not end within ``timeout_s`` and was ended (``command_stalled``).
    """
    child = start(
        argv, env=env, cwd=cwd, stdin=PIPE, stdout=PIPE, stderr=subprocess.PIPE, pass_fds=pass_fds
    )  # fmt: skip
    with child.popen as popen:
        try:
            stdout, stderr = popen.communicate(stdin, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            end(child.ref, grace_s=1.0)
            raise Unavailable(
                f"{argv[0]} did not end within {timeout_s:g} s",
                code="command_stalled",
                reason=f"it was run as: {' '.join(argv)[:_MOST_WORDS]}",
                resolution="run it by hand to see what it waits for",
            ) from None
        except BaseException:
            popen.kill()
            raise
    return Finished(argv=tuple(argv), code=popen.returncode, stdout=stdout, stderr=stderr)


def start_server(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: Path | int,
    pass_fds: Sequence[int] = (),
    umask: int = -1,
) -> Child:
    """Start a long-lived server whose output is appended to ``log`` (a path, or an open file)."""
    if isinstance(log, int):
        return start(argv, env=env, cwd=cwd, stdout=log, pass_fds=pass_fds, umask=umask)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        return start(argv, env=env, cwd=cwd, stdout=file, pass_fds=pass_fds, umask=umask)
    finally:
        os.close(file)


def start_guard(marker: Marker) -> Child:
    """Start a guard for this process: when we end, however we end, it ends all that carries ``marker``.

    The guard carries no marker itself. Its standard input is the lifeline: keep the child, and close nothing.
    """
    argv = [sys.executable, "-I", "-S", procfs.__file__, f"{marker.name}={marker.value}"]
    return start(argv, env={}, cwd=Path("/"), stdin=subprocess.PIPE)


def end(ref: ProcessRef, *, grace_s: float) -> None:
    """End one process and all below it: TERM, after ``grace_s`` KILL. One that has ended already: nothing happens.

    Raises:
        Unavailable: the kernel does not let go of it (``process_survives``).
    """

    def find() -> list[ProcessRef]:
        return [one for one in known if is_alive(one)]

    known = [ref, *procfs.descendants(ref.pid)] if is_alive(ref) else []
    _prove(procfs.end_all(find, grace_s=grace_s))


def reap(marker: Marker, *, grace_s: float, also: Callable[[], list[ProcessRef]] = list) -> None:
    """End every process that carries ``marker``, and those that ``also`` finds; return once none is left.

    Raises:
        Unavailable: the kernel does not let go of one (``process_survives``).
    """

    def find() -> list[ProcessRef]:
        return list({*owned(marker), *also()})

    _prove(procfs.end_all(find, grace_s=grace_s))


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose own parent ends (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER is refused")


def collect_orphans(*, but: set[int]) -> None:
    """Collect the exit status of adopted descendants that have ended; ``but`` are children that others wait for."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in but:
            return
        os.waitpid(ended.si_pid, 0)


def without_secrets(env: Mapping[str, str]) -> dict[str, str]:
    """Return ``env`` without the server's own credentials and markers."""
    return {name: value for name, value in env.items() if name not in SECRET_VARIABLES and name[:8] != "BOROUGH_"}


def _prove(survivors: list[ProcessRef]) -> None:
    if survivors:
        pids = ", ".join(str(ref.pid) for ref in survivors)
        raise Unavailable(
            f"processes {pids} do not end",
            code="process_survives",
            reason="they were sent SIGKILL and still exist; usually they wait for a device or a network file system",
            resolution="see /proc/PID/wchan for what they wait for",
        )


def _not_started(argv: Sequence[str], cwd: Path | None, failure: Exception) -> Unavailable:
    if cwd is not None and not cwd.is_dir():
        return Unavailable(
            f"{argv[0]} cannot be started in {cwd}: no such directory",
            code="launch_failed",
            resolution="create the directory, or set another working directory for this program",
        )
    if isinstance(failure, FileNotFoundError | NotADirectoryError):
        return Unavailable(
            f"there is no program {argv[0]!r} on this machine",
            code="program_missing",
            reason="it was not found in PATH",
            resolution=f"install {argv[0]!r} where the worker runs, or choose another agent CLI",
        )
    return Unavailable(
        f"{argv[0]} cannot be started: {failure}",
        code="launch_failed",
        resolution="check that the file is executable and that this machine has free processes and memory",
    )
