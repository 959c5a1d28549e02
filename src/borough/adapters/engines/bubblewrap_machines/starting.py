"""A process that is to become bubblewrap, made before there is a machine: then neither to fork it nor its first steps,
in which it copies what it has of its warden, take time of an order.

Only the standard library and modules that need no more are imported.
"""

import json
import os
import signal
import socket
from collections.abc import Mapping

from borough.adapters import system_calls
from borough.adapters.engines.bubblewrap.keeper.boxes import Program, become
from borough.adapters.engines.bubblewrap.keeper.entering import close_all_but
from borough.adapters.engines.bubblewrap_machines.entries import join_network
from borough.adapters.engines.bubblewrap_machines.marks import carry
from borough.adapters.engines.bubblewrap_machines.rehearsing import rehearse
from borough.adapters.procfs import OWNER

_LARGEST_ORDER_BYTES = 1 << 14
_DESCRIPTORS = 16


class Starter:
    """The warden's side. It ends with its warden."""

    def __init__(self) -> None:
        """Make it, in the namespaces in which bubblewrap is to begin."""
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        warden = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            _wait(theirs, warden)
        theirs.close()

    def begin(self, namespace: str | None, program: Program, wanted: Mapping[int, int]) -> int | None:
        """Have it become bubblewrap, once, with descriptors at their places; ``None`` if it is no more.

        ``namespace``: the network that was made for the machine, if one was.
        """
        plain = {"path": program.path, "marker": dict(program.marker), "identity": program.identity}
        told = {"namespace": namespace, "program": plain, "places": list(wanted)}
        with self._orders:
            try:
                socket.send_fds(self._orders, [json.dumps(told).encode()], list(wanted.values()))
            except OSError:  # it was killed: another does as well
                return None
        return self._pid


def _wait(orders: socket.socket, warden: int) -> None:
    """Be it, in a fork of the warden; never return."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        system_calls.end_with_parent(signal.SIGKILL, parent=warden)
        close_all_but({2, orders.fileno()})
        rehearse()
        content, descriptors, _, _ = socket.recv_fds(
            orders, _LARGEST_ORDER_BYTES, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
        )
        if not content:
            os._exit(0)  # no machine is wanted any more
        told = json.loads(content)
        program = Program(**told["program"])
        wanted = dict(zip(told["places"], descriptors, strict=True))
        try:
            carry(program.marker[OWNER])
            join_network(told)
        except OSError as failure:
            os.write(wanted[2], f"bubblewrap cannot be started: {failure}".encode())
            os._exit(1)
        become(program, wanted, warden)
    finally:
        os._exit(1)
