"""A small file system with a few files in it: how a machine is given its seed.

FAT12 with long names is what this writes, after Microsoft's "FAT: General Overview of On-Disk Format": cloud-init reads
its NoCloud seed from FAT as well as from ISO 9660, so do FreeBSD's guests, and of the two it is the smaller to write
whole and right: one table, one folder, no second set of names.
"""

import struct
from collections.abc import Mapping

from borough.core.errors import Invalid

_SECTOR = 512
_ROOT_ENTRIES = 112
_ENTRY_BYTES = 32
_MOST_CLUSTERS = 4084
"""With more it would be read as FAT16."""
_MEDIA = 0xF8
_LAST_CLUSTER = 0xFFF
_LABEL, _LONG_NAME, _READ_ONLY = 0x08, 0x0F, 0x01
_LONG_PART = 13
"""Characters of a long name in one entry."""
_DATE = (1 << 5) | 1
"""The first of January 1980: the same content makes the same volume."""


def fat_volume(label: str, files: Mapping[str, str]) -> bytes:
    """Return a volume with ``files`` by name.

    Raises:
        Invalid: they do not fit (``seed_too_large``).
    """
    contents = {name: text.encode() for name, text in files.items()}
    clusters = sum(_sectors(content) for content in contents.values())
    entries = 1 + sum(1 + -(-len(name) // _LONG_PART) for name in files)
    if clusters > _MOST_CLUSTERS or entries > _ROOT_ENTRIES:
        raise Invalid(
            "what a machine is told at its start is too much",
            code="seed_too_large",
            reason=f"it may have {_MOST_CLUSTERS * _SECTOR} bytes",
            resolution="give it fewer or shorter SSH keys",
        )
    table = [0xF00 | _MEDIA, _LAST_CLUSTER]
    root = _entry(label.upper().encode().ljust(11), _LABEL, 0, 0)
    data = b""
    for number, (name, content) in enumerate(contents.items(), start=1):
        first = len(table) if content else 0
        table += _chain(len(table), _sectors(content))
        root += _named(name, number, first, len(content))
        data += content.ljust(_sectors(content) * _SECTOR, b"\0")
    packed = _packed(table)
    packed = packed.ljust(-(-len(packed) // _SECTOR) * _SECTOR, b"\0")
    head = _boot_sector(label, clusters, len(packed) // _SECTOR)
    return head + packed + root.ljust(_ROOT_ENTRIES * _ENTRY_BYTES, b"\0") + data


def _sectors(content: bytes) -> int:
    return -(-len(content) // _SECTOR)


def _chain(first: int, length: int) -> list[int]:
    return [*range(first + 1, first + length), _LAST_CLUSTER] if length else []


def _packed(table: list[int]) -> bytes:
    """Two entries of twelve bits are three bytes."""
    padded = [*table, 0] if len(table) % 2 else table
    return b"".join(
        (low | high << 12).to_bytes(3, "little") for low, high in zip(padded[::2], padded[1::2], strict=True)
    )


def _boot_sector(label: str, clusters: int, table_sectors: int) -> bytes:
    total = 1 + table_sectors + _ROOT_ENTRIES * _ENTRY_BYTES // _SECTOR + clusters
    head = struct.pack(
        "<3s8sHBHBHHBHHHIIBBBI11s8s",
        b"\xeb\x3c\x90", b"BOROUGH ", _SECTOR, 1, 1, 1, _ROOT_ENTRIES, total, _MEDIA, table_sectors,
        32, 64, 0, 0, 0x80, 0, 0x29, 0, label.upper().encode().ljust(11), b"FAT12   ",
    )  # fmt: skip
    return head.ljust(_SECTOR - 2, b"\0") + b"\x55\xaa"


def _named(name: str, number: int, first: int, size: int) -> bytes:
    """Return the entries of a file: its long name, backwards in parts, and the short name nobody looks at."""
    short = f"FILE{number:04d}".encode().ljust(11)
    units = name.encode("utf-16-le")
    if len(units) % (_LONG_PART * 2):
        units = (units + b"\0\0").ljust(-(-len(units) // (_LONG_PART * 2)) * _LONG_PART * 2, b"\xff")
    parts = [units[at : at + _LONG_PART * 2] for at in range(0, len(units), _LONG_PART * 2)]
    checksum = 0
    for byte in short:
        checksum = ((checksum >> 1) | (checksum << 7) & 0x80) + byte & 0xFF
    long = [
        struct.pack("<B10sBBB12sH4s", place, part[:10], _LONG_NAME, 0, checksum, part[10:22], 0, part[22:])
        for place, part in enumerate(parts, start=1)
    ]
    last = bytes([long[-1][0] | 0x40]) + long[-1][1:]
    return b"".join([last, *reversed(long[:-1]), _entry(short, _READ_ONLY, first, size)])


def _entry(name: bytes, attributes: int, first: int, size: int) -> bytes:
    return struct.pack("<11sBBBHHHHHHHI", name, attributes, 0, 0, 0, _DATE, _DATE, 0, 0, _DATE, first, size)
