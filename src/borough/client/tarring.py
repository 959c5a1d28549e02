"""Folders as tar archives on their way: packed and unpacked as they travel, never whole in memory or on disk."""

import io
import os
import tarfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from borough.core.errors import Invalid

_PART_BYTES: Final = 1 << 16


def packed(folder: Path) -> Iterator[bytes]:
    """Yield what is in ``folder`` as a tar archive, names relative to it.

    Raises:
        OSError: something in it cannot be read; the archive is not complete then.
    """
    source, sink = os.pipe()
    trouble: list[BaseException] = []

    def pack() -> None:
        try:
            with os.fdopen(sink, "wb") as out, tarfile.open(fileobj=out, mode="w|") as archive:
                for name in sorted(os.listdir(folder)):  # noqa: PTH208 - names only
                    archive.add(folder / name, arcname=name)
        except BrokenPipeError:
            return  # the reader left
        except BaseException as problem:  # noqa: BLE001 - raised again where the archive is read
            trouble.append(problem)

    thread = threading.Thread(target=pack, name="pack", daemon=True)
    thread.start()
    with os.fdopen(source, "rb") as archive:
        while part := archive.read1(_PART_BYTES):
            yield part
    thread.join()
    if trouble:
        raise trouble[0]


def unpack(parts: Iterable[bytes], folder: Path) -> int:
    """Unpack an archive into ``folder``, which is made; return how many files came.

    Nothing in the archive can be written outside of ``folder``, and no device, owner or mode beyond the usual is made.

    Raises:
        Invalid: it is no archive, or it has such a thing in it (``bad_archive``); what came before stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    try:
        with tarfile.open(fileobj=_Reader(parts), mode="r|") as archive:
            for member in archive:
                archive.extract(member, folder, filter="data")
                count += member.isfile()
    except tarfile.TarError as problem:
        raise Invalid(
            "the archive cannot be unpacked",
            code="bad_archive",
            reason=str(problem),
            resolution=f"look at what has come into {folder}",
        ) from problem
    return count


class _Reader(io.RawIOBase):
    """The parts as a file to read from."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = iter(parts)
        self._left = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Return ``size`` bytes, fewer only at the end."""
        found = [self._left]
        length = len(self._left)
        while size < 0 or length < size:
            part = next(self._parts, None)
            if part is None:
                break
            found.append(part)
            length += len(part)
        whole = b"".join(found)
        cut = len(whole) if size < 0 else size
        self._left = whole[cut:]
        return whole[:cut]
