"""Starting a worker's box: it says when it stands, and the kernel says who its worker is."""

import json
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from borough.adapters import process
from borough.adapters.engines.bubblewrap.keeping import program
from borough.adapters.engines.bubblewrap_workers.layout import SCRIPT
from borough.adapters.process import Child, ProcessRef
from borough.core.errors import Unavailable

_STANDS_WITHIN_S = 30.0
_CREDENTIALS = struct.Struct("iII")  # struct ucred of unix(7)
_MOST_WORDS = 500
_GONE_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxed:
    """A worker in a box."""

    child: Child
    """Bubblewrap, which is our child and ends after the worker, with its exit status."""
    worker: ProcessRef
    """The worker, as this machine knows it."""


def start(
    arguments: Sequence[str], argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: int
) -> tuple[Boxed, socket.socket]:
    """Start ``argv`` in a box and return it once the box stands, with the socket that is its standard input.

    The worker's pid is not asked for but told by the kernel (unix(7), SCM_CREDENTIALS): inside it has another.

    Raises:
        Unavailable: the box does not stand (``box_failed``), or bubblewrap cannot be started.
    """
    ours, theirs = socket.socketpair()
    complaint, their_complaint = os.pipe()
    words = _memory(b"".join(word.encode() + b"\0" for word in arguments))
    try:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.settimeout(_STANDS_WITHIN_S)
        child = process.start(
            [str(program()), "--args", str(words), "--", "/bin/sh", "-c", SCRIPT, "sh", *argv],
            env=env, cwd=cwd, stdin=theirs.fileno(), stdout=log, stderr=their_complaint, pass_fds=(words,),
        )  # fmt: skip
        os.close(their_complaint)
        their_complaint = -1
        theirs.close()
        return Boxed(child=child, worker=_greeted(ours, child, complaint)), ours
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        for descriptor in (words, complaint, their_complaint):
            if descriptor >= 0:
                os.close(descriptor)


def introduce(worker: ProcessRef, to: socket.socket) -> None:
    """Tell a worker in a box who it is to this machine, and close what it is told through."""
    with to:
        to.sendall(json.dumps({"pid": worker.pid, "started_ticks": worker.started_ticks}).encode() + b"\n")


def _greeted(ours: socket.socket, child: Child, complaint: int) -> ProcessRef:
    try:
        said, told, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size))
    except TimeoutError:
        said, told = b"", []
    except BaseException:
        _end(child)
        raise
    if not said:
        _end(child)
        os.set_blocking(complaint, False)
        raise _failed(_words(complaint))
    pid = next(_CREDENTIALS.unpack(data)[0] for level, kind, data in told if kind == socket.SCM_CREDENTIALS)
    # One that ended at once is not to be found any more: then no process that comes later is taken for it.
    return process.identify(pid) or ProcessRef(pid, -1)


def _end(child: Child) -> None:
    process.end(child.ref, grace_s=0.0)
    child.wait(_GONE_WITHIN_S)


def _words(complaint: int) -> str:
    try:
        said = os.read(complaint, 4096).decode(errors="replace")
    except BlockingIOError:
        said = ""
    return " ".join(said.split())[:_MOST_WORDS] or f"it did not stand within {_STANDS_WITHIN_S:g} s"


def _failed(reason: str) -> Unavailable:
    return Unavailable(
        f"its box cannot be made: {reason}",
        code="box_failed",
        reason=reason,
        resolution="mend what it names; 'borough doctor' tells what this machine can; without a box: "
        "tt config --here agent.box off",
    )


def _memory(content: bytes) -> int:
    descriptor = os.memfd_create("box", os.MFD_CLOEXEC)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
