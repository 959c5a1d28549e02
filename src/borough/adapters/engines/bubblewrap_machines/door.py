"""The door of one machine: a process that enters its box, and starts there what the warden wants started.

It enters the box once and is confined like everything there, so a command is spawned without any further step. No
process of the box can see it, since it stays outside their pid namespace. It takes orders from its warden alone, and
ends with it; where it is killed, the warden makes another. Only the standard library and modules that need no more are
imported.
"""

import contextlib
import fcntl
import json
import os
import resource
import selectors
import signal
import socket
import struct
import termios
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from borough.adapters import procfs, system_calls
from borough.adapters.engines.bubblewrap.cgroups import Trees
from borough.adapters.engines.bubblewrap.keeper.entering import (
    RESET,
    Entry,
    Stdio,
    close_all_but,
    confine,
    enter_namespaces,
    limit,
    take_over,
)
from borough.adapters.engines.bubblewrap_machines import inside
from borough.adapters.engines.bubblewrap_machines.entries import Order, entry_of, join_network, open_low_ports
from borough.adapters.engines.bubblewrap_machines.grouping import Standing, belong
from borough.adapters.engines.bubblewrap_machines.marks import carry
from borough.adapters.engines.bubblewrap_machines.rehearsing import rehearse
from borough.adapters.procfs import OWNER

PROGRAM = 0
"""The number of the order by which the machine's own program is started; those of others are greater."""
LARGEST_ORDER_BYTES = 1 << 17
_ROOM_BYTES = 1 << 10
"""What is added to an order on its way."""
_DESCRIPTORS = 3
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127
"""Exit codes of a shell."""
_UNLOCK, _NUMBER = 0x40045431, 0x80045430
"""TIOCSPTLCK and TIOCGPTN (ioctl_tty(2))."""


class _Door:
    """The doorman itself, which is confined already."""

    def __init__(self, orders: socket.socket, entry: Entry, memory_bytes: int | None) -> None:
        """``memory_bytes``: what each process of its own may have, where nothing limits them together."""
        self._orders = orders
        self._entry = entry
        self._memory_bytes = memory_bytes
        self._numbers: dict[int, int] = {}
        """Which process was started by which order."""
        self._select = selectors.DefaultSelector()
        self._wake_r, wake_w = os.pipe()
        for end in (self._wake_r, wake_w):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake_w)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def begin(self, stdio: Stdio, *, has_program: bool) -> None:
        """Start the machine's program, if it has one, and say so."""
        if has_program:
            self._start(
                {"number": PROGRAM, "argv": list(self._entry.argv), "env": {}, "cwd": "/", "terminal": None}, stdio
            )
        else:
            self._say(number=PROGRAM)
        for descriptor in set(stdio):
            os.close(descriptor)

    def serve(self) -> None:
        """Start what is ordered until the warden lets go."""
        self._select.register(self._orders, selectors.EVENT_READ)
        self._select.register(self._wake_r, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in self._select.select()}
            if self._wake_r in ready:
                self._collect()
            if self._orders in ready and not self._obey():
                return

    def _obey(self) -> bool:
        content, descriptors, _, _ = socket.recv_fds(
            self._orders, LARGEST_ORDER_BYTES + _ROOM_BYTES, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
        )
        if not content:
            return False
        order: Order = json.loads(content)
        if "end" in order:
            self._end(order["end"])
            return True
        try:
            stdin, stdout, stderr = descriptors
            self._start(order, (stdin, stdout, stderr))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _start(self, order: Order, stdio: Stdio) -> None:
        number = order["number"]
        try:
            if "files" in order:
                pid = self._fork(stdio, partial(inside.act, order["files"], order["path"]))
            else:
                env = {**self._entry.env, **order["env"]}
                os.chdir(order["cwd"] or "/")
                pid = self._run(order["argv"], env, order["terminal"], stdio)
        except _NotRun as failure:
            os.write(stdio[2], f"{failure}\n".encode())
            self._say(number=number, status=failure.exit_code << 8)
        except OSError as failure:
            self._say(number=number, error=f"{failure.strerror}: {failure.filename}", errno=failure.errno)
        else:
            self._numbers[pid] = number
            self._say(number=number, pid=pid)

    def _run(self, argv: list[str], env: Mapping[str, str], size: list[int] | None, stdio: Stdio) -> int:
        """Start a command, found as a shell finds it, at a terminal of a size or with ``stdio``; return its pid."""
        program = _found(argv[0], env)
        terminal = None if size is None else _open_terminal(*size, to=stdio[0])
        if self._memory_bytes is not None:
            return self._fork(stdio, partial(_become, program, argv, env, terminal, self._memory_bytes))
        actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_DUP2, given, place) for place, given in enumerate(stdio)]
        if terminal is not None:  # the first that the leader of a session opens is the one that controls it
            actions = [(os.POSIX_SPAWN_OPEN, 0, terminal, os.O_RDWR, 0)]
            actions += [(os.POSIX_SPAWN_DUP2, 0, place) for place in (1, 2)]
        try:
            return os.posix_spawn(program, argv, env, file_actions=actions, setsid=True, setsigmask=[], setsigdef=RESET)
        except OSError as failure:
            raise _NotRun(argv[0], failure) from failure

    def _fork(self, stdio: Stdio, act: Callable[[], int]) -> int:
        """Do something in a process of its own, and return its pid; what ``act`` returns is its exit status."""
        pid = os.fork()
        if pid:
            return pid
        try:
            signal.set_wakeup_fd(-1)
            take_over(stdio)
            os._exit(act())
        except BaseException as failure:  # noqa: BLE001 - a fork must end here whatever happened, and says what
            os.write(2, f"{failure!r}\n".encode())
        finally:
            os._exit(127)

    def _collect(self) -> None:
        for pid, status in procfs.collected(self._wake_r):
            self._say(number=self._numbers.pop(pid), status=status)

    def _end(self, number: int) -> None:
        for pid, started_by in self._numbers.items():
            if started_by == number:
                for end in (os.killpg, os.kill):  # it may not have got to a session of its own yet
                    with contextlib.suppress(ProcessLookupError):  # as wished
                        end(pid, signal.SIGKILL)

    def _say(self, **told: object) -> None:
        self._orders.send(json.dumps(told).encode())


