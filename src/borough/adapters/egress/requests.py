"""What a client asks a proxy for: a tunnel, or a plain page."""

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

from borough.core.errors import Invalid
from borough.governance.hosts import canonical_host

_HOP_BY_HOP = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"proxy-authorization",
     b"proxy-authenticate", b"expect"}
)  # fmt: skip
_MOST_PORT = 65_535
_HTTP_PORT = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A host and port, and for a plain page what is asked of it."""

    host: str
    port: int
    target: bytes | None = None
    """``None``: a tunnel."""
    added: tuple[tuple[str, str], ...] = ()
    """Headers that only the proxy may say; then nothing that came is believed of where the request is from."""


def read_request(request: h11.Request) -> Asked:
    """Return what ``request`` asks for.

    Raises:
        Invalid: it is no request to a proxy, or it names two hosts (``invalid_request``).
    """
    try:
        target = request.target.decode("ascii")
    except UnicodeDecodeError:
        raise _invalid("its target is not ASCII") from None
    return _tunnel(target) if request.method == b"CONNECT" else _page(request, target)


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers that are for the other end, not for the next hop (RFC 9110, 7.6.1)."""
    pairs = [(bytes(name), bytes(value)) for name, value in headers]
    named = {part.strip().lower() for name, value in pairs if name == b"connection" for part in value.split(b",")}
    # How the body ends is not given away by naming it there.
    dropped = (_HOP_BY_HOP | named) - {b"content-length", b"transfer-encoding", b"host"}
    return [(name, value) for name, value in pairs if name not in dropped]


def _tunnel(target: str) -> Asked:
    host, colon, port = target.rpartition(":")
    if not colon:
        raise _invalid("CONNECT needs host:port")
    return Asked(host=_host(host), port=_port(port))


def _page(request: h11.Request, target: str) -> Asked:
    try:
        parts = urlsplit(target)
        given = parts.port
    except ValueError:
        raise _invalid("its address cannot be read") from None
    if parts.scheme != "http" or not parts.hostname:
        raise _invalid("this is a proxy: ask for http://host/path, or CONNECT host:port for anything else")
    if "@" in parts.netloc or "#" in target or "\\" in target:
        raise _invalid("its address holds a name, a fragment or a backslash")
    host, port = _host(_literal(parts.netloc)), _HTTP_PORT if given is None else _port(str(given))
    hosts = [bytes(value).decode("latin-1") for name, value in request.headers if name == b"host"]
    if any(_host_header(value) != (host, port) for value in hosts):
        raise _invalid("its Host header names another host than its address")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Asked(host=host, port=port, target=path.encode())


def _host_header(value: str) -> tuple[str, int]:
    host = _literal(value)
    rest = value[len(host) :]
    return _host(host), _port(rest[1:]) if rest.startswith(":") else _HTTP_PORT


def _literal(netloc: str) -> str:
    """Return the host of ``host:port`` as it is written, brackets included."""
    return netloc.partition("]")[0] + "]" if netloc.startswith("[") else netloc.partition(":")[0]


def _host(text: str) -> str:
    try:
        host = canonical_host(text)
    except Invalid as error:
        raise _invalid(error.message) from None
    if "*" in host:
        raise _invalid(f"{text[:200]!r} is a pattern, not a host")
    return host


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= _MOST_PORT:
        raise _invalid("its port is none")
    return int(text)


def _invalid(reason: str) -> Invalid:
    return Invalid(f"bad request: {reason}", code="invalid_request", resolution="read RFC 9112, section 3.2")
