"""The warden of one machine: a program of its own that makes the box, lets callers in, and tells how it ended.

It has a mount namespace of its own, so nothing that it mounts is seen elsewhere and all of it is gone with it. Whoever
wants something connects to its socket, sends one order with descriptors, and hears the answer; a connection that is
closed ends what was ordered over it. Only the standard library and modules that need no more are imported.
"""

import array  # noqa: F401 - the socket library imports it late, when we may be where it is not
import contextlib
import errno
import fcntl
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from borough.adapters import procfs, system_calls
from borough.adapters.engines.bubblewrap.keeper.boxes import Box
from borough.adapters.engines.bubblewrap_machines.door import LARGEST_ORDER_BYTES, PROGRAM
from borough.adapters.engines.bubblewrap_machines.doorman import Doorman, Report

SOCKET, RUNNING, ENDED = "warden.sock", "running.json", "ended.json"
MOST_DESCRIPTORS = 4
_SET_UP_WITHIN_S = 20.0
_BACKLOG = 128

Order = Mapping[str, Any]


@dataclass(slots=True)
class _Call:
    """A connection, and what runs for it."""

    connection: socket.socket
    number: int = -1
    """Of the order to the doorman; -1: nothing was ordered, or it has ended."""
    pid: int = -1
    is_ours: bool = False
    """Whether the doorman that had started it was killed, so that it is our child now."""


