"""Makes a listening socket in another network namespace, and hands it back. A program of its own, run by its path.

It is one since only a process with a single thread may join a user namespace (setns(2)). The user namespace to join
is the one that *owns* the network namespace (ioctl_ns(2)), which need not be the one that the box's processes are in.

Only the standard library is imported. Arguments: the descriptor of the network namespace, the port to listen at, and
the descriptor of the socket to answer on: ``k`` with the listener, or ``e`` with the reason why there is none.
"""

import ctypes
import fcntl
import os
import socket
import sys

_NS_GET_USERNS = 0xB701
_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000
_BACKLOG = 128


def _listen(namespace: int, port: int) -> socket.socket:
    if _same(namespace, "/proc/self/ns/net"):
        raise OSError("the box has no network namespace of its own")
    owner = fcntl.ioctl(namespace, _NS_GET_USERNS)
    if not _same(owner, "/proc/self/ns/user"):
        _join(owner, _CLONE_NEWUSER)
    _join(namespace, _CLONE_NEWNET)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(_BACKLOG)
    return listener


def _same(descriptor: int, path: str) -> bool:
    one, other = os.fstat(descriptor), os.stat(path)  # noqa: PTH116 - pathlib would double the start-up time
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _join(namespace: int, kind: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def _main(namespace: int, port: int, answer_on: int) -> int:
    with socket.socket(fileno=answer_on) as up:
        try:
            listener = _listen(namespace, port)
        except OSError as error:
            up.send(b"e" + str(error).encode()[:1000])
            return 1
        socket.send_fds(up, [b"k"], [listener.fileno()])
        return 0


if __name__ == "__main__":
    sys.exit(_main(*map(int, sys.argv[1:4])))
