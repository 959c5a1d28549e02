"""Folders as archives. The same folder is always the same bytes, so its digest is the digest of its archive.

Devices are left out: a machine gets its own. Unpacking never leaves the folder it was told to fill: every step is
opened beneath it without following links, and two dots are refused.
"""

import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

from borough.adapters import beneath

_CHUNK_BYTES = 1 << 20


class Unpackable(Exception):
    """The archive is broken, or wants to write where it must not."""


class Sink(Protocol):
    """Where an archive goes."""

    def write(self, content: bytes, /) -> int:
        """Take a part."""


def pack(root: Path, into: Sink) -> None:
    """Write the archive of a folder."""
    with tarfile.open(
        fileobj=into,  # type: ignore[call-overload]  # it needs no more than ``write``
        mode="w|",
        format=tarfile.GNU_FORMAT,
        bufsize=_CHUNK_BYTES,
    ) as archive:
        known: dict[tuple[int, int], str] = {}
        for name, path in _walk(root):
            entry = _entry(name, path, known)
            if entry is None:
                continue
            if entry.isreg():
                with path.open("rb") as content:
                    archive.addfile(entry, content)
            else:
                archive.addfile(entry)


def unpack(source: IO[bytes], root: Path, *, owned: bool = True) -> int:
    """Unpack an archive, plain or compressed, into ``root``; return how many bytes of files it had.

    With ``owned``, and as root, everything belongs to whom the archive says; else to whoever unpacks.

    Raises:
        Unpackable: it is none, or leads out of the folder.
    """
    size = 0
    times: list[tuple[list[str], int, int]] = []
    try:
        with tarfile.open(fileobj=source, mode="r|*", bufsize=_CHUNK_BYTES) as archive:
            for member in archive:
                parts = _parts(member.name)
                if not parts:
                    continue
                if member.isdir():
                    times.append((parts, member.mode, int(member.mtime)))
                _put(archive, member, root, parts, owned=owned and os.geteuid() == 0)
                size += member.size if member.isreg() else 0
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise Unpackable(str(error)) from error
    for parts, mode, mtime in reversed(times):
        _settle(root, parts, mode, mtime)
    return size


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        below = sorted(os.listdir(root / folder))  # noqa: PTH208 - names only
        for name in below:
            yield f"{folder}{name}", root / folder / name
        waiting += [
            f"{folder}{name}/" for name in reversed(below) if stat.S_ISDIR((root / folder / name).lstat().st_mode)
        ]


def _entry(name: str, path: Path, known: dict[tuple[int, int], str]) -> tarfile.TarInfo | None:
    about = path.lstat()
    entry = tarfile.TarInfo(name)
    entry.mode, entry.mtime = stat.S_IMODE(about.st_mode), int(about.st_mtime)
    entry.uid, entry.gid = about.st_uid, about.st_gid
    if stat.S_ISDIR(about.st_mode):
        entry.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(about.st_mode):
        entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
    elif stat.S_ISFIFO(about.st_mode):
        entry.type = tarfile.FIFOTYPE
    elif stat.S_ISREG(about.st_mode):
        first = known.setdefault((about.st_dev, about.st_ino), name)
        if first != name:
            entry.type, entry.linkname = tarfile.LNKTYPE, first
        else:
            entry.size = about.st_size
    else:
        return None
    return entry


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise Unpackable(f"{name!r} leads out of the folder")
    return parts


def _put(archive: tarfile.TarFile, member: tarfile.TarInfo, root: Path, parts: list[str], *, owned: bool) -> None:
    *folders, name = parts
    try:
        directory = beneath.open_directory(root, folders, create=True, mode=0o755)
    except OSError as error:
        raise Unpackable(f"{member.name!r} lies behind a link, or in what is no folder: {error.strerror}") from error
    try:
        if member.isdir():
            with suppress(FileExistsError):  # made before as somebody's parent; its mode is set at the end
                os.mkdir(name, 0o755, dir_fd=directory)
            if owned:
                _own(name, directory, member)
            return
        with suppress(FileNotFoundError):  # the later of two entries counts
            os.unlink(name, dir_fd=directory)
        if member.isreg():
            _write(archive, member, directory, name, owned=owned)
        elif member.issym():
            os.symlink(member.linkname, name, dir_fd=directory)
            if owned:
                _own(name, directory, member)
            _date(name, directory, member)
        elif member.islnk():
            _link(root, _parts(member.linkname), directory, name)
        elif member.isfifo():
            os.mkfifo(name, member.mode & 0o7777, dir_fd=directory)
            _date(name, directory, member)
    finally:
        os.close(directory)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, directory: int, name: str, *, owned: bool) -> None:
    content = archive.extractfile(member)
    file = beneath.open_file(directory, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with os.fdopen(file, "wb") as writer:
        while content is not None and (part := content.read(_CHUNK_BYTES)):
            writer.write(part)
        writer.flush()
        if owned:
            os.fchown(writer.fileno(), member.uid, member.gid)
        os.fchmod(writer.fileno(), member.mode & 0o7777)
        os.utime(writer.fileno(), (int(member.mtime), int(member.mtime)))


def _link(root: Path, target: list[str], directory: int, name: str) -> None:
    *folders, first = target
    source = beneath.open_directory(root, folders)
    try:
        os.link(first, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        raise Unpackable(f"{name!r} is a link to {'/'.join(target)!r}, which is not there") from None
    finally:
        os.close(source)


def _own(name: str, directory: int, member: tarfile.TarInfo) -> None:
    os.chown(name, member.uid, member.gid, dir_fd=directory, follow_symlinks=False)


def _date(name: str, directory: int, member: tarfile.TarInfo) -> None:
    os.utime(name, (int(member.mtime), int(member.mtime)), dir_fd=directory, follow_symlinks=False)


def _settle(root: Path, parts: list[str], mode: int, mtime: int) -> None:
    directory = beneath.open_directory(root, parts)
    try:
        os.fchmod(directory, mode & 0o7777)
        os.utime(directory, (mtime, mtime))
    finally:
        os.close(directory)
