"""Where wardens come from: a program that has loaded all that they need, and forks one for each order.

To start Python and load a warden takes longer than all that a warden does until its machine stands. The nursery lives
as long as its daemon holds the other end of its standard input; wardens outlive it.
Only the standard library and modules that need no more are imported.
"""

import ctypes
import gc
import json
import os
import signal
import socket
import sys
import traceback

from borough.adapters.engines.bubblewrap_machines import warden
from borough.adapters.procfs import OWNER

UNBORN = "nursery"
"""The mark's first word as long as it is nobody's machine: as long as ``machine``, the word that takes its place."""
LARGEST_ORDER_BYTES = 4096
_DESCRIPTORS = 3
_STANDARD = 3
_ENV_START, _ENV_END = 47, 48  # positions in ``stat`` after the command's closing parenthesis (proc(5), fields 50, 51)


def main() -> None:
    """Fork a warden for each order that comes over standard input, until its other end is closed."""
    if os.fork():
        os._exit(0)  # the daemon need not wait for our end
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a warden that ends
    gc.freeze()  # forks copy the fewer pages
    orders = socket.socket(fileno=os.dup(0))
    while True:
        content, descriptors, _, _ = socket.recv_fds(orders, LARGEST_ORDER_BYTES, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        if not content:
            return
        if os.fork() == 0:
            orders.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _become(json.loads(content), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _become(order: dict[str, str], descriptors: list[int]) -> None:
    """Be the warden that ``order`` asks for: how it makes its machine, where it tells of it, and its log are given."""
    try:
        _carry(order["owner"])
        for place, descriptor in enumerate(descriptors):
            os.dup2(descriptor, place)
            os.close(descriptor)
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(place, "r" if place == 0 else "w", closefd=False) for place in range(_STANDARD)
        )
        sys.argv = [sys.argv[0], order["folder"]]
        warden.main()
    except Exception:  # noqa: BLE001 - a fork must end here whatever happened, and says what
        traceback.print_exc()
    finally:
        os._exit(1)


def _carry(owner: str) -> None:
    """Let this process carry another mark of the same length, where others look for it: in its own environment.

    The kernel shows the memory in which a process was given its environment, whatever has become of it.
    """
    with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 - start-up time
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[_ENV_START]), int(fields[_ENV_END])
    given, mark = ctypes.string_at(start, end - start), f"{OWNER}={owner}\0".encode()
    at = given.find(f"{OWNER}=".encode())
    if at < 0 or given.find(b"\0", at) != at + len(mark) - 1:
        raise OSError("the nursery was not given a mark that can be changed")
    ctypes.memmove(start + at, mark, len(mark))
