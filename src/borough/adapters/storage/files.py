"""The port ``DiskStore`` with files.

A disk image is the read-only base of a thin layer (``qemu-img``), or is copied; a root folder stays where it is, and a
machine gets an empty layer over it. What a machine's disk stands on never changes under it: it is linked or unpacked
under its digest, and stays as long as a disk refers to it.
"""

import asyncio
import errno
import hashlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from borough.adapters import process
from borough.adapters.storage.bases import BASES, LOWER, Bases, OwnImage, stands_on
from borough.adapters.storage.catalogue import CLONE, KERNEL, Catalogue, Entry, check_digest
from borough.adapters.storage.copying import copy
from borough.adapters.storage.layers import remove_tree
from borough.adapters.storage.quotas import Quotas
from borough.adapters.storage.streams import packed_chunks, plain_chunks
from borough.core.errors import Conflict, NotFound, Unavailable
from borough.fleet.images import Image, ImageForm
from borough.fleet.names import check_name
from borough.fleet.ports.disks import Disk
from borough.fleet.vms import VmId, check_vm_id

UPPER, WORK = "upper", "work"
"""In the disk of a machine whose image is a root folder, beside a link to that (``LOWER``): the layer over it."""
_MIB = 1 << 20
_FORM_NAMES = {ImageForm.QCOW2: "qcow2", ImageForm.RAW: "raw"}
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}
_SIZE_AT = 24
"""Of the virtual size in the head of a qcow2 file."""
Result = TypeVar("Result")


class FileStore:
    """Images in one folder, disks in another; best on one file system. Use it from one event loop."""

    def __init__(
        self,
        *,
        images: Path,
        runtime: Path,
        qemu_img: str | None = None,
        own: OwnImage | None = None,
        quotas: Quotas | None = None,
    ) -> None:
        """``qemu_img`` is the program, looked for unless it is named; ``own`` the image that is this host itself;
        ``quotas`` limit layers, where the file system of ``runtime`` can.
        """
        self._images = images
        self._runtime = runtime
        self._qemu_img = qemu_img if qemu_img is not None else shutil.which("qemu-img")
        for folder in (images, runtime):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._own = own
        self._quotas = quotas
        entry = None if own is None else Entry(image=own.image, path=own.path, packed=False)
        self._catalogue = Catalogue(images, own=entry)
        self._bases = Bases(images / BASES, runtime, self._catalogue, own)

    async def images(self) -> Sequence[Image]:
        """Return what is there, by name."""
        return [entry.image for entry in await asyncio.to_thread(self._catalogue.all)]

    async def image(self, name: str) -> Image:
        """Return one; raises ``NotFound`` (``image_not_found``)."""
        return (await asyncio.to_thread(self._catalogue.get, name)).image

    async def clone(self, image: str, vm_id: VmId, *, size_mib: int) -> Disk:
        """Make a machine's disk, or return the one that is there; raises as the port says."""
        return await asyncio.to_thread(_with_room, lambda: self._clone(image, vm_id, size_mib * _MIB))

    async def fill(self, vm_id: VmId, make: Callable[[Path], Awaitable[None]]) -> Disk:
        """Have ``make`` write a machine's disk, whole or not at all; raises as the port says."""
        with suppress(NotFound):
            return await self.disk(vm_id)
        draft = self._draft(vm_id)
        try:
            await make(draft)
            await asyncio.to_thread(draft.rename, self._path(vm_id))
        except OSError as failure:
            raise _told_of(failure) from failure
        finally:
            await asyncio.to_thread(remove_tree, draft)
        return await self.disk(vm_id)

    async def disk(self, vm_id: VmId) -> Disk:
        """Return a machine's disk; raises ``NotFound`` (``disk_not_found``)."""
        return await asyncio.to_thread(self._disk, vm_id)

    async def remove(self, vm_id: VmId) -> None:
        """Remove a machine's disk, and what only it stood on; none there is no error."""
        await asyncio.to_thread(self._remove, vm_id)

    async def disks(self) -> Sequence[VmId]:
        """Return the machines that have disks here."""
        names = await asyncio.to_thread(os.listdir, self._runtime)
        return [vm_id for name in sorted(names) if (vm_id := _vm_id(name)) is not None]

    async def put(self, image: Image, content: AsyncIterator[bytes]) -> Image:
        """Take an image in, whole or not at all; raises ``Conflict`` (``digest_mismatch``, ``disk_full``)."""
        check_name(image.name, what="an image")
        if self._own is not None and image.name == self._own.image.name:
            raise _own_name(image.name)
        draft = self._images / f".incoming-{uuid4().hex}"
        hashed = hashlib.sha256()
        try:
            with draft.open("xb") as file:
                async for part in content:
                    hashed.update(part)
                    await asyncio.to_thread(_with_room, lambda part=part: file.write(part))
                await asyncio.to_thread(_flush, file.fileno)
            digest = f"sha256:{hashed.hexdigest()}"
            check_digest(image, digest)
            return (await asyncio.to_thread(self._catalogue.take, draft, image.name, digest)).image
        finally:
            draft.unlink(missing_ok=True)

    async def content(self, name: str) -> AsyncIterator[bytes]:
        """Yield an image as it travels: a file as it is, a folder as an archive."""
        entry = await asyncio.to_thread(self._catalogue.get, name)
        if not entry.image.travels:
            raise _stays(name)
        chunks = packed_chunks(entry.path) if entry.path.is_dir() else plain_chunks(entry.path)
        async for part in chunks:
            yield part

    # -- in threads ----------------------------------------------------------------------------------------------------

    def _clone(self, name: str, vm_id: VmId, size_bytes: int) -> Disk:
        with suppress(NotFound):
            return self._disk(vm_id)
        entry = self._catalogue.recent(name)
        draft = self._draft(vm_id)
        try:
            if entry.image.form is ImageForm.FOLDER:
                self._folder(entry, draft, size_bytes)
            else:
                self._file(entry, draft, size_bytes)
            draft.rename(self._path(vm_id))
        finally:
            remove_tree(draft)
        return self._disk(vm_id)

    def _folder(self, entry: Entry, draft: Path, size_bytes: int) -> None:
        if entry.image.size_bytes > size_bytes:
            raise _too_large(entry.image.name, entry.image.size_bytes, size_bytes)
        root = self._bases.folder(entry)
        if self._quotas is None:
            draft.mkdir(mode=0o755)
        else:
            self._quotas.make(draft, size_bytes)
        if (root / KERNEL).is_file() or not sys.platform.startswith("linux"):
            for source in sorted(root.iterdir()):
                copy(source, draft / source.name) if source.is_file() else shutil.copytree(
                    source, draft / source.name, symlinks=True
                )
            return
        (draft / LOWER).symlink_to(root)
        for layer in (UPPER, WORK):
            (draft / layer).mkdir(mode=0o755)

    def _file(self, entry: Entry, draft: Path, size_bytes: int) -> None:
        form = _FORM_NAMES[entry.image.form]
        own_bytes = virtual_size(entry.path, entry.image.form)
        if own_bytes > size_bytes:
            raise _too_large(entry.image.name, own_bytes, size_bytes)
        if entry.image.form is ImageForm.RAW:
            copy(entry.path, draft)
            os.truncate(draft, size_bytes)
            return
        if self._qemu_img is None:
            if own_bytes != size_bytes:
                raise Unavailable(
                    f"a disk of {entry.image.name} cannot be made larger on this host",
                    code="program_missing",
                    reason="there is no qemu-img",
                    resolution=f"install qemu-utils, or ask for a disk of {own_bytes // _MIB} MiB",
                )
            copy(entry.path, draft)
            return
        base = self._bases.file(entry)
        argv = [self._qemu_img, "create", "-q", "-f", "qcow2", "-b", str(base), "-F", form, str(draft), str(size_bytes)]
        finished = process.run(argv, env=_ENVIRONMENT)
        if finished.code != 0:
            raise Unavailable(
                f"a disk of {entry.image.name} could not be made: {finished.words}",
                code="disk_failed",
                resolution=f"see whether the image is whole: qemu-img check {entry.path}",
            )

    def _disk(self, vm_id: VmId) -> Disk:
        path = self._path(vm_id)
        if path.is_dir():
            return Disk(path=path, form=ImageForm.FOLDER, enforced=self._is_limited(path))
        try:
            with path.open("rb") as file:
                form = ImageForm.QCOW2 if file.read(4) == b"QFI\xfb" else ImageForm.RAW
        except FileNotFoundError:
            raise NotFound(
                f"{vm_id} has no disk", code="disk_not_found", resolution="delete the machine and make it again"
            ) from None
        return Disk(path=path, form=form, enforced=True)

    def _is_limited(self, disk: Path) -> bool:
        return (disk / KERNEL).is_file() or (self._quotas is not None and self._quotas.is_limited(disk))

    def _remove(self, vm_id: VmId) -> None:
        doomed = self._runtime / f".removing-{uuid4().hex}"
        base = stands_on(self._path(vm_id))
        with suppress(FileNotFoundError):
            self._path(vm_id).rename(doomed)
        for left in self._runtime.iterdir():
            # Of this machine, or what an earlier removal or making was interrupted at.
            if left.name.startswith((".removing-", f".making-{vm_id}-")):
                remove_tree(left)
        self._bases.let_go(base)

    def _draft(self, vm_id: VmId) -> Path:
        return self._runtime / f".making-{check_vm_id(vm_id)}-{uuid4().hex[:8]}"

    def _path(self, vm_id: VmId) -> Path:
        return self._runtime / f"{CLONE}{check_vm_id(vm_id)}"


