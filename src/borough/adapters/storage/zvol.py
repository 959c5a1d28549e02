"""The port ``DiskStore`` with ZFS: images are volumes of one dataset, disks are clones of their snapshots in another.

What is ours is marked by a property of its own on every dataset we make; nothing without it is destroyed. An image's
digest is kept in a property too, since reading a volume whole is slow; images are never written to once they are there.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from borough.adapters import process
from borough.adapters.process import Finished
from borough.adapters.storage.catalogue import CLONE, check_digest, digest_of, image_not_found
from borough.adapters.storage.streams import plain_chunks
from borough.core.errors import Conflict, NotFound, Unavailable
from borough.fleet.engines import Engine
from borough.fleet.images import Image, ImageForm
from borough.fleet.names import check_name
from borough.fleet.ports.disks import Disk
from borough.fleet.vms import VmId, check_vm_id

MARK = "borough:marker"
DIGEST = "borough:digest"
SNAPSHOT = "borough"
_MIB = 1 << 20
_NODES = Path("/dev/zvol")
_NODE_WITHIN_S = 10.0
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin", "LC_ALL": "C"}

Run = Callable[[Sequence[str]], Finished]


def list_argv(dataset: str) -> list[str]:
    """List the volumes right below a dataset, with what is known of each."""
    columns = f"name,volsize,written,creation,{DIGEST},{MARK}"
    return ["zfs", "list", "-H", "-p", "-d", "1", "-t", "volume", "-o", columns, dataset]


def snapshot_argv(volume: str) -> list[str]:
    """Freeze an image, for clones to stand on."""
    return ["zfs", "snapshot", f"{volume}@{SNAPSHOT}"]


def clone_argv(volume: str, disk: str, marker: str) -> list[str]:
    """Make a disk from a frozen image; it shares what it does not change."""
    return ["zfs", "clone", "-o", f"{MARK}={marker}", f"{volume}@{SNAPSHOT}", disk]


def resize_argv(disk: str, size_bytes: int) -> list[str]:
    """Make a disk as large as asked for."""
    return ["zfs", "set", f"volsize={size_bytes}", disk]


def destroy_argv(disk: str) -> list[str]:
    """Remove a disk and its snapshots."""
    return ["zfs", "destroy", "-r", disk]


def create_argv(volume: str, size_bytes: int) -> list[str]:
    """Make an empty volume, without setting its size aside."""
    return ["zfs", "create", "-s", "-V", str(size_bytes), volume]


def note_argv(volume: str, digest: str) -> list[str]:
    """Note an image's digest on it."""
    return ["zfs", "set", f"{DIGEST}={digest}", volume]


def rename_argv(volume: str, to: str) -> list[str]:
    """Give a volume its name, in one step."""
    return ["zfs", "rename", volume, to]


