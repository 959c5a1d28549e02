"""The images of a folder, known by what is in them.

An index lies beside the images, so that a digest is computed once: it counts as long as the image looks unchanged
(size and times of everything in it). To look at a folder takes as long as it has files, so machines are made of what
was seen a moment ago. Whoever puts a file or folder there makes an image of it; what begins with a dot,
or is a machine's disk, is none.
"""

import hashlib
import itertools
import json
import os
import stat
import tarfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from borough.adapters import beneath
from borough.adapters.storage import trees
from borough.core.errors import Conflict, Invalid, NotFound
from borough.fleet.engines import Engine
from borough.fleet.images import Image, ImageForm
from borough.fleet.names import check_name

INDEX = ".images.json"
CLONE = "clone-"
KERNEL, ROOT = "vmlinux", "rootfs.ext4"
"""What a folder holds that Firecracker starts from."""
_CHUNK_BYTES = 1 << 20
_TRUSTED_S = 30.0
"""How long a folder that was looked at counts as unchanged for who makes machines of it."""
_QCOW2 = b"QFI\xfb"
_ARCHIVES = (b"\x1f\x8b", b"\xfd7zXZ\x00", b"BZh")
_USTAR_AT = 257


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An image with where it lies."""

    image: Image
    path: Path
    packed: bool
    """It is an archive of a folder."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What was seen of an image."""

    text: str
    """What changes when the image does."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Seen:
    """An image that was looked at a while ago."""

    entry: Entry
    outside: tuple[int, int, int]
    at: float
    """Seconds of the monotonic clock."""

    def is_there(self) -> bool:
        """Tell whether it is, and unchanged as seen from outside."""
        try:
            return _outside(self.entry.path) == self.outside
        except FileNotFoundError:
            return False


class Catalogue:
    """The images of one folder. Methods block; they may be called from any thread."""

    def __init__(self, folder: Path, *, own: Entry | None = None) -> None:
        """``own`` is an image beside them that lies elsewhere; one of its name in the folder has the name."""
        self._folder = folder
        self._own = own
        self._lock = threading.Lock()
        self._seen: dict[str, _Seen] = {}

    def all(self) -> list[Entry]:
        """Return every image, by name."""
        with self._lock:
            known = self._read()
            looked_at = [self._look(name, known) for name in sorted(self._names())]
            found = [entry for entry, _ in looked_at]
            now = {entry.image.name: remembered for entry, remembered in looked_at}
            if now != known:
                self._write(now)
        own = [] if self._own is None or self._own.image.name in now else [self._own]
        return sorted((*found, *own), key=lambda entry: entry.image.name)

    def get(self, name: str) -> Entry:
        """Return one; raises ``NotFound`` (``image_not_found``)."""
        with self._lock:
            if name not in self._names():
                if self._own is not None and self._own.image.name == name:
                    return self._own
                raise image_not_found(name)
            known = self._read()
            entry, remembered = self._look(name, known)
            if known.get(name) != remembered:
                self._write({**known, name: remembered})
        return entry

    def recent(self, name: str) -> Entry:
        """Return one as it was seen lately: a change deep in a folder may not be seen yet. Raises as ``get`` does."""
        seen = self._seen.get(name)
        if seen is not None and time.monotonic() < seen.at + _TRUSTED_S and seen.is_there():
            return seen.entry
        return self.get(name)

    def digests(self) -> list[str]:
        """Return those of the images that are there as far as is known, without looking into folders."""
        return [seen.entry.image.digest for seen in list(self._seen.values()) if seen.is_there()]

    def take(self, draft: Path, name: str, digest: str) -> Entry:
        """Take a finished file in under ``name``, in one step, with the digest that was computed while it came."""
        with self._lock:
            draft.replace(self._folder / name)
            known = self._read()
            path = self._folder / name
            entry, remembered = self._look(name, {**known, name: {"digest": digest, "looks": _look(path).text}})
            self._write({**known, name: remembered})
        return entry

    def _names(self) -> set[str]:
        found = set()
        for name in os.listdir(self._folder):  # noqa: PTH208 - names only
            try:
                check_name(name, what="an image")
            except Invalid:
                continue  # nothing that could be asked for
            if not name.startswith(CLONE):
                found.add(name)
        return found

    def _look(self, name: str, known: Mapping[str, Mapping[str, str]]) -> tuple[Entry, Mapping[str, str]]:
        """Return an image, and what is to be remembered of it."""
        path = self._folder / name
        outside, at = _outside(path), time.monotonic()
        look = _look(path)
        before = known.get(name, {})
        digest = before["digest"] if before.get("looks") == look.text else digest_of(path)
        form, packed = _form(path)
        about = path.stat()
        image = Image(
            name=name,
            form=form,
            digest=digest,
            size_bytes=look.size_bytes,
            created_at=datetime.fromtimestamp(about.st_mtime, UTC),
            engines=_engines(path, form, packed=packed),
        )
        entry = Entry(image=image, path=path, packed=packed)
        self._seen[name] = _Seen(entry, outside, at)
        return entry, {"digest": digest, "looks": look.text}

    def _read(self) -> dict[str, Mapping[str, str]]:
        try:
            told = json.loads((self._folder / INDEX).read_text())
        except (FileNotFoundError, ValueError):
            return {}  # it is made anew from the images themselves
        return told if isinstance(told, dict) else {}

    def _write(self, known: Mapping[str, Mapping[str, str]]) -> None:
        directory = beneath.open_directory(self._folder, [])
        try:
            beneath.write_private(directory, INDEX, json.dumps(known, indent=1, sort_keys=True).encode())
        finally:
            os.close(directory)


def digest_of(path: Path) -> str:
    """Return the digest of a file, or of a folder's archive."""
    hashed = hashlib.sha256()
    if path.is_dir():
        trees.pack(path, _Hashing(hashed.update))
    else:
        with path.open("rb") as content:
            while part := content.read(_CHUNK_BYTES):
                hashed.update(part)
    return f"sha256:{hashed.hexdigest()}"


