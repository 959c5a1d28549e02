"""The first message of TLS, read without answering it: which server does a client ask for (RFC 8446, RFC 6066)."""

from dataclasses import dataclass

LONGEST_HELLO_BYTES = 65_536
_HANDSHAKE_RECORD, _CLIENT_HELLO = 22, 1
_SERVER_NAME_EXTENSION, _HOST_NAME = 0, 0
_RECORD_HEADER_BYTES, _HANDSHAKE_HEADER_BYTES = 5, 4
_LONGEST_RECORD_BYTES = 16_384


class NotTls(ValueError):
    """What was read does not begin a TLS connection."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a client says first."""

    server_name: str | None


def begins_like_tls(data: bytes) -> bool:
    """Tell whether ``data`` could be the beginning of a TLS connection."""
    return data[:1] == b"\x16" and data[1:2] in (b"", b"\x03")


def read_hello(data: bytes) -> Hello | None:
    """Return the client's hello at the beginning of ``data``; ``None`` when more is needed to tell.

    Raises:
        NotTls: it is none, or is longer than ``LONGEST_HELLO_BYTES``.
    """
    if data and not begins_like_tls(data):
        raise NotTls("it does not begin with a TLS handshake")
    message = _first_message(data)
    if message is None:
        if len(data) > LONGEST_HELLO_BYTES:
            raise NotTls("its hello does not end")
        return None
    try:
        return Hello(_server_name(_Cursor(message)))
    except (IndexError, UnicodeDecodeError):
        raise NotTls("its hello is malformed") from None


def _first_message(data: bytes) -> bytes | None:
    """Return the first handshake message, which may be spread over several records."""
    joined = bytearray()
    at = 0
    while at + _RECORD_HEADER_BYTES <= len(data):
        length = int.from_bytes(data[at + 3 : at + 5])
        if data[at] != _HANDSHAKE_RECORD or not 0 < length <= _LONGEST_RECORD_BYTES:
            raise NotTls("its first records are no handshake")
        at += _RECORD_HEADER_BYTES
        joined += data[at : at + length]
        at += length
        if joined[:1] and joined[0] != _CLIENT_HELLO:
            raise NotTls("its first message is not a client's hello")
        if len(joined) >= _HANDSHAKE_HEADER_BYTES:
            end = _HANDSHAKE_HEADER_BYTES + int.from_bytes(joined[1:4])
            if end > LONGEST_HELLO_BYTES:
                raise NotTls("its hello is too long")
            if len(joined) >= end:
                return bytes(joined[_HANDSHAKE_HEADER_BYTES:end])
    return None


class _Cursor:
    """Reads fields from the front; raises ``IndexError`` where they reach beyond the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise IndexError
        self._at += count
        return self._data[self._at - count : self._at]

    def rest(self) -> bytes:
        return self.take(self.left)

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int) -> "_Cursor":
        return _Cursor(self.take(self.number(size)))


def _server_name(hello: _Cursor) -> str | None:
    hello.take(2 + 32)  # version, random
    hello.vector(1)  # session
    hello.vector(2)  # ciphers
    hello.vector(1)  # compressions
    if not hello.left:
        return None
    extensions = hello.vector(2)
    names: list[str] = []
    while extensions.left:
        kind, body = extensions.number(2), extensions.vector(2)
        if kind != _SERVER_NAME_EXTENSION:
            continue
        entries = body.vector(2)
        while entries.left:
            if entries.number(1) != _HOST_NAME:
                raise NotTls("its hello asks for something that is no host")
            names.append(entries.vector(2).rest().decode("ascii"))
    if len(names) > 1:
        # Servers differ in which of several they would serve.
        raise NotTls("its hello asks for several hosts")
    return names[0] if names else None
