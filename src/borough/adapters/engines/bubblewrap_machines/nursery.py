"""Where wardens come from: a program that has loaded all that they need, and forks one for each order.

To start Python and load a warden takes longer than all that a warden does until its machine stands. When orders pause,
one warden is made ahead, with all that needs no order, and waits. The nursery lives as long as its daemon holds the
other end of its standard input; wardens outlive it, but for the one that waits.
Only the standard library and modules that need no more are imported.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable

from borough.adapters import system_calls
from borough.adapters.engines.bubblewrap_machines import beginning
from borough.adapters.engines.bubblewrap_machines.grouping import Ahead
from borough.adapters.engines.bubblewrap_machines.marks import carry, look

UNBORN = "nursery"
"""The mark's first word as long as it is nobody's machine: as long as ``machine``, the word that takes its place."""
LARGEST_ORDER_BYTES = 4096
_DESCRIPTORS = 3
_PAUSE_S = 0.03
"""How long nothing is ordered before a warden is made ahead: of many orders at once, none is to wait for that."""


def main() -> None:
    """Have a warden for each order that comes over standard input, until its other end is closed.

    The argument says what is made ahead of orders (``Ahead.told``).
    """
    if os.fork():
        os._exit(0)  # the daemon need not wait for our end
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a warden that ends
    look()
    gc.freeze()  # forks copy the fewer pages
    orders = socket.socket(fileno=os.dup(0))
    ahead = Ahead.read(sys.argv[1])
    spare: _Spare | None = None
    had_left = True
    while True:
        if spare is None and not select.select([orders], [], [], _PAUSE_S)[0]:
            if had_left:  # there may be what one that was killed was in
                ahead.remove_left()
                had_left = False
            spare = _Spare(orders, ahead)
        content, descriptors, _, _ = socket.recv_fds(orders, LARGEST_ORDER_BYTES, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        if not content:
            if spare is not None:
                spare.dismiss()
            return
        is_given = spare is not None and spare.give(content, descriptors)
        if not is_given and os.fork() == 0:
            orders.close()
            _become(content, descriptors, lambda: beginning.Readiness(ahead, waits=False))
        had_left = had_left or (spare is not None and not is_given)
        spare = None
        for descriptor in descriptors:
            os.close(descriptor)


class _Spare:
    """A warden that was made ahead, and waits for its order."""

    def __init__(self, orders: socket.socket, ahead: Ahead) -> None:
        """Make it; ``orders`` are not its."""
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        nursery = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            orders.close()
            self._orders.close()
            _wait_for_order(theirs, nursery, ahead)
        theirs.close()

    def give(self, content: bytes, descriptors: list[int]) -> bool:
        """Give it an order, once; ``False`` if it is no more."""
        with self._orders:
            try:
                socket.send_fds(self._orders, [content], descriptors)
            except OSError:  # it could not get what it needs, and ended: another one says why to whoever ordered
                return False
        return True

    def dismiss(self) -> None:
        """Let it go, and wait until nothing of it is left."""
        self._orders.close()
        with contextlib.suppress(ChildProcessError):  # nobody collects our children
            os.waitpid(self._pid, 0)


def _wait_for_order(orders: socket.socket, nursery: int, ahead: Ahead) -> None:
    """Be the warden that is made ahead, in a fork; never return."""
    try:
        system_calls.end_with_parent(signal.SIGKILL, parent=nursery)
        readiness = beginning.Readiness(ahead, waits=True)
        with orders:
            content, descriptors, _, _ = socket.recv_fds(
                orders, LARGEST_ORDER_BYTES, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        if not content:
            readiness.give_up()
            os._exit(0)
        system_calls.outlive_parent()
        _become(content, descriptors, lambda: readiness)
    except BaseException:  # noqa: BLE001 - a fork must end here whatever happened, and says what
        traceback.print_exc()
    finally:
        os._exit(1)


def _become(content: bytes, descriptors: list[int], begin: Callable[[], beginning.Readiness]) -> None:
    """Be the warden that is ordered: how it makes its machine, where it tells of it, and its log are given."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        order: dict[str, str] = json.loads(content)
        carry(order["owner"])
        for place, descriptor in enumerate(descriptors):
            os.dup2(descriptor, place)
            os.close(descriptor)
        beginning.keep(order["folder"], begin)
    except Exception:  # noqa: BLE001 - a fork must end here whatever happened, and says what
        traceback.print_exc()
    finally:
        os._exit(1)
