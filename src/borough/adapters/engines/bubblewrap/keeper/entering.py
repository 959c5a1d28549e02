"""How a program gets into a box: a child of the keeper enters the box's namespaces, is confined, and becomes it."""

import fcntl
import json
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from borough.adapters import system_calls

_NAMESPACES = ("cgroup", "net", "ipc", "uts", "pid", "mnt")
_HIGHEST_DESCRIPTOR = 0x7FFFFFFF
RESET = (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGXFSZ, signal.SIGHUP)
"""Signals that a program is to find as if it were the first."""


Stdio = tuple[int, int, int]
"""Descriptors of standard input, output and errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Landlock:
    """A ruleset: what it handles, and what is allowed beneath which paths of the box."""

    attributes: bytes
    rules: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A program that is to run in a box."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    uid: int
    gid: int
    """Inside the box."""
    limits: Sequence[tuple[int, int]]
    """Resource limits (setrlimit(2)) and what they are."""
    groups: Sequence[str]
    """The ``cgroup.procs`` files of the control groups to join."""
    landlock: Landlock | None
    seccomp: bytes
    lowers_groups: bool
    """Whether supplementary groups are given up first; only root can."""


class Entrance:
    """A child that is ready to bring a program into a box, made while the box is still being set up."""

    def __init__(self, entry: Entry, stdio: Stdio) -> None:
        order_r, self._order_w = os.pipe()
        self._pid_r, pid_w = os.pipe()
        self._failure_r, failure_w = os.pipe()
        self._ordered = False
        self._child = os.fork()
        if self._child == 0:
            _in_child(entry, stdio, (order_r, pid_w, failure_w))
        self._handle = os.pidfd_open(self._child)
        for descriptor in (order_r, pid_w, failure_w):
            os.close(descriptor)

    def enter(self, inner: int) -> int:
        """Start the program in the box whose first process is ``inner``; return its pid once it runs its own code.

        Raises:
            OSError: it could not be started; the text says at which step.
        """
        self._ordered = True
        with suppress(BrokenPipeError):  # the child has failed already, and says how
            os.write(self._order_w, str(inner).encode())
        pid = int(_whole(self._pid_r) or b"0")
        failure = _whole(self._failure_r)  # ends when the program was begun, since it is closed by that
        self.close()
        if failure or not pid:
            if pid:
                os.waitpid(pid, 0)
            number, step = json.loads(failure) if failure else (0, "the child ended before it began")
            raise OSError(number, f"{step}: {os.strerror(number)}" if number else step)
        return pid

    def close(self) -> None:
        """End the child, if it still waits; closing twice is fine."""
        if self._child < 0:
            return
        if not self._ordered:
            with suppress(ProcessLookupError):  # it has failed and ended by itself
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        for descriptor in (self._order_w, self._pid_r, self._failure_r, self._handle):
            os.close(descriptor)
        with suppress(ChildProcessError):  # collected with others that ended
            os.waitpid(self._child, 0)
        self._child = -1


def join_groups(groups: Sequence[str]) -> None:
    """Move this process into control groups."""
    for group in groups:
        file = os.open(group, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(file, b"0")
        finally:
            os.close(file)


def _in_child(entry: Entry, stdio: Stdio, pipes: tuple[int, int, int]) -> None:
    """Run in a fork of the keeper; never return. ``pipes``: where the order comes, where pid and failure go."""
    order_r, pid_w, failure_w = pipes
    step = "joining control groups"
    try:
        # Ends of pipes to other boxes are among them: held here, they would hide the end of our parent from those.
        signal.set_wakeup_fd(-1)
        close_all_but({0, 1, 2, *stdio, order_r, pid_w, failure_w})
        join_groups(entry.groups)
        if entry.lowers_groups:
            os.setgroups([])
        order = os.read(order_r, 32)
        if not order:
            os._exit(0)  # the box could not be set up, or the keeper is gone: nothing may run
        step = "entering the box"
        enter_namespaces(int(order))
        step = "starting a process in the box"
        pid = os.fork()
        if pid:
            os.write(pid_w, str(pid).encode())
            os._exit(0)
        step = "confining the process"
        take_over(stdio, keep=failure_w)
        confine(entry)
        step = f"running {entry.argv[0]}"
        _execute(entry)
    except BaseException as failure:  # noqa: BLE001 - a fork must end here whatever happened, and says what
        number = failure.errno if isinstance(failure, OSError) else None
        where = step if number else f"{step}: {failure!r}"
        os.write(failure_w, json.dumps([number or 0, where]).encode())
    finally:
        os._exit(127)


def enter_namespaces(inner: int, *, in_network: Callable[[], None] | None = None) -> None:
    """Enter all namespaces of the box; ``in_network`` is done when its network is entered and its files are not yet.

    They are owned by an outer one of the box's two user namespaces (bubblewrap nests a second one, in which no more
    can be made), and only with the rights of that owner they can be entered.
    """
    opened = {kind: os.open(f"/proc/{inner}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in (*_NAMESPACES, "user")}
    owner = fcntl.ioctl(opened["mnt"], system_calls.NS_GET_USERNS)
    # A network that was made for the box by root is not the owner's; whoever is in it already needs not enter it.
    shared = {kind for kind in _NAMESPACES if _is_ours(kind, opened[kind])}
    system_calls.set_namespace(owner)
    for kind in _NAMESPACES:
        if kind in shared:
            continue
        system_calls.set_namespace(opened[kind])
        if kind == "net" and in_network is not None:
            in_network()
    if os.fstat(owner).st_ino != os.fstat(opened["user"]).st_ino:
        system_calls.set_namespace(opened["user"])
    for descriptor in (*opened.values(), owner):
        os.close(descriptor)


def _is_ours(kind: str, descriptor: int) -> bool:
    return os.fstat(descriptor).st_ino == os.stat(f"/proc/self/ns/{kind}").st_ino  # noqa: PTH116 - start-up time


def take_over(stdio: Stdio, *, keep: int | None = None) -> None:
    """Lead a session of our own with ``stdio`` and the signals of a fresh process; of all else open ``keep`` stays."""
    os.setsid()
    # Two steps, so that no descriptor is overwritten before its turn.
    kept = [] if keep is None else [keep]
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10) for descriptor in (*stdio, *kept)]
    for place, descriptor in enumerate(moved[:3]):
        os.dup2(descriptor, place)
    for place in kept:
        os.dup2(moved[3], place, inheritable=False)
    close_all_but({0, 1, 2, *kept})
    for number in RESET:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def confine(entry: Entry) -> None:
    """Become who runs ``entry``, where and within which limits, without any right of root's."""
    os.umask(0o022)
    os.setresgid(entry.gid, entry.gid, entry.gid)
    os.setresuid(entry.uid, entry.uid, entry.uid)
    system_calls.drop_capabilities()
    system_calls.forbid_new_privileges()
    os.chdir(entry.cwd)
    for kind, most in entry.limits:
        limit(kind, most)
    if entry.landlock is not None:
        _restrict_files(entry.landlock)


