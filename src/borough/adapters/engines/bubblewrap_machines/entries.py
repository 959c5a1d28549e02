"""What a warden and its doorman were told of their machine, and how both act on it."""

import fcntl
import os
import socket
import struct
from collections.abc import Mapping
from typing import Any

from borough.adapters import system_calls
from borough.adapters.engines.bubblewrap.keeper.entering import Entry

_GET_FLAGS, _SET_FLAGS, _IS_UP = 0x8913, 0x8914, 1  # netdevice(7)
_FLAGS = "16sH14x"
_FIRST_FREE_PORT = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
NO_NETWORK = "--unshare-net"
"""Bubblewrap's word for a network of the box's own, which has its loopback alone."""

Order = Mapping[str, Any]


def memory(content: bytes) -> int:
    """Return a descriptor of ``content``, to be read from its beginning."""
    descriptor = os.memfd_create("borough", os.MFD_CLOEXEC)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def entry_of(told: Order, *, rooted: bool) -> Entry:
    """Return how a machine's program is started, out of what its warden was told; its doorman is in its groups."""
    return Entry(
        argv=told["argv"] or ["/bin/true"], env=told["env"], cwd="/", uid=0, gid=0,
        limits=[(kind, most) for kind, most in told["limits"]], groups=[], landlock=None,
        seccomp=bytes.fromhex(told["seccomp"]), lowers_groups=rooted,
    )  # fmt: skip


def join_network(told: Order) -> None:
    """Go to the network that was made for a machine, if one was; raises ``OSError``."""
    if told["namespace"] is not None:
        space = os.open(told["namespace"], os.O_RDONLY | os.O_CLOEXEC)
        system_calls.set_namespace(space)
        os.close(space)


def own_network() -> bool:
    """Get a network of our own that has its loopback and nothing else; ``False`` where we may not."""
    try:
        system_calls.unshare(system_calls.CLONE_NEWNET)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            told = fcntl.ioctl(asking, _GET_FLAGS, struct.pack(_FLAGS, b"lo", 0))
            name, flags = struct.unpack(_FLAGS, told)
            fcntl.ioctl(asking, _SET_FLAGS, struct.pack(_FLAGS, name, flags | _IS_UP))
    except OSError:  # bubblewrap has more rights, in a user namespace of its own
        return False
    open_low_ports()
    return True


def open_low_ports() -> None:
    """Let whoever is root in a box listen at ports below 1024 of the network that we are in: it may be another's."""
    try:
        with open(_FIRST_FREE_PORT, "w") as setting:  # noqa: PTH123 - start-up time
            setting.write("0")
    except OSError as failure:
        os.write(2, f"ports below 1024 stay closed to the machine: {failure}\n".encode())
