"""Files of containers, which travel as tar archives only."""

import io
import tarfile
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import IO

from borough.core.errors import Conflict, NotFound
from borough.fleet.ports.engines import FileEntry

_IN_MEMORY_BYTES = 8 << 20
_CHUNK_BYTES = 1 << 18
LIST_SCRIPT = 'cd -- "$1" && for f in * .*; do [ "$f" = . ] || [ "$f" = .. ] || stat -c "%f %s %Y %n" -- "$f"; done'
"""Prints mode (in hexadecimal), size, time and name of what is in a folder; a pattern that fits nothing is no name."""
_FOLDER, _KINDS = 0x4000, 0xF000


async def spooled(content: AsyncIterator[bytes]) -> IO[bytes]:
    """Return all of ``content``, in memory or a file without a name; the caller closes it."""
    file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - the caller closes it
    try:
        async for part in content:
            file.write(part)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def of_file(path: str, content: IO[bytes]) -> IO[bytes]:
    """Return the archive that puts a file at ``path`` from the root; missing folders above it are made."""
    size = content.seek(0, io.SEEK_END)
    content.seek(0)
    made = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - the caller closes it
    with tarfile.open(fileobj=made, mode="w") as archive:
        entry = tarfile.TarInfo(path.lstrip("/"))
        entry.size, entry.mode, entry.mtime = size, 0o644, int(datetime.now(UTC).timestamp())
        archive.addfile(entry, content)
    made.seek(0)
    return made


def of_keys(keys: tuple[str, ...]) -> bytes:
    """Return the archive with root's authorised keys."""
    made = io.BytesIO()
    content = "".join(f"{key}\n" for key in keys).encode()
    with tarfile.open(fileobj=made, mode="w") as archive:
        folder = tarfile.TarInfo("root/.ssh")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o700
        archive.addfile(folder)
        entry = tarfile.TarInfo("root/.ssh/authorized_keys")
        entry.size, entry.mode = len(content), 0o600
        archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def of_folder(path: str) -> bytes:
    """Return the archive that makes a folder."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        folder = tarfile.TarInfo(path.strip("/"))
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)
    return made.getvalue()


def only_file(packed: IO[bytes], path: str) -> tuple[tarfile.TarFile, IO[bytes]]:
    """Return the one file of an archive, with the archive to be closed."""
    archive = tarfile.open(fileobj=packed, mode="r:")  # noqa: SIM115 - the caller closes it
    first = archive.next()
    content = None if first is None or not first.isreg() else archive.extractfile(first)
    if content is None:
        archive.close()
        raise Conflict(
            f"{path} is no plain file", code="file_refused", resolution="read it as an archive, or what it leads to"
        )
    return archive, content


def entries_told(printed: bytes, path: str) -> list[FileEntry]:
    """Return what ``LIST_SCRIPT`` printed."""
    found = []
    for line in printed.decode(errors="replace").splitlines():
        mode, size, modified, name = line.split(" ", 3)
        found.append(_entry(name, path, int(mode, 16) & _KINDS == _FOLDER, int(size), int(modified)))
    return sorted(found, key=lambda each: each.name)


def entries_packed(packed: IO[bytes], path: str) -> list[FileEntry]:
    """Return the names right below the folder of which this is the archive."""
    found = []
    with tarfile.open(fileobj=packed, mode="r:") as archive:
        for member in archive:
            parts = [part for part in member.name.split("/") if part not in ("", ".")]
            if len(parts) == 1:
                found.append(_entry(parts[0], path, member.isdir(), member.size, int(member.mtime)))
    return sorted(found, key=lambda each: each.name)


def file_not_found(path: str) -> NotFound:
    """Return the error for a path that is not there."""
    return NotFound(f"there is no {path}", code="file_not_found", resolution="list the folder above it")


def _entry(name: str, path: str, is_dir: bool, size: int, modified: int) -> FileEntry:  # noqa: FBT001 - one of a row
    return FileEntry(
        name=name, path=str(PurePosixPath("/", path, name)), is_dir=is_dir, size=size,
        modified=datetime.fromtimestamp(modified, UTC),
    )  # fmt: skip
