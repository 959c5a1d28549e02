"""A listening socket inside a box, accepted from outside: nothing of the proxy is in the agent's reach."""

import asyncio
import os
import socket
import sys
from pathlib import Path

from borough.adapters import process
from borough.adapters.egress import namespace
from borough.core.errors import Unavailable

PROXY_PORT = 3128
MADE_WITHIN_S = 10.0
_ANSWER_BYTES = 1024


async def listen_in(box_pid: int) -> socket.socket:
    """Return a socket that listens at 127.0.0.1:3128 in the network namespace of ``box_pid``.

    Raises:
        Unavailable: it cannot be made (``egress_unavailable``).
    """
    return await asyncio.to_thread(_listen_in, box_pid)


def _listen_in(box_pid: int) -> socket.socket:
    try:
        space = os.open(f"/proc/{box_pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _unavailable(f"the box is gone or not ours: {error.strerror}") from None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with ours, theirs:
            ours.settimeout(MADE_WITHIN_S)
            argv = [sys.executable, "-I", "-S", namespace.__file__, str(space), str(PROXY_PORT), str(theirs.fileno())]
            helper = process.start(argv, env={}, cwd=Path("/"), pass_fds=[space, theirs.fileno()])
            theirs.close()
            try:
                return _answer(ours)
            finally:
                helper.kill()
                helper.wait()
    finally:
        os.close(space)


def _answer(ours: socket.socket) -> socket.socket:
    try:
        # Close-on-exec: otherwise whatever is started meanwhile would get it too.
        answer, descriptors, _, _ = socket.recv_fds(ours, _ANSWER_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
    except OSError as error:
        raise _unavailable(str(error) or "the helper does not answer") from None
    if not descriptors:
        raise _unavailable(answer[1:].decode(errors="replace") or "the helper ended without an answer")
    listener = socket.socket(fileno=descriptors[0])
    listener.setblocking(False)
    return listener


def _unavailable(reason: str) -> Unavailable:
    return Unavailable(
        "the box's way out cannot be made",
        code="egress_unavailable",
        reason=reason,
        resolution="start the box with a network namespace of its own, in which the loopback interface is up",
    )
