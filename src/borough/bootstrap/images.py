"""What makes images on this machine, put together."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from borough.adapters.engines.docker.client import EngineApi
from borough.adapters.engines.docker.images import RuntimeImages
from borough.adapters.images.making import ImageMaker
from borough.adapters.storage.files import FileStore
from borough.adapters.storage.zvol import ZvolStore
from borough.fleet.storage import Storage

MAKING = ".making"
"""Beside the images, where there is room for them: what is being made, which no catalogue lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePlace:
    """Where images are to be, and what they are made of."""

    image_dir: str
    """A folder, or the name of a ZFS dataset."""
    storage: Storage
    container_socket: Path
    packages: Path | None = None
    """A folder with Debian packages, for machines that can fetch none."""
    suite: str | None = None
    """Makes ``local-root`` a small Debian of that suite."""


@asynccontextmanager
async def image_maker(place: ImagePlace) -> AsyncIterator[ImageMaker]:
    """Yield what makes images there.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    runtime = EngineApi(str(place.container_socket))
    scratch = _scratch(place)
    try:
        yield ImageMaker(
            _store(place, scratch),
            scratch=scratch,
            storage=place.storage,
            containers=RuntimeImages(runtime),
            given_packages=place.packages,
            debian_suite=place.suite,
        )
    finally:
        await runtime.close()
        if not any(scratch.iterdir()):
            scratch.rmdir()


def _scratch(place: ImagePlace) -> Path:
    if place.storage is Storage.ZVOL:
        return Path(tempfile.mkdtemp(prefix="borough-images-"))
    scratch = Path(place.image_dir).absolute() / MAKING
    scratch.mkdir(mode=0o755, parents=True, exist_ok=True)
    return scratch


def _store(place: ImagePlace, scratch: Path) -> FileStore | ZvolStore:
    if place.storage is Storage.ZVOL:
        return ZvolStore(images=place.image_dir, runtime=place.image_dir, marker="images")
    return FileStore(images=Path(place.image_dir).absolute(), runtime=scratch)
