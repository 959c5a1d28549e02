"""What machines' disks stand on: images under their digests, where nothing changes them.

A file is linked there, an archive unpacked; both stay as long as a disk refers to them or they are still an image.
"""

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from borough.adapters.storage import trees
from borough.adapters.storage.catalogue import Catalogue, Entry
from borough.adapters.storage.copying import copy
from borough.adapters.storage.layers import remove_tree
from borough.core.errors import Unavailable
from borough.fleet.images import Image

BASES = ".bases"
"""Their folder, beside the images."""
LOWER = "lower"
"""In the disk of a machine whose image is a root folder: a link to that."""
_NAMES = "sha256-"


class OwnImage(Protocol):
    """An image that is this host itself."""

    @property
    def image(self) -> Image:
        """What is told of it."""

    @property
    def path(self) -> Path:
        """Its folder, which has the name of its digest."""

    def keep_only(self, names: frozenset[str]) -> None:
        """Remove folders of before that are not among ``names``."""


class Bases:
    """The bases of one store. Methods block; they may be called from any thread."""

    def __init__(self, folder: Path, disks: Path, catalogue: Catalogue, own: OwnImage | None) -> None:
        """``folder``: where they lie; ``disks``: where the disks lie that stand on them; ``own``: this host as one."""
        self._folder = folder
        self._disks = disks
        self._catalogue = catalogue
        self._own = own
        self._swept = False
        """Whether bases that nothing needs have been looked for since we started."""
        self._unpacking = threading.Lock()
        """Machines that are made at the same time of one archive stand on one unpacked folder."""

    def file(self, entry: Entry) -> Path:
        """Return the image under its digest, where it stays although another takes its name."""
        place = self._folder / _base_name(entry.image.digest)
        place.parent.mkdir(mode=0o755, exist_ok=True)
        if not place.exists():
            draft = place.with_name(f".{place.name}-{uuid4().hex[:8]}")
            try:
                os.link(entry.path, draft)
            except OSError:
                copy(entry.path, draft)  # another file system, or one without links
            draft.rename(place)
        return place

    def folder(self, entry: Entry) -> Path:
        """Return an image's root folder; an archive is unpacked once, under its digest."""
        if not entry.packed:
            return entry.path.resolve()
        place = self._folder / _base_name(entry.image.digest)
        place.parent.mkdir(mode=0o755, exist_ok=True)
        with self._unpacking:
            if not place.exists():
                _unpack(entry, place)
        return place.resolve()

    def let_go(self, base: str | None) -> None:
        """A disk that stood on ``base`` is gone: remove bases that nothing stands on and that no image is."""
        if not self._swept or (base is not None and self._is_of_before(base)):
            self._remove_unused()
            self._swept = True

    def _is_of_before(self, base: str) -> bool:
        """Tell whether a base may be one that no image is any more; looks at no folder."""
        own = None if self._own is None else self._own.path.name
        return base.startswith(_NAMES) and base != own and base not in map(_base_name, self._catalogue.digests())

    def _remove_unused(self) -> None:
        """Remove bases on which nothing stands any more and which no image is."""
        bases = self._folder
        if not bases.is_dir() and self._own is None:
            return
        needed = {_base_name(entry.image.digest) for entry in self._catalogue.all()}
        for disk in self._disks.iterdir():
            needed |= {base for base in (stands_on(disk),) if base is not None}
        if self._own is not None:
            self._own.keep_only(frozenset(needed))
        for base in bases.iterdir() if bases.is_dir() else ():
            if base.name not in needed and not base.name.startswith("."):
                remove_tree(base)


def stands_on(disk: Path) -> str | None:
    """Return the name of what a disk stands on, ``None`` if it stands on nothing or is not there."""
    if disk.is_dir():
        with suppress(OSError):  # a disk without layers
            return (disk / LOWER).readlink().name
        return None
    try:
        file = disk.open("rb")
    except FileNotFoundError:  # somebody else has just removed it
        return None
    with file:
        head = file.read(20)
        if not head.startswith(b"QFI\xfb"):
            return None
        file.seek(int.from_bytes(head[8:16], "big"))
        return Path(os.fsdecode(file.read(int.from_bytes(head[16:20], "big")))).name


def _base_name(digest: str) -> str:
    return digest.replace(":", "-")


def _unpack(entry: Entry, place: Path) -> None:
    draft = place.with_name(f".{place.name}-{uuid4().hex[:8]}")
    draft.mkdir(mode=0o755)
    try:
        with entry.path.open("rb") as archive:
            trees.unpack(archive, draft)
        draft.rename(place)
    except trees.Unpackable as error:
        raise Unavailable(
            f"{entry.image.name} cannot be unpacked: {error}",
            code="disk_failed",
            resolution="make or fetch the image again",
        ) from error
    except OSError:
        if not place.is_dir():  # else another daemon with the same images was faster
            raise
    finally:
        remove_tree(draft)
