"""From a recipe to an image in the host's store."""

import asyncio
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from borough.adapters.images import foreign_roots, local_root, local_vm
from borough.adapters.images.fetching import Progress, fetch
from borough.adapters.images.tools import image_failed, run
from borough.adapters.storage.catalogue import digest_of
from borough.adapters.storage.streams import packed_chunks, plain_chunks
from borough.core.errors import NotFound, Unavailable
from borough.fleet.engines import Engine
from borough.fleet.images import Image, ImageForm, Recipe, checksum_given
from borough.fleet.ports.disks import DiskStore
from borough.fleet.storage import Storage


class Containers(Protocol):
    """A container runtime's own store of images."""

    async def has(self, name: str) -> bool:
        """Tell whether it has an image of that name; raises ``Unavailable`` when it does not answer."""

    async def fetch(self, reference: str, name: str, *, progress: Progress) -> None:
        """Fetch a reference and give it a name; raises ``Unavailable`` and ``Invalid``."""


class ImageMaker:
    """Makes images on this host."""

    def __init__(
        self, store: DiskStore, *, scratch: Path, storage: Storage = Storage.FILE, containers: Containers | None = None,
        freebsd_release: str = "14.3-RELEASE", given_packages: Path | None = None, debian_suite: str | None = None,
    ) -> None:  # fmt: skip
        """``containers`` are the container runtime's, where there is one.

        ``given_packages`` is a folder with Debian packages as files, for hosts that can fetch none; ``debian_suite``
        makes ``local-root`` a small Debian of that suite instead of busybox alone.
        """
        self._store, self._scratch, self._storage, self._containers = store, scratch, storage, containers
        self._release = freebsd_release
        self._given = given_packages
        self._suite = debian_suite

    async def has(self, recipe: Recipe) -> bool:
        """Tell whether a recipe's image is there already."""
        if recipe.tag is not None:
            return await self._runtime(recipe.name).has(recipe.name)
        try:
            await self._store.image(recipe.name)
        except NotFound:
            return False
        return True

    async def make(self, recipe: Recipe, *, progress: Progress) -> Image | None:
        """Make a recipe's image, unless it is there; ``None`` for one that the container runtime keeps.

        Raises:
            Unavailable: it cannot be fetched or made (``download_failed``, ``image_failed``, ``engine_missing``).
            Conflict: what came is not what was published (``digest_mismatch``), or there is no room (``disk_full``).
        """
        if recipe.tag is not None:
            containers = self._runtime(recipe.name)
            if not await containers.has(recipe.name):
                await containers.fetch(recipe.tag, recipe.name, progress=progress)
            return None
        try:
            return await self._store.image(recipe.name)
        except NotFound:
            progress(recipe.name, 0, None)
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=self._scratch, prefix=f"{recipe.name}-"))
        try:
            return await self._take(recipe, await self._made(recipe, folder, progress))
        finally:
            await asyncio.to_thread(shutil.rmtree, folder)

    async def _made(self, recipe: Recipe, folder: Path, progress: Progress) -> Path:
        """Return what was made: a disk, a root folder, or the archive of one."""
        if recipe.local:
            return await asyncio.to_thread(self._local, recipe, folder)
        fetched = await self._fetched(recipe, folder, progress)
        if recipe.engine is Engine.FIRECRACKER:
            return await asyncio.to_thread(
                foreign_roots.for_firecracker, fetched["kernel"], fetched["root"], folder
            )  # fmt: skip
        if recipe.engine is Engine.JAIL:
            return await asyncio.to_thread(foreign_roots.for_jail, fetched["base"], folder)
        return fetched["disk"]

    async def _fetched(self, recipe: Recipe, folder: Path, progress: Progress) -> Mapping[str, Path]:
        found = {}
        for part, download in recipe.downloads.items():
            sums = download.sums_url
            placed = replace(
                download, url=self._placed(download.url), sums_url=None if sums is None else self._placed(sums)
            )
            found[part] = folder / part
            proven = await fetch(placed, found[part], progress=progress)
            if sums is None and checksum_given(download) is None:
                progress(f"nothing is published to compare {part} with: its {proven.algorithm} is {proven.value}", 0, 0)
        return found

    def _local(self, recipe: Recipe, folder: Path) -> Path:
        if recipe.engine is Engine.QEMU:
            return local_vm.tiny_disk(folder, given=self._given)
        if self._suite is not None:
            return local_root.debian_root(folder / "root.tar", self._suite)
        return local_root.busybox_root(folder, given=self._given)

    async def _take(self, recipe: Recipe, made: Path) -> Image:
        """Hand it to the store, as it would travel from another host."""
        image, made = await asyncio.to_thread(self._announced, recipe, made)
        folder = image.form is ImageForm.FOLDER and image.size_bytes == 0
        return await self._store.put(image, packed_chunks(made) if folder else plain_chunks(made))

    def _announced(self, recipe: Recipe, made: Path) -> tuple[Image, Path]:
        """Return what is announced to the store, and what is sent to it: raw disks for volumes."""
        form = ImageForm.FOLDER if made.is_dir() or made.suffix == ".tar" else ImageForm.QCOW2
        if form is ImageForm.QCOW2 and self._storage is Storage.ZVOL:
            form, raw = ImageForm.VOLUME, made.with_name("volume.raw")
            run(["qemu-img", "convert", "-O", "raw", str(made), str(raw)])
            made = raw
        image = Image(
            name=recipe.name,
            form=form,
            digest=digest_of(made),
            size_bytes=0 if made.is_dir() else made.stat().st_size,
            created_at=datetime.now(UTC),
            engines=frozenset({recipe.engine}),
        )
        return image, made

    def _runtime(self, name: str) -> Containers:
        if self._containers is None:
            raise Unavailable(
                f"{name} is a container's image, and this host has no container runtime",
                code="engine_missing",
                resolution="install Docker or Podman, or choose a recipe of another engine",
            )
        return self._containers

    def _placed(self, url: str) -> str:
        if "{" in url and not self._release:
            raise image_failed("no release of FreeBSD is named", url)
        return url.replace("{release}", self._release)
