"""Whose processes run here: who is who, who belongs to whom, and an end that is proven. Starts none.

A pid alone proves nothing, since the kernel gives it out again; pid and start time together do (proc(5), field 22 of
``stat``). Ownership is an environment variable: every descendant inherits it, also one that forked twice and left
its session, so a reaper finds them all in ``/proc/*/environ``.

Only the standard library is imported, since this file is also a program of its own: run by its path with a marker as
argument it is a *guard*, which waits until its standard input ends and then ends everything that carries the marker.
A worker holds the other end, so that whatever kills the worker also ends what the worker had started.
"""

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

OWNER = "BOROUGH_OWNER"
"""Environment variable of a worker and all its descendants: ``<agent id>:<incarnation>``."""
ATTEMPT = "BOROUGH_ATTEMPT"
"""Environment variable of an agent CLI and all its descendants: ``<task id>:<epoch>``."""
GUARD_GRACE_S = 2.0
_LISTINGS = 5
_KILLED_WITHIN_S = 10.0
_STATE, _PARENT, _STARTED = 0, 1, 19  # positions in ``stat`` after the command's closing parenthesis


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """One process and no other: the pid, and the clock tick after boot at which it was started."""

    pid: int
    started_ticks: int


@dataclass(frozen=True, slots=True)
class Marker:
    """What owned processes carry in their environment. A ``value`` that ends in ``:`` covers all that begin so."""

    name: str
    value: str

    def matches(self, environ: bytes) -> bool:
        """Tell whether an ``environ`` file's content carries this marker."""
        wanted = f"{self.name}={self.value}".encode()
        begins = self.value.endswith(":")
        return any(entry.startswith(wanted) if begins else entry == wanted for entry in environ.split(b"\0") if entry)


def identify(pid: int) -> ProcessRef | None:
    """Return who ``pid`` is now, or ``None`` when it is nobody or a zombie."""
    fields = _stat(pid)
    return ProcessRef(pid, int(fields[_STARTED])) if fields else None


def myself() -> ProcessRef:
    """Return who is asking."""
    ref = identify(os.getpid())
    if ref is None:
        raise OSError("/proc/self/stat cannot be read; is /proc mounted?")
    return ref


def is_alive(ref: ProcessRef) -> bool:
    """Tell whether this very process still runs. A zombie does not."""
    return identify(ref.pid) == ref


def owned(marker: Marker) -> list[ProcessRef]:
    """Return every process but the caller that carries ``marker`` and that the caller may inspect."""
    found = []
    for pid in _pids():
        ref = identify(pid)
        if ref is not None and marker.matches(_environ(pid)):
            found.append(ref)
    return found


def marker_value(ref: ProcessRef, name: str) -> str | None:
    """Return the value under which ``ref`` carries the marker ``name``."""
    wanted = f"{name}=".encode()
    values = [entry[len(wanted) :] for entry in _environ(ref.pid).split(b"\0") if entry.startswith(wanted)]
    return values[0].decode() if values and is_alive(ref) else None


def command_lines() -> Iterator[tuple[ProcessRef, list[str]]]:
    """Yield every process but the caller with what it was started as."""
    for pid in _pids():
        ref = identify(pid)
        if ref is None:
            continue
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123 - as below
                words = file.read().split(b"\0")[:-1]
        except (FileNotFoundError, ProcessLookupError):
            continue
        yield ref, [os.fsdecode(word) for word in words]


def collected(wake: int) -> Iterator[tuple[int, int]]:
    """Yield the children of this process that have ended, each with its wait status (wait(2)).

    ``wake``: the descriptor, never blocking, by which their signals wake a loop; it is read empty.
    """
    with contextlib.suppress(BlockingIOError):  # called after another event, or collected with another
        os.read(wake, 4096)
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def descendants(of: int) -> list[ProcessRef]:
    """Return the processes below pid ``of``: its children, theirs, and so on."""
    children: dict[int, list[ProcessRef]] = {}
    for pid in _pids():
        if fields := _stat(pid):
            children.setdefault(int(fields[_PARENT]), []).append(ProcessRef(pid, int(fields[_STARTED])))
    found: list[ProcessRef] = []
    waiting = [of]
    while waiting:
        below = children.pop(waiting.pop(), [])
        found += below
        waiting += [ref.pid for ref in below]
    return found


