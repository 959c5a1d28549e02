"""Where wardens come from: a program that has loaded all that they need, and forks one for each order.

To start Python and load a warden takes longer than all that a warden does until its machine stands. When orders pause,
one warden is made ahead, with all that needs no order, and waits. The nursery lives as long as its daemon holds the
other end of its standard input; wardens outlive it, but for the one that waits.
Only the standard library and modules that need no more are imported.
"""

import gc
import json
import os
import select
import signal
import socket
import traceback

from borough.adapters import system_calls
from borough.adapters.engines.bubblewrap_machines import beginning
from borough.adapters.engines.bubblewrap_machines.marks import carry

UNBORN = "nursery"
"""The mark's first word as long as it is nobody's machine: as long as ``machine``, the word that takes its place."""
LARGEST_ORDER_BYTES = 4096
_DESCRIPTORS = 3
_PAUSE_S = 0.03
"""How long nothing is ordered before a warden is made ahead: of many orders at once, none is to wait for that."""


def main() -> None:
    """Have a warden for each order that comes over standard input, until its other end is closed."""
    if os.fork():
        os._exit(0)  # the daemon need not wait for our end
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a warden that ends
    gc.freeze()  # forks copy the fewer pages
    orders = socket.socket(fileno=os.dup(0))
    spare: socket.socket | None = None
    while True:
        if spare is None and not select.select([orders], [], [], _PAUSE_S)[0]:
            spare = _spare(orders)
        content, descriptors, _, _ = socket.recv_fds(orders, LARGEST_ORDER_BYTES, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        if not content:
            return
        if not _given(spare, content, descriptors) and os.fork() == 0:
            orders.close()
            _become(content, descriptors, None)
        spare = None
        for descriptor in descriptors:
            os.close(descriptor)


def _given(spare: socket.socket | None, content: bytes, descriptors: list[int]) -> bool:
    """Give an order to the warden that waits; ``False`` if there is none, or no more."""
    if spare is None:
        return False
    with spare:
        try:
            socket.send_fds(spare, [content], descriptors)
        except OSError:  # it could not get what it needs, and ended: another one says why to whoever ordered
            return False
    return True


def _spare(orders: socket.socket) -> socket.socket:
    """Make a warden ahead; return where it waits for its order."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nursery = os.getpid()
    if os.fork() == 0:
        try:
            orders.close()
            ours.close()
            system_calls.end_with_parent(signal.SIGKILL, parent=nursery)
            readiness = beginning.Readiness()
            with theirs:
                content, descriptors, _, _ = socket.recv_fds(
                    theirs, LARGEST_ORDER_BYTES, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
                )
            system_calls.outlive_parent()
            if content:
                _become(content, descriptors, readiness)
        except BaseException:  # noqa: BLE001 - a fork must end here whatever happened, and says what
            traceback.print_exc()
        finally:
            os._exit(1)
    theirs.close()
    return ours


def _become(content: bytes, descriptors: list[int], readiness: beginning.Readiness | None) -> None:
    """Be the warden that is ordered: how it makes its machine, where it tells of it, and its log are given."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        order: dict[str, str] = json.loads(content)
        carry(order["owner"])
        for place, descriptor in enumerate(descriptors):
            os.dup2(descriptor, place)
            os.close(descriptor)
        beginning.keep(order["folder"], readiness)
    except Exception:  # noqa: BLE001 - a fork must end here whatever happened, and says what
        traceback.print_exc()
    finally:
        os._exit(1)
