"""The port for the disks of a host's machines, and what an engine needs to know of one."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from borough.fleet.images import Image, ImageForm
from borough.fleet.vms import VmId


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A machine's own disk: a file, a folder, or a device."""

    path: Path
    form: ImageForm
    enforced: bool
    """Whether the size that was asked for is a limit, or advice."""


class DiskStore(Protocol):
    """Where images and machines' disks are kept on this host."""

    async def images(self) -> Sequence[Image]:
        """Return what is there, by name."""

    async def image(self, name: str) -> Image:
        """Return one; raises ``NotFound`` (``image_not_found``)."""

    async def clone(self, image: str, vm_id: VmId, *, size_mib: int) -> Disk:
        """Make a machine's disk from an image, as large as asked for; what is there already is returned.

        Raises:
            NotFound: ``image_not_found``.
            Conflict: the image is larger than the size (``image_too_large``), or there is no room (``disk_full``).
        """

    async def fill(self, vm_id: VmId, make: Callable[[Path], Awaitable[None]]) -> Disk:
        """Have ``make`` write a machine's disk to the path that it is given, whole or not at all; what is there
        already is returned.

        Raises:
            Conflict: there is no room (``disk_full``), or disks here can only be made from images (``not_possible``).
        """

    async def disk(self, vm_id: VmId) -> Disk:
        """Return a machine's disk; raises ``NotFound`` (``disk_not_found``)."""

    async def remove(self, vm_id: VmId) -> None:
        """Remove a machine's disk; none there is no error."""

    async def disks(self) -> Sequence[VmId]:
        """Return the machines that have disks here."""

    async def put(self, image: Image, content: AsyncIterator[bytes]) -> Image:
        """Take an image in, whole or not at all; raises ``Conflict`` (``digest_mismatch``)."""

    def content(self, name: str) -> AsyncIterator[bytes]:
        """Yield an image as it travels; raises ``NotFound`` (``image_not_found``)."""
