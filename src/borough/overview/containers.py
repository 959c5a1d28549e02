r"""A file of files that can be written in one way only: a tar archive in a gzip envelope, nothing in it compressed.

Whoever has the files has every byte of it. So a byte that was changed anywhere, also in what other readers pass over,
is found by writing the container anew, and named by the member that it lies in.
"""

import zlib
from collections.abc import Mapping
from typing import Final

ENVELOPE: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""The header of gzip (RFC 1952) without a name, a time or a system."""
_BLOCK: Final = 512
_MOST_STORED: Final = 65_535
_TRAILER: Final = 8
_NAME: Final = 100
_SIZE: Final = slice(124, 136)


class NotAContainer(ValueError):
    """The bytes are no such container; the text says where and why."""


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return the container of these files, in their order.

    Raises:
        ValueError: a name cannot be in it.
    """
    archive = b"".join(_header(name, len(content)) + _padded(content) for name, content in files.items())
    return _enveloped(archive + bytes(2 * _BLOCK))


def unpack(data: bytes) -> tuple[dict[str, bytes], str | None]:
    """Return the files of a container, in their order, and what of it is not as ``pack`` writes it, if anything.

    A file that was changed shows there too, in a checksum: whoever knows what the files should be names it better.

    Raises:
        NotAContainer: nothing can be read from it.
    """
    files = _files(_archive(data))
    try:
        again = pack(files)
    except ValueError as error:
        raise NotAContainer(str(error)) from None
    return files, None if again == data else _difference(data, again, files)


def _enveloped(archive: bytes) -> bytes:
    parts = [archive[at : at + _MOST_STORED] for at in range(0, len(archive), _MOST_STORED)]
    stored = [_stored(part, last=number == len(parts) - 1) for number, part in enumerate(parts)]
    check = zlib.crc32(archive).to_bytes(4, "little") + (len(archive) & 0xFFFFFFFF).to_bytes(4, "little")
    return ENVELOPE + b"".join(stored) + check


def _stored(part: bytes, *, last: bool) -> bytes:
    """Return a block that is not compressed (RFC 1951, 3.2.4)."""
    size = len(part)
    return bytes([last]) + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little") + part


def _archive(data: bytes) -> bytes:
    if data[: len(ENVELOPE)] != ENVELOPE:
        raise NotAContainer("its envelope does not begin as that of evidence does")
    try:
        inside = zlib.decompressobj(-zlib.MAX_WBITS)
        archive = inside.decompress(data[len(ENVELOPE) :])
    except zlib.error as error:
        raise NotAContainer(f"its envelope cannot be opened: {error}") from None
    if not inside.eof or len(inside.unused_data) != _TRAILER:
        raise NotAContainer("its envelope does not end where it should: something is missing, or was added")
    return archive


def _files(archive: bytes) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    at = 0
    while archive[at : at + _BLOCK].strip(b"\0"):
        header = archive[at : at + _BLOCK]
        try:
            name = header[:_NAME].rstrip(b"\0").decode("ascii")
            size = int(header[_SIZE].rstrip(b"\0 ").decode("ascii"), 8)
        except (UnicodeDecodeError, ValueError):
            raise NotAContainer(f"the header at byte {at} of its archive is none") from None
        if name in files or at + _BLOCK + size > len(archive):
            raise NotAContainer(f"{name!r} is there twice, or longer than all that there is")
        files[name] = archive[at + _BLOCK : at + _BLOCK + size]
        at += _BLOCK + -(-size // _BLOCK) * _BLOCK
    return files


def _difference(data: bytes, again: bytes, files: Mapping[str, bytes]) -> str:
    pairs = zip(data, again, strict=False)
    at = next((number for number, (one, other) in enumerate(pairs) if one != other), min(len(data), len(again)))
    begin = 0
    for name, content in files.items():
        end = begin + _BLOCK + -(-len(content) // _BLOCK) * _BLOCK
        if at < _place(end):
            return f"byte {at}, which belongs to {name}, is not as it was written"
        begin = end
    return f"byte {at} of its envelope is not as it was written"


def _place(offset: int) -> int:
    """Return about where a byte of the archive is in the container."""
    return len(ENVELOPE) + offset + 5 * (offset // _MOST_STORED + 1)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % _BLOCK)


def _header(name: str, size: int) -> bytes:
    """Return a member's header (POSIX ustar): a plain file of nobody's, of no time."""
    encoded = name.encode("ascii")
    if not 0 < len(encoded) < _NAME or size >= 8**11:
        raise ValueError(f"{name!r} cannot be in a container")
    parts = (
        encoded.ljust(_NAME, b"\0"),
        b"0000644\0",
        bytes(b"0000000\0" * 2),
        b"%011o\0" % size,
        b"00000000000\0",
        b"        ",
        b"0",
        bytes(_NAME),
        b"ustar\x0000",
        bytes(64),
        bytes(b"0000000\0" * 2),
        bytes(167),
    )
    header = b"".join(parts)
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]
