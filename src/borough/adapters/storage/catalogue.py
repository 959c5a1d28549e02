"""The images of a folder, known by what is in them.

An index lies beside the images, so that a digest is computed once: it counts as long as the image looks unchanged
(size and times of everything in it). Whoever puts a file or folder there makes an image of it; what begins with a dot,
or is a machine's disk, is none.
"""

import hashlib
import itertools
import json
import os
import tarfile
import threading
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


class Catalogue:
    """The images of one folder. Methods block; they may be called from any thread."""

    def __init__(self, folder: Path, *, own: Entry | None = None) -> None:
        """``own`` is an image beside them that lies elsewhere; one of its name in the folder has the name."""
        self._folder = folder
        self._own = own
        self._lock = threading.Lock()

    def all(self) -> list[Entry]:
        """Return every image, by name."""
        with self._lock:
            known = self._read()
            found = [self._look(name, known) for name in sorted(self._names())]
            now = {entry.image.name: _remembered(entry) for entry in found}
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
            entry = self._look(name, known)
            if known.get(name) != _remembered(entry):
                self._write({**known, name: _remembered(entry)})
        return entry

    def take(self, draft: Path, name: str, digest: str) -> Entry:
        """Take a finished file in under ``name``, in one step, with the digest that was computed while it came."""
        with self._lock:
            draft.replace(self._folder / name)
            known = self._read()
            entry = self._look(name, {**known, name: {"digest": digest, "looks": _looks(self._folder / name)}})
            self._write({**known, name: _remembered(entry)})
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

    def _look(self, name: str, known: Mapping[str, Mapping[str, str]]) -> Entry:
        path = self._folder / name
        looks = _looks(path)
        before = known.get(name, {})
        digest = before["digest"] if before.get("looks") == looks else digest_of(path)
        form, packed = _form(path)
        about = path.stat()
        image = Image(
            name=name,
            form=form,
            digest=digest,
            size_bytes=_size(path),
            created_at=datetime.fromtimestamp(about.st_mtime, UTC),
            engines=_engines(path, form, packed=packed),
        )
        return Entry(image=image, path=path, packed=packed)

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


def _remembered(entry: Entry) -> Mapping[str, str]:
    return {"digest": entry.image.digest, "looks": _looks(entry.path)}


def _looks(path: Path) -> str:
    """Return what changes when the image does: of a folder, size and time of all that is in it, hashed."""
    about = path.stat()
    if not path.is_dir():
        return f"{about.st_ino}:{about.st_size}:{about.st_mtime_ns}"
    hashed = hashlib.sha256()
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted((*folders, *files)):
            one = os.lstat(f"{folder}/{name}")
            hashed.update(f"{folder}/{name}\0{one.st_mode}:{one.st_size}:{one.st_mtime_ns}:{one.st_uid}\n".encode())
    return hashed.hexdigest()


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    return sum(os.lstat(f"{folder}/{name}").st_size for folder, _, files in os.walk(path) for name in files)


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