def limit(kind: int, most: int) -> None:
    """Limit this process and its children (setrlimit(2)), for good."""
    ceiling = resource.getrlimit(kind)[1]
    least = most if ceiling == resource.RLIM_INFINITY else min(most, ceiling)
    resource.setrlimit(kind, (least, least))


def close_all_but(kept: set[int]) -> None:
    """Close every descriptor of this process that is not among ``kept``."""
    begin = 0
    for descriptor in sorted(kept):
        if descriptor > begin:  # an empty range would be taken for an endless one
            os.closerange(begin, descriptor)
        begin = descriptor + 1
    os.closerange(begin, _HIGHEST_DESCRIPTOR)


def _restrict_files(landlock: Landlock) -> None:
    ruleset = system_calls.landlock_ruleset(landlock.attributes)
    for path, rights in landlock.rules:
        try:
            beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # what this box does not have needs no rule
        system_calls.landlock_allow(ruleset, rights, beneath)
        os.close(beneath)
    system_calls.landlock_restrict(ruleset)
    os.close(ruleset)


def _execute(entry: Entry) -> None:
    argv, env = list(entry.argv), dict(entry.env)
    system_calls.filter_system_calls(entry.seccomp)
    os.execve(argv[0], argv, env)  # noqa: S606 - a fork becomes it, in the box


def _whole(pipe: int) -> bytes:
    parts = []
    while part := os.read(pipe, 4096):
        parts.append(part)
    return b"".join(parts)