def tell(refs: Iterable[ProcessRef], number: signal.Signals) -> None:
    """Send a signal to exactly these processes; those that are gone are passed over."""
    for ref in refs:
        with _handle(ref) as handle:
            if handle is not None:
                with contextlib.suppress(ProcessLookupError):  # it ended between the look and the signal: as wished
                    signal.pidfd_send_signal(handle, number)


def catches(ref: ProcessRef, number: signal.Signals) -> bool:
    """Tell whether a process does something of its own on a signal (proc(5), ``SigCgt``)."""
    try:
        with open(f"/proc/{ref.pid}/status", "rb") as file:  # noqa: PTH123 - as below
            caught = next(line.split()[1] for line in file if line.startswith(b"SigCgt:"))
    except (FileNotFoundError, ProcessLookupError, StopIteration):
        return False
    return bool(int(caught, 16) >> (number - 1) & 1) and is_alive(ref)


def wait_gone(refs: Iterable[ProcessRef], *, within_s: float) -> list[ProcessRef]:
    """Wait until these processes have ended; return those that had not by then."""
    deadline = time.monotonic() + within_s
    left = []
    for ref in refs:
        with _handle(ref) as handle:
            if handle is None:
                continue
            poller = select.poll()
            poller.register(handle, select.POLLIN)
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                left.append(ref)
    return left


def end_all(find: Callable[[], list[ProcessRef]], *, grace_s: float) -> list[ProcessRef]:
    """End whatever ``find`` returns, and what that forks meanwhile: TERM, after ``grace_s`` KILL, until none is left.

    Returns the survivors, which is an empty list unless the kernel itself will not let go of one.
    """
    refs = find() or find()  # twice, as below
    if not refs:
        return []
    tell(refs, signal.SIGTERM)
    tell(refs, signal.SIGCONT)  # a frozen process sees its TERM only once it runs again
    wait_gone(refs, within_s=grace_s)
    deadline = time.monotonic() + _KILLED_WITHIN_S
    empty_looks = 0
    # Two looks, since a process that forks while one look passes can hide its child from that look.
    while empty_looks < 2:  # noqa: PLR2004 - explained above
        refs = find()
        if not refs:
            empty_looks += 1
            continue
        empty_looks = 0
        if time.monotonic() > deadline:
            return refs
        tell(refs, signal.SIGKILL)
        wait_gone(refs, within_s=1.0)
    return []


def reap(marker: Marker, *, grace_s: float) -> list[ProcessRef]:
    """End every process that carries ``marker`` and prove that none is left; return the survivors."""
    return end_all(lambda: owned(marker), grace_s=grace_s)


def _pids() -> Iterator[int]:
    """Yield processes, the newest first, and then those that came meanwhile.

    One that keeps forking is there for a moment only, and under the last pid: in the order of the list it is gone
    whenever its turn comes.
    """
    seen = {os.getpid()}
    for _ in range(_LISTINGS):
        fresh = {int(name) for name in os.listdir("/proc") if name.isdigit()} - seen  # noqa: PTH208 - as below
        yield from sorted(fresh, reverse=True)
        seen |= fresh


def _stat(pid: int) -> list[bytes] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - pathlib would double the guard's memory
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[_STATE] in (b"Z", b"X") else fields


def _environ(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123 - as above
            return file.read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""  # gone, or another user's: not ours


@contextlib.contextmanager
def _handle(ref: ProcessRef) -> Iterator[int | None]:
    """Yield a pidfd of exactly ``ref``, or ``None`` when it has ended: what is done with it cannot hit a stranger."""
    try:
        handle = os.pidfd_open(ref.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield handle if is_alive(ref) else None
    finally:
        os.close(handle)


def _guard(marker: Marker) -> int:
    guarded = identify(os.getppid())  # it carries the marker too, and may well close its end while it still runs
    while os.read(0, 4096):
        continue
    find = partial(_all_but, guarded, marker)
    return 1 if end_all(find, grace_s=GUARD_GRACE_S) else 0


def _all_but(spared: ProcessRef | None, marker: Marker) -> list[ProcessRef]:
    return [ref for ref in owned(marker) if ref != spared]


if __name__ == "__main__":
    sys.exit(_guard(Marker(*sys.argv[1].split("=", 1))))
