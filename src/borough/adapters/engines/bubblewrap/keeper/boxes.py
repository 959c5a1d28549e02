"""One box, from the keeper's side: bubblewrap with a holder in it, then the program, its output, and its end."""

import fcntl
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from borough.adapters import procfs, system_calls
from borough.adapters.engines.bubblewrap.keeper.entering import Entrance, Entry, Stdio

READY, GATE = 3, 4
"""Descriptors of the holder: one to say that the box is set up, one to wait on until the box is to end."""
ARGUMENTS, STATUS, FIRST_DATA = 10, 11, 12
"""Descriptors of bubblewrap: its arguments, where it tells how things stand, and the first of those they name."""
HOLDER = ("/bin/sh", "-c", f"echo >&{READY}; exec {READY}>&-; read -r end <&{GATE}")
"""Says that the box is set up, then waits: the box lasts as long as it does, and it as long as the keeper."""
_FIRST_PROCESS = re.compile(rb'"child-pid": *(\d+)\D')
_ROOM = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is needed to set a box up, and the program that then runs in it."""

    box: str
    bubblewrap: str
    marker: Mapping[str, str]
    """The environment of bubblewrap itself: by it a reaper knows whose it is."""
    identity: tuple[int, int] | None
    """The user and group, of the host, that the box belongs to; ``None``: the keeper's own."""
    entry: Entry
    log_limit_bytes: int
    """How much output is kept; of a box without a log it is passed on as it is."""
    lasts: bool
    """Whether it goes on when the daemon ends."""
    at_once: bool
    """Whether the program is started as soon as the box stands, without waiting for word that it may."""
    record: str
    """The file to write its end into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Bubblewrap itself, as a process becomes it."""

    path: str
    marker: Mapping[str, str]
    identity: tuple[int, int] | None
    """See ``Plan``."""


Begin = Callable[[Program, Mapping[int, int]], int | None]
"""Has bubblewrap begun with descriptors at their places; returns its pid, ``None`` if that cannot be done."""


def become(program: Program, wanted: Mapping[int, int], keeper: int) -> None:
    """Be bubblewrap, in a fork of ``keeper``, with descriptors at the places where they are wanted; never return."""
    try:
        # Until it carries the marker, nothing but this ends it with a keeper that is killed right now.
        system_calls.end_with_parent(signal.SIGKILL, parent=keeper)
        os.setsid()
        high = {place: fcntl.fcntl(given, fcntl.F_DUPFD_CLOEXEC, _ROOM) for place, given in wanted.items()}
        high[1] = high[0]
        for place, descriptor in high.items():
            os.dup2(descriptor, place)
        # Up to the next thousand is enough: whatever we opened is close-on-exec anyway.
        for place in range(3, FIRST_DATA + len(wanted) + 1):
            if place not in wanted:
                os.closerange(place, place + 1)
        if program.identity is not None:
            uid, gid = program.identity
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            system_calls.end_with_parent(signal.SIGKILL, parent=keeper)  # a change of user forgets it
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        argv = ["bwrap", "--args", str(ARGUMENTS), "--", *HOLDER]
        os.execve(program.path, argv, dict(program.marker))  # noqa: S606 - a fork becomes it
    except BaseException as failure:  # noqa: BLE001 - a fork must end here whatever happened, and says what
        os.write(2, f"bubblewrap cannot be started: {failure}".encode())
    finally:
        os._exit(127)


def _begun(program: Program, wanted: Mapping[int, int]) -> int:
    keeper = os.getpid()
    pid = os.fork()
    if pid == 0:
        become(program, wanted, keeper)
    return pid