def check_digest(image: Image, arrived: str) -> None:
    """Compare what arrived with what was announced; raises ``Conflict`` (``digest_mismatch``)."""
    if arrived != image.digest:
        raise Conflict(
            f"what arrived as {image.name} is not what was announced",
            code="digest_mismatch",
            reason=f"announced {image.digest}, arrived {arrived}",
            resolution="send it again; if that fails too, the source has changed",
        )


def image_not_found(name: str) -> NotFound:
    """Return the error for an image that is not here."""
    return NotFound(
        f"there is no image {name[:80]!r} on this host",
        code="image_not_found",
        resolution="list them: tt image list; make one: tt image create",
    )


@dataclass(frozen=True, slots=True)
class _Hashing:
    """Takes an archive as it is made, and keeps its digest only."""

    update: Callable[[bytes], None]

    def write(self, content: bytes, /) -> int:
        self.update(content)
        return len(content)


def _outside(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file does, or when another image takes a folder's place."""
    about = path.stat()
    return about.st_ino, about.st_size, about.st_mtime_ns


def _look(path: Path) -> _Look:
    """Look at an image: of a folder, at size and time of all that is in it."""
    if not path.is_dir():
        inode, size, changed = _outside(path)
        return _Look(f"{inode}:{size}:{changed}", size)
    hashed, size = hashlib.sha256(), 0
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted((*folders, *files)):
            one = os.lstat(f"{folder}/{name}")
            hashed.update(f"{folder}/{name}\0{one.st_mode}:{one.st_size}:{one.st_mtime_ns}:{one.st_uid}\n".encode())
            size += 0 if stat.S_ISDIR(one.st_mode) else one.st_size
    return _Look(hashed.hexdigest(), size)


def _form(path: Path) -> tuple[ImageForm, bool]:
    if path.is_dir():
        return ImageForm.FOLDER, False
    with path.open("rb") as file:
        head = file.read(_USTAR_AT + 5)
    if head.startswith(_QCOW2):
        return ImageForm.QCOW2, False
    if head.startswith(_ARCHIVES) or head[_USTAR_AT:] == b"ustar":
        return ImageForm.FOLDER, True
    return ImageForm.RAW, False


def _engines(path: Path, form: ImageForm, *, packed: bool) -> frozenset[Engine]:
    if form is not ImageForm.FOLDER:
        return frozenset({Engine.QEMU, Engine.BHYVE})
    names = _first_names(path) if packed else {name for name in (KERNEL, ROOT) if (path / name).is_file()}
    if {KERNEL, ROOT} <= names:
        return frozenset({Engine.FIRECRACKER})
    return frozenset({Engine.BUBBLEWRAP, Engine.JAIL})


def _first_names(path: Path) -> set[str]:
    """Return the first names in an archive: what Firecracker starts from is nothing but two files."""
    try:
        with tarfile.open(path, mode="r:*") as archive:
            return {member.name.removeprefix("./") for member in itertools.islice(archive, 4)}
    except tarfile.TarError:
        return set()  # it is told when somebody wants a machine of it