def virtual_size(path: Path, form: ImageForm) -> int:
    """Return how large a disk an image is, as a machine sees it."""
    if form is not ImageForm.QCOW2:
        return path.stat().st_size
    with path.open("rb") as file:
        file.seek(_SIZE_AT)
        return int.from_bytes(file.read(8), "big")


def _vm_id(name: str) -> VmId | None:
    if not name.startswith(CLONE):
        return None
    try:
        return check_vm_id(name[len(CLONE) :])
    except ValueError:
        return None  # nothing that we made


def _with_room(act: Callable[[], Result]) -> Result:
    try:
        return act()
    except OSError as failure:
        raise _told_of(failure) from failure


def _told_of(failure: OSError) -> Exception:
    """Return what is told of a failure: that there is no room, or itself."""
    if failure.errno not in (errno.ENOSPC, errno.EDQUOT):
        return failure
    return Conflict(
        "there is no room left on this host's disk",
        code="disk_full",
        reason=str(failure),
        resolution="delete environments or images that are not needed",
    )


def _too_large(name: str, own_bytes: int, size_bytes: int) -> Conflict:
    return Conflict(
        f"the image {name} does not fit on a disk of {size_bytes // _MIB} MiB",
        code="image_too_large",
        resolution=f"ask for at least {-(-own_bytes // _MIB)} MiB",
    )


def _own_name(name: str) -> Conflict:
    return Conflict(
        f"{name} is this host itself, and no other image can have that name here",
        code="image_name_taken",
        resolution="give the image another name",
    )


def _stays(name: str) -> Conflict:
    return Conflict(
        f"{name} is this host itself and cannot be carried elsewhere",
        code="image_stays",
        resolution="offer the other host's own programs there: tt-agent --host-image",
    )


def _flush(fileno: Callable[[], int]) -> None:
    os.fsync(fileno())
