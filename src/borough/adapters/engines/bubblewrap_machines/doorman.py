"""The doorman of one machine, as its warden sees it: a process that stands in the box, and starts there what is wanted.

Only the standard library and modules that need no more are imported.
"""

import contextlib
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from borough.adapters.engines.bubblewrap.cgroups import Trees
from borough.adapters.engines.bubblewrap.keeper.entering import Stdio
from borough.adapters.engines.bubblewrap_machines import door
from borough.adapters.engines.bubblewrap_machines.door import LARGEST_ORDER_BYTES
from borough.adapters.engines.bubblewrap_machines.entries import Order, memory

_LARGEST_REPORT_BYTES = 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of an order: it was begun, or it has ended."""

    number: int
    pid: int | None = None
    """Of what was started."""
    status: int | None = None
    """How it ended (wait(2))."""
    error: str | None = None
    """Why it could not be started; that is an end too."""
    errno: int | None = None


class Doorman:
    """The warden's side."""

    def __init__(self, ahead: tuple[Trees, str] | None = None) -> None:
        """Make it, before it is known whose it is to be; ``ahead``: where it is in control groups until then."""
        self.connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * LARGEST_ORDER_BYTES)
        warden = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            door.stand(theirs, warden, ahead)
        theirs.close()

    def prepare(self, content: bytes, *, rooted: bool, is_first: bool = True) -> None:
        """Tell it its machine, while the box is still being set up: to join control groups takes as long as that.

        ``content``: what the warden was told; ``rooted``: whether we have the machine's own root rights; ``is_first``:
        whether there was none before it, which would have made the groups.
        """
        told = memory(content)
        try:
            self._send({"rooted": rooted, "is_first": is_first}, [told])
        finally:
            os.close(told)

    def enter(self, inner: int, stdio: Stdio, *, has_program: bool) -> None:
        """Let it enter the box whose first process is ``inner``, and start the machine's program, if it has one.

        It reports the order ``PROGRAM`` in either case.
        """
        self._send({"inner": inner, "has_program": has_program}, list(stdio))

    def start(self, number: int, order: Order, descriptors: list[int]) -> None:
        """Order that something is started: ``argv`` or ``files``, with three descriptors; raises ``OSError``."""
        self._send({**order, "number": number}, descriptors)

    def end(self, number: int) -> None:
        """Order that what was started under a number is ended, with everything in its session."""
        with contextlib.suppress(OSError):  # it has gone: then there is nothing that it could end
            self._send({"end": number})

    def report(self) -> Report | None:
        """Return what it says next, ``None`` when it has ended."""
        try:
            content = self.connection.recv(_LARGEST_REPORT_BYTES)
        except ConnectionError:
            content = b""
        return Report(**json.loads(content)) if content else None

    def close(self) -> None:
        """Let it go."""
        self.connection.close()

    def dismiss(self) -> None:
        """Let it go before it had a machine, and wait for its end."""
        self.close()
        with contextlib.suppress(ChildProcessError):  # nobody had to collect it
            os.waitpid(self._pid, 0)

    def _send(self, told: Mapping[str, object], descriptors: list[int] | None = None) -> None:
        socket.send_fds(self.connection, [json.dumps(told).encode()], descriptors or [])
