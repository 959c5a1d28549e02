"""What a process that waits for an order does ahead of it, for nothing but to have done it once.

A fork shares its memory with whom it was forked from, and each page that it changes first is copied for it; Python
changes whatever it only looks at, and such a copy takes longer than most of what is done with it. What was rehearsed
does not wait for that when there is an order. Only the standard library and modules that need no more are imported.
"""

import json
import os
import selectors
import socket

from borough.adapters.engines.bubblewrap_machines.entries import entry_of, memory

_TOLD = {"argv": ["true"], "env": {"PATH": "/"}, "limits": [[0, 1]], "seccomp": "00", "also": [1.5, None, True]}
_LARGEST_BYTES = 1 << 12


def rehearse() -> None:
    """Give an order with a descriptor, hear it, wait and read as one who is ordered does; nothing is left of it."""
    content = json.dumps(_TOLD).encode()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, selectors.DefaultSelector() as select:
        given = memory(content)
        socket.send_fds(ours, [content], [given])
        os.close(given)
        select.register(theirs, selectors.EVENT_READ)
        select.select(0)
        told, descriptors, _, _ = socket.recv_fds(theirs, _LARGEST_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        for descriptor in descriptors:
            with os.fdopen(descriptor, "rb") as file:
                json.load(file)
    entry_of(json.loads(told), rooted=True)