class Box:
    """A box that is set up, runs or ends."""

    def __init__(
        self,
        plan: Plan,
        descriptors: Mapping[str, int],
        data: Sequence[int],
        *,
        has_entrance: bool = True,
        begin: Begin | None = None,
    ) -> None:
        """Start bubblewrap; ``descriptors`` are ``arguments`` and what there is of stdin, stdout, stderr, log.

        ``has_entrance``: whether the box lets its program in itself, or somebody else does; ``begin``: how a child of
        ours that waits is told to become bubblewrap.
        """
        self.plan = plan
        self.inner: procfs.ProcessRef | None = None
        self.inner_handle = -1
        self.program: procfs.ProcessRef | None = None
        self.ended: int | None = None
        """The wait status of the program."""
        self.told_to_end = False
        self.complaint = b""
        """What bubblewrap wrote before the box was set up."""
        self._told = b""
        self.began = time.monotonic()
        self.log = Log(descriptors["log"], plan.log_limit_bytes) if "log" in descriptors else None
        self.status_r, status_w = os.pipe()
        self.ready_r, ready_w = os.pipe()
        gate_r, self.gate_w = os.pipe()
        self.complaint_r, complaint_w = os.pipe()
        for readable in (self.status_r, self.ready_r, self.complaint_r):
            os.set_blocking(readable, False)
        wanted = {
            0: os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC), 2: complaint_w, READY: ready_w, GATE: gate_r,
            ARGUMENTS: descriptors["arguments"], STATUS: status_w,
            **{FIRST_DATA + place: descriptor for place, descriptor in enumerate(data)},
        }  # fmt: skip
        program = Program(path=plan.bubblewrap, marker=plan.marker, identity=plan.identity)
        self.pid = (begin and begin(program, wanted)) or _begun(program, wanted)
        self._group = self.pid
        for descriptor in wanted.values():
            os.close(descriptor)
        self.entrance: Entrance | None = None
        if has_entrance:
            with self.stdio(descriptors) as stdio:
                self.entrance = Entrance(plan.entry, stdio)

    @contextmanager
    def stdio(self, descriptors: Mapping[str, int]) -> Iterator[Stdio]:
        """Yield what the program is given of ``descriptors``, and the log's beginning; to be used once."""
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        output = os.dup(null) if self.log is None else self.log.begin()
        given = {name: descriptors[name] for name in ("stdin", "stdout", "stderr") if name in descriptors}
        try:
            yield given.get("stdin", null), given.get("stdout", output), given.get("stderr", output)
        finally:
            for descriptor in (null, output, *given.values()):
                os.close(descriptor)

    def read_status(self) -> bool:
        """Take in who the box's first process is; it is told in pieces. Tell whether that is settled now."""
        part = os.read(self.status_r, 4096)
        self._told += part
        known = _FIRST_PROCESS.search(self._told)
        if known is None:
            return not part
        self.inner = procfs.identify(int(known[1]))
        if self.inner is not None:
            self.inner_handle = os.pidfd_open(self.inner.pid)
        return True

    def start(self) -> procfs.ProcessRef:
        """Let the program run; raises ``OSError``."""
        if self.inner is None or self.program is not None or self.entrance is None:
            raise OSError("the box is not set up, or runs already")
        return self.runs(self.entrance.enter(self.inner.pid))

    def runs(self, pid: int) -> procfs.ProcessRef:
        """Note that the program runs, as ``pid``."""
        self.program = procfs.identify(pid) or procfs.ProcessRef(pid, -1)
        return self.program

    def kill(self) -> None:
        """End everything in the box at once: its first process's end is the end of all."""
        self.told_to_end = True
        if self.inner_handle >= 0:
            try:
                signal.pidfd_send_signal(self.inner_handle, signal.SIGKILL)
            except ProcessLookupError:
                return
        else:
            self._kill_half_made()

    def _kill_half_made(self) -> None:
        """End bubblewrap with the first process that it may have made and not told of: that would wait for it forever.

        Both are in one process group. Its pid is our child's, not yet collected, so it is nobody else's.
        """
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # the fork did not get that far
            os.kill(self.pid, signal.SIGKILL)

    def leaves_half_made(self) -> bool:
        """Tell whether there still is a first process that bubblewrap, which has ended, made and did not tell of."""
        if self.inner is not None:
            return False
        try:
            os.killpg(self._group, 0)
        except ProcessLookupError:
            return False
        return True

    def close(self) -> None:
        """Let go of everything; the box has ended."""
        open_ones = (self.status_r, self.ready_r, self.gate_w, self.complaint_r, self.inner_handle)
        for descriptor in open_ones:
            if descriptor >= 0:
                os.close(descriptor)
        if self.entrance is not None:
            self.entrance.close()
        if self.log is not None:
            self.log.close()

    def write_record(self) -> None:
        """Keep how it ended, in one step, for a daemon that comes later."""
        draft = f"{self.plan.record}.new"
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, json.dumps({"status": self.ended}).encode())
        finally:
            os.close(file)
        os.replace(draft, self.plan.record)  # noqa: PTH105 - pathlib would cost start-up time


@dataclass(slots=True)
class Log:
    """The file that output goes to, up to a size; then one line says that there was more."""

    file: int
    limit_bytes: int
    pipe_r: int = -1
    written: int = field(default=0)
    full: bool = False

    def begin(self) -> int:
        """Return the descriptor that the program writes to; ours is ``pipe_r``."""
        self.pipe_r, pipe_w = os.pipe()
        os.set_blocking(self.pipe_r, False)
        self.written = os.fstat(self.file).st_size
        return pipe_w

    def pump(self) -> bool:
        """Move what is there into the file; tell whether more may come."""
        try:
            part = os.read(self.pipe_r, 65536)
        except BlockingIOError:
            return True
        if not part:
            return False
        kept = part[: max(0, self.limit_bytes - self.written)]
        self.written += len(kept)
        _write_all(self.file, kept)
        if len(kept) < len(part) and not self.full:
            self.full = True
            _write_all(self.file, f"\n[the log is full at {self.limit_bytes} bytes; the rest is dropped]\n".encode())
        return True

    def close(self) -> None:
        """Close the file and the pipe."""
        os.close(self.file)
        if self.pipe_r >= 0:
            os.close(self.pipe_r)


def _write_all(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]