class ZvolStore:
    """Images below one dataset, disks below another. Use it from one event loop."""

    def __init__(self, *, images: str, runtime: str, marker: str, run: Run | None = None, nodes: Path = _NODES) -> None:
        """``images`` and ``runtime`` are datasets; ``marker`` is the host's own."""
        self._images, self._runtime, self._marker = images, runtime, marker
        self._run = run or _run
        self._nodes = nodes

    async def images(self) -> Sequence[Image]:
        """Return what is there, by name."""
        rows = await self._list(self._images)
        return [await self._image(row) for name, row in sorted(rows.items()) if not name.startswith((".", CLONE))]

    async def image(self, name: str) -> Image:
        """Return one; raises ``NotFound`` (``image_not_found``)."""
        row = (await self._list(self._images)).get(name)
        if row is None:
            raise image_not_found(name)
        return await self._image(row)

    async def clone(self, image: str, vm_id: VmId, *, size_mib: int) -> Disk:
        """Make a machine's disk, or return the one that is there; raises as the port says."""
        disk = self._disk_name(vm_id)
        if vm_id not in await self.disks():
            base = await self.image(image)
            if base.size_bytes > size_mib * _MIB:
                raise Conflict(
                    f"the image {image} does not fit on a disk of {size_mib} MiB",
                    code="image_too_large",
                    resolution=f"ask for at least {-(-base.size_bytes // _MIB)} MiB",
                )
            volume = f"{self._images}/{image}"
            await self._do(snapshot_argv(volume), but="dataset already exists")
            await self._do(clone_argv(volume, disk, self._marker))
        await self._do(resize_argv(disk, size_mib * _MIB))
        return await self._disk(disk)

    async def fill(self, vm_id: VmId, make: Callable[[Path], Awaitable[None]]) -> Disk:  # noqa: ARG002 - the port's
        """Raise ``Conflict`` (``not_possible``): the disk of every machine is a clone of its image."""
        raise Conflict(
            f"no disk of {vm_id} can be made but from an image",
            code="not_possible",
            reason="the disks of this host are volumes, and engines keep no snapshots in volumes",
            resolution="make the machine from its image, or on a host with storage=file",
        )

    async def disk(self, vm_id: VmId) -> Disk:
        """Return a machine's disk; raises ``NotFound`` (``disk_not_found``)."""
        if vm_id not in await self.disks():
            raise NotFound(
                f"{vm_id} has no disk", code="disk_not_found", resolution="delete the machine and make it again"
            )
        return await self._disk(self._disk_name(vm_id))

    async def remove(self, vm_id: VmId) -> None:
        """Remove a machine's disk; none there is no error."""
        if vm_id in await self.disks():
            await self._do(destroy_argv(self._disk_name(vm_id)), but="dataset does not exist")

    async def disks(self) -> Sequence[VmId]:
        """Return the machines that have disks here; only what carries our mark counts."""
        rows = await self._list(self._runtime)
        return [
            check_vm_id(name[len(CLONE) :])
            for name, row in sorted(rows.items())
            if name.startswith(CLONE) and row["marker"] == self._marker
        ]

    async def put(self, image: Image, content: AsyncIterator[bytes]) -> Image:
        """Take an image in, whole or not at all; raises ``Conflict`` (``digest_mismatch``, ``image_exists``)."""
        check_name(image.name, what="an image")
        if image.name in await self._list(self._images):
            raise Conflict(
                f"there is an image {image.name} already",
                code="image_exists",
                resolution="volumes are not replaced: take another name, or destroy the old one",
            )
        draft = f"{self._images}/.incoming-{image.name}"
        await self._do(create_argv(draft, -(-image.size_bytes // _MIB) * _MIB))
        hashed = hashlib.sha256()
        try:
            node = await self._node(draft)
            with node.open("r+b") as device:
                async for part in content:
                    hashed.update(part)
                    await asyncio.to_thread(device.write, part)
            digest = f"sha256:{hashed.hexdigest()}"
            check_digest(image, digest)
            await self._do(note_argv(draft, digest))
            await self._do(rename_argv(draft, f"{self._images}/{image.name}"))
        except BaseException:
            await self._do(destroy_argv(draft), but="dataset does not exist")
            raise
        return await self.image(image.name)

    async def content(self, name: str) -> AsyncIterator[bytes]:
        """Yield a volume's bytes."""
        await self.image(name)
        async for part in plain_chunks(await self._node(f"{self._images}/{name}")):
            yield part

    async def _list(self, dataset: str) -> Mapping[str, Mapping[str, str]]:
        rows = {}
        for line in (await self._do(list_argv(dataset))).decode().splitlines():
            name, size, written, creation, digest, marker = line.split("\t")
            short = name.rpartition("/")[2]
            if name != dataset:
                rows[short] = {
                    "name": short, "size": size, "written": written, "creation": creation, "digest": digest,
                    "marker": marker,
                }  # fmt: skip
        return rows

    async def _image(self, row: Mapping[str, str]) -> Image:
        digest = row["digest"]
        if digest == "-":
            volume = f"{self._images}/{row['name']}"
            digest = await asyncio.to_thread(digest_of, await self._node(volume))
            await self._do(note_argv(volume, digest))
        return Image(
            name=row["name"],
            form=ImageForm.VOLUME,
            digest=digest,
            size_bytes=int(row["size"]),
            created_at=datetime.fromtimestamp(int(row["creation"]), UTC),
            engines=frozenset({Engine.QEMU, Engine.BHYVE}),
        )

    async def _disk(self, disk: str) -> Disk:
        return Disk(path=await self._node(disk), form=ImageForm.VOLUME, enforced=True)

    async def _node(self, volume: str) -> Path:
        """Return the device of a volume, once it is there: it is made a moment after the volume."""
        node = self._nodes / volume
        deadline = asyncio.get_running_loop().time() + _NODE_WITHIN_S
        while not await asyncio.to_thread(node.exists):
            if asyncio.get_running_loop().time() > deadline:
                raise _failed(f"the device {node} does not appear")
            await asyncio.sleep(0.02)
        return node

    def _disk_name(self, vm_id: VmId) -> str:
        return f"{self._runtime}/{CLONE}{check_vm_id(vm_id)}"

    async def _do(self, argv: Sequence[str], *, but: str | None = None) -> bytes:
        finished = await asyncio.to_thread(self._run, argv)
        if finished.code == 0 or (but is not None and but in finished.words):
            return finished.stdout
        if "out of space" in finished.words:
            raise Conflict(
                "there is no room left in the pool",
                code="disk_full",
                reason=finished.words,
                resolution="delete environments or images that are not needed",
            )
        raise _failed(finished.words)


def _run(argv: Sequence[str]) -> Finished:
    return process.run(argv, env=_ENVIRONMENT)


def _failed(said: str) -> Unavailable:
    return Unavailable(
        f"zfs could not do it: {said}",
        code="disk_failed",
        resolution="see that the datasets exist and that this program may administer them: zfs list",
    )
