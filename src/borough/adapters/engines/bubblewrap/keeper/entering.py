"""How a program gets into a box: a child of the keeper enters the box's namespaces, is confined, and becomes it."""

import fcntl
import json
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from borough.adapters import system_calls

_NAMESPACES = ("cgroup", "net", "ipc", "uts", "pid", "mnt")
_RESET = (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGXFSZ, signal.SIGHUP)


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


def enter(inner: int, entry: Entry, stdio: tuple[int, int, int], *, act: Callable[[], int] | None = None) -> int:
    """Start ``entry`` in the box whose first process is ``inner``; return its pid once it runs its own program.

    With ``act`` that is what runs there, confined in the same way, instead of a program; it returns its exit status.

    Raises:
        OSError: it could not be started; the text says at which step.
    """
    pid_r, pid_w = os.pipe()
    failure_r, failure_w = os.pipe()
    child = os.fork()
    if child == 0:
        _in_child(inner, entry, stdio, pid_w, failure_w, act)
    os.close(pid_w)
    os.close(failure_w)
    try:
        pid = int(_whole(pid_r) or b"0")
        failure = _whole(failure_r)  # ends when the program was begun, since it is closed by that
    finally:
        os.close(pid_r)
        os.close(failure_r)
    os.waitpid(child, 0)
    if failure or not pid:
        if pid:
            os.waitpid(pid, 0)
        number, step = json.loads(failure) if failure else (0, "the child ended before it began")
        raise OSError(number, f"{step}: {os.strerror(number)}" if number else step)
    return pid


def _join_groups(groups: Sequence[str]) -> None:
    """Move this process into control groups."""
    for group in groups:
        file = os.open(group, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(file, b"0")
        finally:
            os.close(file)


def _in_child(
    inner: int, entry: Entry, stdio: tuple[int, int, int], pid_w: int, failure_w: int, act: Callable[[], int] | None
) -> None:
    """Run in a fork of the keeper; never return."""
    step = "joining control groups"
    try:
        _join_groups(entry.groups)
        step = "entering the box"
        if entry.lowers_groups:
            os.setgroups([])
        _enter_namespaces(inner)
        step = "starting a process in the box"
        pid = os.fork()
        if pid:
            os.write(pid_w, str(pid).encode())
            os._exit(0)
        step = "confining the process"
        _confine(entry, stdio, keep=failure_w)
        if act is not None:
            system_calls.filter_system_calls(entry.seccomp)
            os.close(failure_w)
            os._exit(act())
        step = f"running {entry.argv[0]}"
        _execute(entry)
    except BaseException as failure:  # noqa: BLE001 - a fork must end here whatever happened, and says what
        number = failure.errno if isinstance(failure, OSError) else None
        where = step if number else f"{step}: {failure!r}"
        os.write(failure_w, json.dumps([number or 0, where]).encode())
    finally:
        os._exit(127)


def _enter_namespaces(inner: int) -> None:
    """Enter all namespaces of the box.

    They are owned by an outer one of the box's two user namespaces (bubblewrap nests a second one, in which no more
    can be made), and only with the rights of that owner they can be entered.
    """
    opened = {kind: os.open(f"/proc/{inner}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in (*_NAMESPACES, "user")}
    owner = fcntl.ioctl(opened["mnt"], system_calls.NS_GET_USERNS)
    # A network that was made for the box by root is not the owner's; whoever is in it already needs not enter it.
    shared = {kind for kind in _NAMESPACES if _is_ours(kind, opened[kind])}
    system_calls.set_namespace(owner)
    for kind in _NAMESPACES:
        if kind not in shared:
            system_calls.set_namespace(opened[kind])
    if os.fstat(owner).st_ino != os.fstat(opened["user"]).st_ino:
        system_calls.set_namespace(opened["user"])
    for descriptor in (*opened.values(), owner):
        os.close(descriptor)


def _is_ours(kind: str, descriptor: int) -> bool:
    return os.fstat(descriptor).st_ino == os.stat(f"/proc/self/ns/{kind}").st_ino  # noqa: PTH116 - start-up time


def _confine(entry: Entry, stdio: tuple[int, int, int], *, keep: int) -> None:
    os.setsid()
    # Two steps, so that no descriptor is overwritten before its turn.
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10) for descriptor in (*stdio, keep)]
    for place, descriptor in enumerate(moved[:3]):
        os.dup2(descriptor, place)
    os.dup2(moved[3], keep, inheritable=False)
    os.closerange(3, keep)
    os.closerange(keep + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for number in _RESET:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o022)
    os.setresgid(entry.gid, entry.gid, entry.gid)
    os.setresuid(entry.uid, entry.uid, entry.uid)
    system_calls.drop_capabilities()
    system_calls.forbid_new_privileges()
    os.chdir(entry.cwd)
    for kind, most in entry.limits:
        ceiling = resource.getrlimit(kind)[1]
        least = most if ceiling == resource.RLIM_INFINITY else min(most, ceiling)
        resource.setrlimit(kind, (least, least))
    if entry.landlock is not None:
        _restrict_files(entry.landlock)


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
