"""The keeper's loop: one daemon at a time gives orders over a Unix socket, boxes go on whether it is there or not.

Messages are one JSON object each; descriptors come along. Requests carry an ``id`` that their answer repeats. What a
box prints, its end, and the daemon's going are seen in the same loop, so there are no threads and no locks.
"""

import fcntl
import gc
import json
import os
import resource
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

from borough.adapters import procfs, system_calls
from borough.adapters.engines.bubblewrap.keeper.boxes import Box
from borough.adapters.engines.bubblewrap.keeper.messages import KEEPER, Message, plan_of
from borough.adapters.engines.bubblewrap.keeper.mounts import Staging, own_namespace
from borough.adapters.procfs import Marker

VERSION = 1
"""Of the messages."""
SOCKET, LOCK = "keeper.sock", "keeper.lock"
LARGEST_MESSAGE_BYTES = 65536
MOST_DESCRIPTORS = 16
SET_UP_WITHIN_S = 15.0
_LINGERS_S = 2.0


class Keeper:
    """Holds the boxes."""

    def __init__(self, folder: str, staging: Staging, tag: str, *, rooted: bool) -> None:
        self._staging = staging
        self._tag = tag
        self._rooted = rooted
        self._boxes: dict[str, Box] = {}
        self._opening: dict[str, int] = {}
        """Boxes that are being set up, with the request that waits for each."""
        self._select = selectors.DefaultSelector()
        self._listener = _listen(folder)
        self._daemon: socket.socket | None = None
        self._idle_since = time.monotonic()
        self._wake_r, self._wake_w = os.pipe()
        for end in (self._wake_r, self._wake_w):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wake_w)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._orders: dict[str, Callable[[Message, list[int]], None]] = {
            "open": self._open, "go": self._go, "kill": self._kill, "workspace": self._workspace,
            "forget": self._forget, "list": self._list, "stop": self._stop,
        }  # fmt: skip

    def run(self) -> None:
        """Serve until there is no daemon, no box and nobody has come for a while."""
        self._watch(self._listener, self._accept)
        self._watch(self._wake_r, self._collect)
        while self._daemon is not None or self._boxes or time.monotonic() < self._idle_since + _LINGERS_S:
            busy = bool(self._opening) or self._daemon is None
            for key, _ in self._select.select(0.5 if busy else None):
                if key.fileobj in self._select.get_map():  # an earlier one of this round may have ended it
                    self._take_in(key.data)
            self._give_up_late_ones()

    def _take_in(self, event: Callable[[], None]) -> None:
        """Handle one event; a fault in it is told, and must not be the end of everybody's boxes."""
        try:
            event()
        except Exception:  # noqa: BLE001 - as the docstring says
            traceback.print_exc()

    # -- the daemon ----------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        uid = int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[4:8], sys.byteorder)
        if uid != os.getuid():
            connection.close()
            return
        if self._daemon is not None:
            self._lose_daemon()
        self._daemon = connection
        self._watch(connection, self._receive)
        self._send({"hello": VERSION, "pid": os.getpid(), "rooted": self._rooted, "staging": self._staging.root})

    def _receive(self) -> None:
        daemon = self._daemon
        if daemon is None:
            return
        try:
            content, descriptors, _, _ = socket.recv_fds(
                daemon, LARGEST_MESSAGE_BYTES, MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            content, descriptors = b"", []
        if not content:
            self._lose_daemon()
            return
        message: Message = json.loads(content)
        try:
            self._orders[message["do"]](message, descriptors)
        except OSError as failure:
            self._answer(message, error=f"{failure.strerror or failure} {failure.filename or ''}".strip())

    def _lose_daemon(self) -> None:
        """The daemon is gone: end the boxes that are only for it, and those that it had not let go."""
        if self._daemon is not None:
            self._select.unregister(self._daemon)
            self._daemon.close()
        self._daemon = None
        self._idle_since = time.monotonic()
        for box in self._boxes.values():
            if not box.plan.lasts or box.program is None:
                box.kill()

    def _send(self, message: Message, descriptors: tuple[int, ...] = ()) -> None:
        if self._daemon is None:
            return
        try:
            socket.send_fds(self._daemon, [json.dumps(message).encode()], list(descriptors))
        except (ConnectionError, BrokenPipeError):
            self._lose_daemon()

    def _answer(self, message: Message, **content: object) -> None:
        self._send({"id": message["id"], **content})

    # -- orders --------------------------------------------------------------------------------------------------------

    def _open(self, message: Message, descriptors: list[int]) -> None:
        """Set a box up and answer once it stands; ``plan`` is the first descriptor, the others are named."""
        with os.fdopen(descriptors.pop(0), "rb") as file:
            file.seek(0)
            told = json.load(file)
        name = told["box"]
        if name in self._boxes:
            raise OSError(f"there is a box {name} already")
        names: list[str] = message["descriptors"]
        given = dict(zip(names, descriptors, strict=True))
        data = [given.pop(one) for one in names if one.startswith("data")]
        try:
            for place, bind in enumerate(told["binds"]):
                self._staging.bind(bind["source"], f"b/{name}/{place}", writable=bind["writable"])
            box = Box(plan_of(told, self._staging.root, self._tag, rooted=self._rooted), given, data)
        except BaseException:
            self._staging.remove(f"b/{name}")
            raise
        self._boxes[name] = box
        self._opening[name] = message["id"]
        self._watch(box.status_r, lambda: self._on_status(box))
        self._watch(box.ready_r, lambda: self._on_ready(box))
        self._watch(box.complaint_r, lambda: self._on_complaint(box))

    def _go(self, message: Message, _descriptors: list[int]) -> None:
        box = self._boxes.get(message["box"])
        if box is None:
            raise OSError("the box has ended")
        self._answer(message, **self._begin(box))

    def _begin(self, box: Box) -> dict[str, int]:
        """Start the program; a box in which that fails is ended."""
        try:
            program = box.start()
        except OSError:
            box.kill()
            raise
        if box.log is not None:
            self._watch(box.log.pipe_r, lambda: self._on_output(box))
        return {"pid": program.pid, "started_ticks": program.started_ticks}

    def _kill(self, message: Message, _descriptors: list[int]) -> None:
        if box := self._boxes.get(message["box"]):
            box.kill()
        self._answer(message, known=box is not None)

    def _workspace(self, message: Message, _descriptors: list[int]) -> None:
        """Mount a workspace, unless it is, and answer with a descriptor of it."""
        name = f"w/{message['name']}"
        target = f"{self._staging.root}/{name}"
        if not os.path.ismount(target):
            if message.get("base") is None:
                self._staging.bind(message["layers"] + "/upper", name, writable=True)
            else:
                owner = tuple(message["owner"]) if self._rooted else None
                self._staging.overlay(name, base=message["base"], layers=message["layers"], owner=owner)
        opened = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._send({"id": message["id"], "path": target}, (opened,))
        finally:
            os.close(opened)

    def _forget(self, message: Message, _descriptors: list[int]) -> None:
        self._staging.remove(f"w/{message['name']}")
        self._answer(message)

    def _list(self, message: Message, _descriptors: list[int]) -> None:
        self._answer(message, boxes=sorted(self._boxes))

    def _stop(self, message: Message, _descriptors: list[int]) -> None:
        """End all boxes; we end ourselves when they have and the daemon lets go."""
        for box in self._boxes.values():
            box.kill()
        self._answer(message)

    # -- boxes ---------------------------------------------------------------------------------------------------------

    def _on_status(self, box: Box) -> None:
        if not box.read_status():
            return
        self._unwatch(box.status_r)
        if box.inner_handle >= 0:
            self._watch(box.inner_handle, lambda: self._on_end_of_all(box))

    def _on_ready(self, box: Box) -> None:
        if not os.read(box.ready_r, 16):
            self._unwatch(box.ready_r)
            return
        self._unwatch(box.ready_r)
        request = self._opening.pop(box.plan.box, None)
        if request is None or box.inner is None:
            return
        told: dict[str, object] = {"box_pid": box.inner.pid, "box_started_ticks": box.inner.started_ticks}
        if box.plan.at_once:
            try:
                told |= self._begin(box)
            except OSError as failure:
                box.complaint = (failure.strerror or str(failure)).encode()
                self._opening[box.plan.box] = request  # answered when nothing is left of it
                return
        self._send({"id": request, **told})

    def _on_complaint(self, box: Box) -> None:
        part = os.read(box.complaint_r, 4096)
        box.complaint = (box.complaint + part)[-4096:]
        if not part:
            self._unwatch(box.complaint_r)

    def _on_output(self, box: Box) -> None:
        if box.log is not None and not box.log.pump():
            self._unwatch(box.log.pipe_r)

    def _on_end_of_all(self, box: Box) -> None:
        """The box's first process is gone, and by the kernel's promise everything that was in it."""
        self._unwatch(box.inner_handle)
        self._collect()
        self._settle(box)

    def _collect(self) -> None:
        """Collect children that ended: programs, bubblewraps, and orphans of either."""
        for pid, status in procfs.collected(self._wake_r):
            for box in list(self._boxes.values()):
                self._note_end(box, pid, status)

    def _note_end(self, box: Box, pid: int, status: int) -> None:
        if box.program is not None and pid == box.program.pid:
            box.ended = status
            box.kill()
        elif pid == box.pid:
            box.pid = -1
            box.kill() if box.inner_handle >= 0 else None
            self._settle(box)
        elif box.pid < 0 and box.inner is None:  # what it made without telling of it is our child since its end
            self._settle(box)

    def _settle(self, box: Box) -> None:
        """Finish a box of which nothing runs any more; one of which something does is left for its last event."""
        if box.plan.box not in self._boxes or box.pid >= 0 or box.leaves_half_made():
            return
        if box.inner is not None and procfs.identify(box.inner.pid) == box.inner:
            return
        if box.program is not None and box.ended is None and procfs.identify(box.program.pid) == box.program:
            return
        while box.log is not None and self._is_watched(box.log.pipe_r):
            if not box.log.pump():
                self._unwatch(box.log.pipe_r)
        del self._boxes[box.plan.box]
        for descriptor in (box.status_r, box.ready_r, box.complaint_r, box.inner_handle):
            self._unwatch(descriptor)
        complaint = box.complaint.decode(errors="replace").strip().partition("\n")[0]
        self._take_in(box.write_record)
        box.close()
        self._staging.remove(f"b/{box.plan.box}")
        request = self._opening.pop(box.plan.box, None)
        if request is not None:
            self._send({"id": request, "error": complaint or "the box ended while it was set up"})
        self._send({"ended": box.plan.box, "status": box.ended})
        self._idle_since = time.monotonic()

    def _give_up_late_ones(self) -> None:
        for name in list(self._opening):
            box = self._boxes[name]
            if time.monotonic() > box.began + SET_UP_WITHIN_S and not box.told_to_end:
                box.kill()

    def _watch(self, what: int | socket.socket, then: Callable[[], None]) -> None:
        self._select.register(what, selectors.EVENT_READ, then)

    def _unwatch(self, what: int) -> None:
        if self._is_watched(what):
            self._select.unregister(what)

    def _is_watched(self, what: int) -> bool:
        return what >= 0 and what in self._select.get_map()


def _listen(folder: str) -> socket.socket:
    """Listen in ``folder``, through a descriptor of it: its path may be longer than a socket's may."""
    directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with suppress(FileNotFoundError):  # only one that crashed leaves its socket behind
        os.unlink(SOCKET, dir_fd=directory)
    before = os.umask(0o177)
    listener.bind(f"/proc/self/fd/{directory}/{SOCKET}")
    os.umask(before)
    os.close(directory)
    listener.listen(4)
    return listener


def _hold(folder: str) -> None:
    """Be the only keeper of ``folder`` as long as we live; raises ``OSError`` when there is one."""
    lock = os.open(f"{folder}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + _LINGERS_S + 3.0  # the one before us may be about to end
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise OSError("another keeper serves this folder, and does not answer") from None
            time.sleep(0.02)
        else:
            return


def main() -> None:
    """Serve ``argv``: the folder of the socket, the folder to mount, our tag, and by name what of the host is shown."""
    folder, root, tag, *fixed = sys.argv[1:]
    os.umask(0o022)  # what is mounted must be seen by the users that boxes belong to; records have modes of their own
    if os.fork():
        os._exit(0)  # the daemon is not our parent: it may end before us, and need not wait for our end
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # secrets pass through here
    try:
        _hold(folder)
        # Boxes end with their keeper, but one that was killed while it set one up may have left that behind.
        procfs.reap(Marker(KEEPER, tag), grace_s=0.0)
        rooted = own_namespace()
        staging = Staging(root, dict(one.split("=", 1) for one in fixed))
    except OSError as failure:
        sys.stdout.write(json.dumps({"error": str(failure)}) + "\n")
        sys.exit(1)
    system_calls.adopt_orphans()
    gc.freeze()  # forks copy the fewer pages
    keeper = Keeper(folder, staging, tag, rooted=rooted)
    # Not before everything holds: the daemon connects after this line.
    sys.stdout.write(json.dumps({"ready": os.getpid()}) + "\n")
    sys.stdout.close()
    keeper.run()