class _NotRun(Exception):
    """A command that cannot be run, in the words and with the exit code of a shell."""

    def __init__(self, word: str, failure: OSError | None) -> None:
        super().__init__(f"{word}: {'not found' if failure is None else failure.strerror}")
        self.exit_code = _NOT_FOUND if failure is None else _NOT_EXECUTABLE


def _found(word: str, env: Mapping[str, str]) -> str:
    """Return the path of a command; raises ``_NotRun``."""
    if "/" in word:
        if not os.path.exists(word):  # noqa: PTH110 - start-up time
            raise _NotRun(word, None)
        return word
    paths = [f"{folder or '.'}/{word}" for folder in env.get("PATH", os.defpath).split(":")]
    there = [path for path in paths if os.path.isfile(path)]  # noqa: PTH113 - as above
    if not there:
        raise _NotRun(word, None)
    return next((path for path in there if os.access(path, os.X_OK)), there[0])


def _open_terminal(rows: int, columns: int, *, to: int) -> str:
    """Make a terminal of the box's own, hand its outer end over a socket, and return the path of the inner one."""
    outer = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(outer, _UNLOCK, struct.pack("i", 0))
        number = struct.unpack("I", fcntl.ioctl(outer, _NUMBER, bytes(4)))[0]
        fcntl.ioctl(outer, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        with socket.socket(fileno=os.dup(to)) as caller:
            socket.send_fds(caller, [b"terminal"], [outer])
    finally:
        os.close(outer)
    return f"/dev/pts/{number}"


def _become(program: str, argv: list[str], env: Mapping[str, str], terminal: str | None, memory_bytes: int) -> int:
    """Become a command with a limit that the doorman itself cannot have; return a shell's exit status if it cannot."""
    if terminal is not None:
        opened = os.open(terminal, os.O_RDWR)
        for place in range(3):
            os.dup2(opened, place)
        os.close(opened)
    limit(resource.RLIMIT_AS, memory_bytes)
    try:
        os.execve(program, argv, env)  # noqa: S606 - no shell is wanted
    except OSError as failure:
        os.write(2, f"{_NotRun(argv[0], failure)}\n".encode())
    return _NOT_EXECUTABLE


def _heard(orders: socket.socket) -> tuple[Order, list[int]]:
    """Return what the warden says next, with descriptors; end with it, when it has given up."""
    content, descriptors, _, _ = socket.recv_fds(orders, _ROOM_BYTES, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    if not content:
        os._exit(0)
    return json.loads(content), descriptors


def _prepared(how: Order, descriptors: list[int], standing: Standing | None) -> Entry:
    """Be one machine's doorman from here on."""
    with os.fdopen(descriptors[0], "rb") as file:
        told = json.load(file)
    carry(told["marker"][OWNER])
    entry = entry_of(told, rooted=how["rooted"])
    join_network(told)
    if told["groups"] is not None:
        belong(told["groups"], standing, is_first=how["is_first"])
    if entry.lowers_groups:
        os.setgroups([])
    return entry


def stand(orders: socket.socket, warden: int, ahead: tuple[Trees, str] | None) -> None:
    """Be the doorman of the warden ``warden``, in a fork of it, with orders from there; never return.

    ``ahead``: where control groups are made before it is known whose they are, and under which name.
    """
    step = "beginning"
    try:
        signal.set_wakeup_fd(-1)
        system_calls.end_with_parent(signal.SIGKILL, parent=warden)
        # Ends of the box's pipes are open: held here, they would hide the end of our warden from it.
        close_all_but({2, orders.fileno()})
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for place in (0, 1):
            os.dup2(null, place)
        step = "joining control groups"
        standing = None if ahead is None else Standing(*ahead)
        if ahead is not None:
            rehearse()
        entry = _prepared(*_heard(orders), standing)
        limits = dict(entry.limits)
        memory_bytes = limits.pop(resource.RLIMIT_AS, None)
        confined = replace(entry, limits=list(limits.items()))
        door = _Door(orders, entry, memory_bytes)
        step = "entering the box"
        told, descriptors = _heard(orders)
        stdin, stdout, stderr = descriptors
        enter_namespaces(told["inner"], in_network=open_low_ports)
        step = "confining it"
        confine(confined)
        system_calls.end_with_parent(signal.SIGKILL, parent=warden)  # who has other rights has forgotten it
        system_calls.filter_system_calls(entry.seccomp)
        step = "serving"
        door.begin((stdin, stdout, stderr), has_program=told["has_program"])
        door.serve()
        os._exit(0)
    except BaseException as failure:  # noqa: BLE001 - a fork must end here whatever happened, and says what
        code = failure.errno if isinstance(failure, OSError) else None
        said = f"{step}: {os.strerror(code)}" if code else f"{step}: {failure!r}"
        with contextlib.suppress(OSError):  # the warden has ended, and nobody asks any more
            orders.send(json.dumps({"number": PROGRAM, "error": said, "errno": code}).encode())
    finally:
        os._exit(1)
