"""A host, as the fleet speaks to it: in this process, or over HTTP. The same promises, the same tests."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from borough.fleet.hosts import HostReport
from borough.fleet.images import Image
from borough.fleet.ports.engines import Chunk, ExecOrder, FileEntry, MachineStats, SnapshotInfo
from borough.fleet.vms import Vm, VmId, VmSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateOrder:
    """A machine that a host is to make. Sent again it means the same machine."""

    vm_id: VmId
    env_id: str
    spec: VmSpec
    private_network: bool = False


class HostAgent(Protocol):
    """One host.

    Raises everywhere: ``Unavailable`` (``host_unreachable``: unknown whether it was done), ``Forbidden``
    (``host_refused_key``), and what the host itself says, with its own text.
    """

    async def report(self) -> HostReport:
        """Return what the host says of itself."""

    async def create(self, order: CreateOrder) -> Vm:
        """Make and start a machine, or return the one that was made by the same order before.

        Raises:
            Conflict: there is a machine of that id made by another order (``vm_exists``), or no room (``no_room``).
            Invalid: an engine or image that the host does not have (``engine_missing``, ``image_missing``).
            NotFound: the machine or snapshot that it is to be made from is not here (``vm_not_found``,
                ``snapshot_not_found``).
        """

    async def machines(self) -> Sequence[Vm]:
        """Return every machine of the host."""

    def changes(self) -> AsyncGenerator[VmId | None, None]:
        """Yield machines that changed without being asked to, from now on; first of all ``None`` when it listens.

        A hint, to be followed by a look: what happens while nobody listens is not told later.

        Raises:
            Unavailable: too many listen (``too_many_listeners``).
        """

    async def machine(self, vm_id: VmId) -> Vm:
        """Return one; raises ``NotFound`` (``vm_not_found``)."""

    async def destroy(self, vm_id: VmId) -> None:
        """End a machine with everything of it; returns when nothing is left. One that is unknown is gone already."""

    async def stop(self, vm_id: VmId) -> Vm:
        """Shut a machine down and keep its disk."""

    async def start(self, vm_id: VmId) -> Vm:
        """Start a stopped machine from its disk, or let a paused one go on."""

    async def pause(self, vm_id: VmId) -> Vm:
        """Freeze a machine; raises ``Conflict`` (``not_possible``) where its engine cannot."""

    def execute(self, vm_id: VmId, order: ExecOrder, stdin: AsyncIterator[bytes]) -> AsyncIterator[Chunk]:
        """Run a command inside; the last chunk has the exit code. Closing the iterator ends the command."""

    def logs(self, vm_id: VmId, *, offset: int, follow: bool) -> AsyncIterator[bytes]:
        """Yield what the machine printed (its console), from ``offset`` bytes on."""

    def console(self, vm_id: VmId, keys: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield what the machine prints from now on, first of all ``b""`` when its console is open; ``keys`` are typed.

        Raises:
            Conflict: its engine has no console to type at (``not_possible``), or it is taken (``console_in_use``).
        """

    async def listing(self, vm_id: VmId, path: str) -> Sequence[FileEntry]:
        """Return a folder's names; raises ``NotFound`` (``file_not_found``)."""

    def read(self, vm_id: VmId, path: str, *, as_tar: bool) -> AsyncIterator[bytes]:
        """Yield a file, or a folder as a tar archive."""

    async def write(self, vm_id: VmId, path: str, content: AsyncIterator[bytes], *, from_tar: bool) -> int:
        """Write a file, or unpack a tar archive into a folder; return how many bytes came."""

    async def stats(self, vm_id: VmId) -> MachineStats:
        """Return what the machine uses now."""

    async def snapshot(self, vm_id: VmId, name: str) -> SnapshotInfo:
        """Keep the present state under a name; idempotent."""

    async def snapshots(self, vm_id: VmId) -> Sequence[SnapshotInfo]:
        """Return them, oldest first."""

    async def restore(self, vm_id: VmId, name: str) -> Vm:
        """Return to a snapshot; raises ``NotFound`` (``snapshot_not_found``)."""

    async def delete_snapshot(self, vm_id: VmId, name: str) -> None:
        """Forget one; one that is unknown is gone already."""

    async def images(self) -> Sequence[Image]:
        """Return the images of the host."""

    async def put_image(self, image: Image, content: AsyncIterator[bytes]) -> Image:
        """Take an image in; what arrives is compared with its digest. Raises ``Conflict`` (``digest_mismatch``)."""

    def image_content(self, name: str) -> AsyncIterator[bytes]:
        """Yield an image as it travels between hosts; raises ``NotFound`` (``image_not_found``)."""

    async def close(self) -> None:
        """Let go of connections."""
