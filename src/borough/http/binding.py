"""Opening the port: addresses as people write them, and who has the port when it is taken."""

import errno
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from borough.core.errors import BoroughError, Invalid, Unavailable

BACKLOG = 2048
_LISTEN = "0A"
"""The state of a listening socket in proc_net_tcp(5)."""
_COMMAND_LENGTH = 80
_PROC = Path("/proc")


def bind(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets for ``host`` (``localhost``, a name, IPv4, IPv6 with or without brackets).

    Port 0 takes a free one. ``localhost`` is 127.0.0.1 and, where the machine has it, ::1. The sockets listen at
    once, so that a second server fails now and not later.

    Raises:
        Unavailable: the port is taken (``port_in_use``, with who has it) or not ours to take (``port_refused``).
        Invalid: this machine has no such address (``invalid_bind``).
    """
    sockets: list[socket.socket] = []
    try:
        for address in _addresses(host):
            try:
                sockets.append(_listen(address, bound_port(sockets) if sockets else port))
            except OSError as error:
                optional = bool(sockets) and error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
                if not optional:
                    raise _refusal(error, address, port) from None
    except BoroughError:
        for opened in sockets:
            opened.close()
        raise
    return sockets


def bound_port(sockets: list[socket.socket]) -> int:
    """Return the port that ``sockets`` listen on."""
    port: int = sockets[0].getsockname()[1]
    return port


def server_url(sockets: list[socket.socket], *, tls: bool) -> str:
    """Return the address by which this machine reaches the server."""
    address = ip_address(sockets[0].getsockname()[0])
    if address.is_unspecified:
        shown = "127.0.0.1" if address.version == 4 else "[::1]"  # noqa: PLR2004 - the version of IP
    else:
        shown = str(address) if address.version == 4 else f"[{address}]"  # noqa: PLR2004 - the version of IP
    return f"{'https' if tls else 'http'}://{shown}:{bound_port(sockets)}"


def holder(port: int) -> str:
    """Return who listens on ``port``: ``pid N (command)``, or that it cannot be seen."""
    inodes = set(_listening_inodes(port))
    for process in sorted(_PROC.glob("[0-9]*"), key=lambda path: int(path.name)):
        if inodes & set(_socket_inodes(process)):
            return f"pid {process.name} ({_command(process)})"
    return "a process that this user may not see"


def _addresses(host: str) -> list[str]:
    name = host.strip().removeprefix("[").removesuffix("]")
    if name.lower() == "localhost":
        return ["127.0.0.1", "::1"]
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        found = []
    if not found or not name:
        raise Invalid(
            f"cannot bind to {host!r}: it is no address of this machine",
            code="invalid_bind",
            resolution="use localhost, 127.0.0.1, 0.0.0.0, ::1, :: or an address that 'ip address' shows",
        )
    return [str(found[0][4][0])]


def _listen(address: str, port: int) -> socket.socket:
    parsed = ip_address(address.partition("%")[0])
    family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6  # noqa: PLR2004 - the version of IP
    # Named as TCP, so that asyncio sends what is written at once (TCP_NODELAY) on every connection that comes of it.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if parsed.is_unspecified else 1)
        opened.bind((address, port))
        opened.listen(BACKLOG)
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened


def _refusal(error: OSError, address: str, port: int) -> BoroughError:
    if error.errno == errno.EADDRINUSE:
        return Unavailable(
            f"port {port} on {address} is in use by {holder(port)}",
            code="port_in_use",
            resolution="stop it, or choose another port: --port N, or for good: tt config --here townhall.rest_port N",
        )
    if error.errno == errno.EACCES:
        return Unavailable(
            f"port {port} on {address} may not be opened by this user",
            code="port_refused",
            resolution="choose a port above 1023 with --port",
        )
    return Invalid(
        f"cannot bind to {address}: {error.strerror}",
        code="invalid_bind",
        resolution="use an address that 'ip address' shows",
    )


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        path = _PROC / "net" / table
        if not path.exists():
            continue  # a machine without that version of IP
        for line in path.read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == _LISTEN and int(columns[1].rpartition(":")[2], 16) == port:
                yield columns[9]


def _socket_inodes(process: Path) -> Iterator[str]:
    try:
        for descriptor in (process / "fd").iterdir():
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                yield target[8:-1]
    except OSError:
        return  # it ended meanwhile, or it is another user's


def _command(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return "ended meanwhile"
    return b" ".join(words).decode("utf-8", "replace")[:_COMMAND_LENGTH]