class Warden:
    """Watches over one box until it ends."""

    def __init__(self, folder: str, content: bytes, box: Box, doorman: Doorman, *, has_program: bool) -> None:
        """``content``: what we were told; the doorman was, too."""
        self._folder = folder
        self._content = content
        self._box = box
        self._doorman = doorman
        self._orders_given = PROGRAM
        self._has_program = has_program
        self._failure: str | None = None
        """Why the machine's program could not be started, although the box stood."""
        self._stands = False
        self._asked_to_end = False
        self._kill_at: float | None = None
        self._calls: dict[int, _Call] = {}
        self._select = selectors.DefaultSelector()
        self._wake_r, wake_w = os.pipe()
        for end in (self._wake_r, wake_w):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake_w)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._listener = _listen(folder)
        self._orders: dict[str, Callable[[_Call, Order, list[int]], None]] = {
            "start": self._start, "connect": self._connect, "listen": self._listen_inside, "stop": self._stop,
        }  # fmt: skip

    def run(self) -> None:
        """Serve until the box has ended."""
        self._watch(self._wake_r, self._collect)
        self._watch(self._box.status_r, self._on_status)
        self._watch(self._box.ready_r, self._on_ready)
        self._watch(self._box.complaint_r, self._on_complaint)
        self._watch(self._doorman.connection, self._on_report)
        while self._box.pid >= 0:
            waits = 0.2 if self._kill_at is not None or not self._stands else None
            for key, _ in self._select.select(waits):
                if key.fileobj in self._select.get_map():  # an earlier event of this round may have ended it
                    key.data()
            self._look_at_the_time()
        self._finish()

    # -- the box -------------------------------------------------------------------------------------------------------

    def _on_status(self) -> None:
        if self._box.read_status():
            self._select.unregister(self._box.status_r)

    def _on_ready(self) -> None:
        said = os.read(self._box.ready_r, 16)
        self._select.unregister(self._box.ready_r)
        if self._box.inner is None:
            self._on_status()  # it was told before, and may wait in the same round
        if not said or self._box.inner is None:
            return
        try:
            with self._box.stdio({}) as stdio:
                self._doorman.enter(self._box.inner.pid, stdio, has_program=self._has_program)
        except OSError as failure:
            self._break_off(str(failure))

    def _on_report(self) -> None:
        """Take in what the doorman says of the machine's program, or of what runs for a caller."""
        report = self._doorman.report()
        if report is None:
            self._on_left()
        elif report.number != PROGRAM:
            self._pass_on(report)
        elif not self._stands:
            self._on_begun(report)
        elif report.status is not None or report.error is not None:
            self._on_ended(report)

    def _on_left(self) -> None:
        """The doorman was killed: what it had started is ours to wait for now, and another takes its place."""
        self._select.unregister(self._doorman.connection)
        self._doorman.close()
        for call in self._calls.values():
            call.is_ours = call.number > PROGRAM
        if not self._stands or self._box.inner is None:
            self._break_off("its doorman has ended")
            return
        self._doorman = Doorman()
        self._doorman.prepare(self._content, rooted=self._box.plan.entry.lowers_groups, is_first=False)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._doorman.enter(self._box.inner.pid, (null, null, null), has_program=False)
        os.close(null)
        self._watch(self._doorman.connection, self._on_report)

    def _on_begun(self, report: Report) -> None:
        inner = self._box.inner
        if report.error is not None or inner is None:
            self._break_off(report.error or "the box has ended")
            return
        if report.pid is not None:
            self._box.runs(report.pid)
        if self._has_program and self._box.log is not None:
            self._watch(self._box.log.pipe_r, self._on_output)
        self._stands = True
        self._watch(self._listener, self._accept)
        me = procfs.myself()
        told = {"warden": [me.pid, me.started_ticks], "inner": [inner.pid, inner.started_ticks]}
        _keep(self._folder, RUNNING, {**told, "orders": sorted(self._orders)})
        say({"ready": told})
        if report.status is not None:  # it could not even begin, and said why where it would have printed
            self._on_ended(report)

    def _on_ended(self, report: Report) -> None:
        self._failure = report.error
        self._box.ended = report.status
        self._box.kill()

    def _break_off(self, why: str) -> None:
        self._box.complaint = why.encode()
        self._box.kill()

    def _on_complaint(self) -> None:
        part = os.read(self._box.complaint_r, 4096)
        self._box.complaint = (self._box.complaint + part)[-4096:]
        if not part:
            self._select.unregister(self._box.complaint_r)

    def _on_output(self) -> None:
        log = self._box.log
        if log is not None and not log.pump():
            self._select.unregister(log.pipe_r)

    def _collect(self) -> None:
        for pid, status in procfs.collected(self._wake_r):
            if pid == self._box.pid:
                self._box.pid = -1
            elif self._box.program is not None and pid == self._box.program.pid:
                self._box.ended = status
                self._box.kill()
            else:
                self._on_orphan(pid, status)

    def _on_orphan(self, pid: int, status: int) -> None:
        """What a doorman that was killed had started has ended; or it is the doorman itself, or nobody's."""
        for call in list(self._calls.values()):
            if call.is_ours and call.pid == pid:
                self._pass_on(Report(number=call.number, status=status))

    def _look_at_the_time(self) -> None:
        if self._kill_at is not None and time.monotonic() > self._kill_at:
            self._box.kill()
        if not self._stands and time.monotonic() > self._box.began + _SET_UP_WITHIN_S:
            self._box.complaint = self._box.complaint or b"it was not set up in time"
            self._box.kill()

    def _finish(self) -> None:
        log = self._box.log
        while log is not None and log.pipe_r in self._select.get_map():
            self._on_output()
        if not self._stands:
            # Bubblewrap may end before all that it had to say was read.
            while self._box.complaint_r in self._select.get_map():
                self._on_complaint()
            said = self._box.complaint.decode(errors="replace").strip().replace("\n", "; ")
            say({"error": said or "the box ended while it was set up"})
            return
        told = {"status": self._box.ended, "asked": self._asked_to_end, "failure": self._failure}
        _keep(self._folder, ENDED, told)

    # -- callers -------------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        uid = int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[4:8], sys.byteorder)
        if uid != os.getuid():
            connection.close()
            return
        call = _Call(connection)
        self._calls[connection.fileno()] = call
        self._watch(connection.fileno(), partial(self._receive, call))

    def _receive(self, call: _Call) -> None:
        try:
            content, descriptors, _, _ = socket.recv_fds(
                call.connection, LARGEST_ORDER_BYTES, MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            content, descriptors = b"", []
        if not content:
            self._hang_up(call)
            return
        order: Order = json.loads(content)
        try:
            self._orders.get(order["do"], _unknown)(call, order, descriptors)
        except OSError as failure:
            self._answer(call, {"error": str(failure), "number": failure.errno})
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _hang_up(self, call: _Call) -> None:
        """The caller is gone: so is what it had started, with everything in its session."""
        place = call.connection.fileno()
        self._select.unregister(place)
        self._calls.pop(place, None)
        call.connection.close()
        if call.is_ours and call.pid > 0:
            os.killpg(call.pid, signal.SIGKILL)
        elif call.number > PROGRAM:
            self._doorman.end(call.number)

    def _answer(self, call: _Call, told: Mapping[str, object]) -> None:
        try:
            call.connection.send(json.dumps(told).encode())
        except OSError:
            if call.connection.fileno() >= 0:
                self._hang_up(call)

    def _pass_on(self, report: Report) -> None:
        """Tell a caller what became of its order."""
        for call in list(self._calls.values()):
            if call.number == report.number:
                if report.pid is not None:
                    call.pid = report.pid
                    self._answer(call, {"pid": report.pid})
                    return
                call.number = call.pid = -1
                if report.error is not None:
                    self._answer(call, {"error": report.error, "number": report.errno})
                else:
                    self._answer(call, {"exit": report.status})

    # -- orders --------------------------------------------------------------------------------------------------------

    def _start(self, call: _Call, order: Order, descriptors: list[int]) -> None:
        """Have a command, or something with files, started in the box."""
        self._orders_given += 1
        call.number = self._orders_given
        self._doorman.start(call.number, order, descriptors)

    def _connect(self, call: _Call, order: Order, _descriptors: list[int]) -> None:
        """Connect to a port inside, and hand the socket over."""
        self._hand_over(call, lambda: socket.create_connection(("127.0.0.1", order["port"]), 5.0))

    def _listen_inside(self, call: _Call, order: Order, _descriptors: list[int]) -> None:
        """Listen at a port inside, and hand the socket over: whoever speaks to it is in the box."""

        def listening() -> socket.socket:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", order["port"]))
            listener.listen(_BACKLOG)
            return listener

        self._hand_over(call, listening)

    def _hand_over(self, call: _Call, make: Callable[[], socket.socket]) -> None:
        """Make a socket in the box's network, in a fork, and hand it over."""
        if os.fork():
            return
        try:
            inner = self._box.inner
            _enter_network(inner.pid if inner else 0)
            with make() as made:
                socket.send_fds(call.connection, [b'{"made":true}'], [made.fileno()])
        except OSError as failure:
            call.connection.send(json.dumps({"error": str(failure), "number": failure.errno}).encode())
        finally:
            os._exit(0)

    def _stop(self, call: _Call, order: Order, _descriptors: list[int]) -> None:
        """End the machine: its program is told to, and everything is ended when it does or its time is over."""
        self._asked_to_end = True
        program = self._box.program
        if program is None or order["grace_s"] <= 0:
            self._box.kill()
        else:
            self._kill_at = time.monotonic() + order["grace_s"]
            procfs.tell([program], signal.SIGTERM)
        self._answer(call, {"stopping": True})

    def _watch(self, what: int | socket.socket, then: Callable[[], None]) -> None:
        self._select.register(what, selectors.EVENT_READ, then)


def _unknown(_call: _Call, order: Order, _descriptors: list[int]) -> None:
    """Refuse what a daemon of another version orders: it is no reason for a machine to end."""
    raise OSError(errno.ENOSYS, f"this machine knows no order {order['do']}")


def _enter_network(inner: int) -> None:
    """Enter the box's network, with the rights of its owner; for forks, which do not come back."""
    space = os.open(f"/proc/{inner}/ns/net", os.O_RDONLY)
    owner = _owner_of(space)
    if owner is not None:
        system_calls.set_namespace(owner)
    system_calls.set_namespace(space)


def _owner_of(namespace: int) -> int | None:
    """Return the user namespace that owns a network namespace, unless it is ours."""
    owner = fcntl.ioctl(namespace, system_calls.NS_GET_USERNS)
    return None if os.fstat(owner).st_ino == os.stat("/proc/self/ns/user").st_ino else owner  # noqa: PTH116 - speed


def _listen(folder: str) -> socket.socket:
    directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.suppress(FileNotFoundError):  # the usual case: the one before us did not crash
        os.unlink(SOCKET, dir_fd=directory)
    before = os.umask(0o177)
    listener.bind(f"/proc/self/fd/{directory}/{SOCKET}")
    os.umask(before)
    os.close(directory)
    listener.listen(64)
    return listener


def _keep(folder: str, name: str, told: Mapping[str, object]) -> None:
    draft = f"{folder}/.{name}.new"
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, json.dumps(told).encode())
    finally:
        os.close(file)
    os.replace(draft, f"{folder}/{name}")  # noqa: PTH105 - pathlib would cost start-up time


def say(told: Mapping[str, object]) -> None:
    """Tell whoever started us; once."""
    os.write(1, json.dumps(told).encode() + b"\n")
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 1)
    os.close(null)
