"""On a host: engines that make machines, the disks they get, the links they are on, and what is kept of them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Protocol, runtime_checkable

from borough.fleet.engines import Engine, Missing, Offer
from borough.fleet.images import Image, ImageForm
from borough.fleet.resources import Resource
from borough.fleet.vms import Vm, VmId, VmSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A machine's own disk: a file, a folder, or a device."""

    path: Path
    form: ImageForm
    enforced: bool
    """Whether the size that was asked for is a limit, or advice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A machine's place in the host's network. Without privilege ``device`` is ``None`` and the engine does what it
    can by itself (user-mode networking) with ``port_map``.
    """

    address: IPv4Address
    network: IPv4Network
    gateway: IPv4Address
    mac: str
    device: str | None
    """The tap or virtual Ethernet device on the bridge."""
    namespace: str | None = None
    """The network namespace that was made for it, for engines that run processes."""
    port_map: Mapping[int, int] = field(default_factory=dict)
    """Guest port → host port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineOrder:
    """What an engine needs to make a machine."""

    vm_id: VmId
    env_id: str
    spec: VmSpec
    disk: Disk | None
    """``None`` for engines that keep disks themselves."""
    link: Link
    marker: str
    """Is in the machine's command line or labels, so that it can be proven whose it is."""


class Found(StrEnum):
    """What an engine finds of a machine."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    """Its disk is there, no process is."""
    GONE = "gone"
    """Its disk is there and its processes are gone, though nobody asked for that and they did not end by themselves."""
    FAILED = "failed"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What an engine found, and why it is so where it should be otherwise."""

    found: Found
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecOrder:
    """A command to be run inside a machine."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    user: str | None = None
    tty: tuple[int, int] | None = None
    """Rows and columns, when it wants a terminal."""
    timeout_s: float | None = None
    sizes: AsyncIterator[tuple[int, int]] | None = field(default=None, repr=False, compare=False)
    """What rows and columns become while it runs."""


class Stream(StrEnum):
    """Where a chunk comes from."""

    STDOUT = "stdout"
    STDERR = "stderr"
    EXIT = "exit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A part of what a command prints; the last has its exit code."""

    stream: Stream
    data: bytes = b""
    exit_code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One name of a folder inside a machine."""

    name: str
    path: str
    is_dir: bool
    size: int
    modified: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineStats:
    """What a machine uses; ``None`` where the engine cannot tell."""

    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    processes: int | None = None
    received_bytes: int | None = None
    sent_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotInfo:
    """A state of a machine that can be returned to."""

    name: str
    created_at: datetime
    size_bytes: int
    with_memory: bool


class EngineDriver(Protocol):
    """One engine on this host. Every method is keyed by the machine's id and may be repeated.

    All raise ``NotFound`` (``vm_not_found``) for a machine of which the engine has nothing, except where said
    otherwise, ``Unavailable`` (``engine_failed``) with the engine's own words, and ``Conflict`` (``not_possible``)
    where the engine's capabilities do not have it.
    """

    @property
    def engine(self) -> Engine:
        """Return which one it is."""

    async def probe(self) -> Offer | Missing:
        """Return what can be done here, found out by doing it, or why the engine is not here."""

    async def create(self, order: MachineOrder) -> None:
        """Make the machine and start it; what is there of the same order already is used."""

    async def start(self, order: MachineOrder) -> None:
        """Start a stopped machine from its disk, or let a paused one go on."""

    async def stop(self, vm_id: VmId, *, grace_s: float) -> None:
        """Shut the machine down, by force after ``grace_s``; its disk stays."""

    async def pause(self, vm_id: VmId) -> None:
        """Freeze the machine."""

    async def destroy(self, vm_id: VmId) -> None:
        """End the machine and remove all that the engine keeps of it; nothing there is no error. Ownership of every
        process is proven before it is ended.
        """

    async def find(self, vm_id: VmId) -> Finding:
        """Return what there is of the machine; after a restart of this daemon also what runs on without it."""

    async def machines(self) -> Sequence[VmId]:
        """Return every machine of which the engine finds something that carries our marker."""

    def execute(self, vm_id: VmId, order: ExecOrder, stdin: AsyncIterator[bytes]) -> AsyncIterator[Chunk]:
        """Run a command inside; the last chunk has the exit code. Closing the iterator ends the command."""

    def logs(self, vm_id: VmId, *, offset: int, follow: bool) -> AsyncIterator[bytes]:
        """Yield what the machine printed, from ``offset`` bytes on."""

    async def listing(self, vm_id: VmId, path: str) -> Sequence[FileEntry]:
        """Return a folder's names; raises ``NotFound`` (``file_not_found``)."""

    def read(self, vm_id: VmId, path: str, *, as_tar: bool) -> AsyncIterator[bytes]:
        """Yield a file, or a folder as a tar archive."""

    async def write(self, vm_id: VmId, path: str, content: AsyncIterator[bytes], *, from_tar: bool) -> int:
        """Write a file, or unpack a tar archive into a folder; return how many bytes came."""

    async def stats(self, vm_id: VmId) -> MachineStats:
        """Return what the machine uses now."""

    async def snapshot(self, vm_id: VmId, name: str) -> SnapshotInfo:
        """Keep the present state under a name."""

    async def snapshots(self, vm_id: VmId) -> Sequence[SnapshotInfo]:
        """Return them, oldest first."""

    async def restore(self, order: MachineOrder, name: str) -> None:
        """Return to a snapshot; raises ``NotFound`` (``snapshot_not_found``)."""

    async def delete_snapshot(self, vm_id: VmId, name: str) -> None:
        """Forget one; one that is unknown is gone already."""

    async def copy_snapshot(self, vm_id: VmId, name: str, target: Path) -> None:
        """Write the disk that a machine had at a snapshot to ``target``, where nothing is yet: another machine's.

        Engines that keep disks themselves find the snapshot in the order to ``create``. Raises ``NotFound``
        (``snapshot_not_found``) and ``Conflict`` (``not_possible``) without the capability ``clone``.
        """


@runtime_checkable
class WithConsole(Protocol):
    """An engine whose machines have a serial console that can be typed at."""

    def console(self, vm_id: VmId, keys: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield what the machine prints from now on, first of all ``b""`` when the console is open; ``keys`` are typed.

        Raises:
            Conflict: somebody else has it (``console_in_use``), or the machine does not run (``vm_not_running``).
        """


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


class HostNetwork(Protocol):
    """The host's network of machines: bridge, links, and one firewall that is rendered whole."""

    async def open(self) -> str | None:
        """Make or mend bridge and base rules; return why only user-mode networking is possible, or ``None``."""

    async def attach(self, vm_id: VmId, address: IPv4Address, *, namespace: bool) -> Link:
        """Make the machine's link, or return the one that is there."""

    def unlinked(self, address: IPv4Address) -> Link:
        """Return the place of a machine whose engine makes its own link."""

    async def detach(self, vm_id: VmId) -> None:
        """Remove the machine's link; none there is no error."""

    async def apply(
        self, machines: Sequence[Vm], *, private: frozenset[str], contained: Sequence[Vm] = ()
    ) -> Mapping[VmId, str]:
        """Make the firewall say exactly this, in one transaction; ``private`` are environments that are closed, and
        ``contained`` are machines whose engine keeps their links itself.

        Return the machines that lack a published port, and why: that is theirs alone.
        """

    def way_out(self, vm: Vm) -> Mapping[str, str]:
        """Return by which variables programs in a machine on our links find its way out by list; none without one."""

    async def is_free(self, port: int) -> bool:
        """Tell whether nothing on the host listens on a port, by binding it."""

    async def sweep(self, known: frozenset[VmId]) -> None:
        """Remove every link of ours that belongs to none of ``known``."""

    async def close(self) -> None:
        """Remove everything of ours."""


class MachineStep(StrEnum):
    """Whether something is under way with a machine."""

    ACCEPTED = "accepted"
    """It is being made: what there is of it was begun after this was written, and is undone if it is not finished."""
    MOVING = "moving"
    """It is being stopped, started or paused, as is desired of it; after a crash that is gone on with."""
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineRow:
    """What a host keeps of a machine."""

    vm: Vm
    step: MachineStep
    private_network: bool = False


class MachineStore(Protocol):
    """The rows of a host's machines, with the leases of addresses and ports."""

    async def host_id(self, wanted: str | None, fresh: str) -> str:
        """Return the host's id: the one that is wanted, else the one kept, else ``fresh``; kept from then on."""

    async def booted(self, boot_id: str) -> bool:
        """Note under which boot of the host this is; tell whether it is another than the last that was noted."""

    async def accept(self, row: MachineRow, *, ports: tuple[int, ...]) -> MachineRow:
        """Write a new row, lending it an address and a port of the host for each of ``ports``, if it fits; the row of
        the same order is returned as it is.

        Raises:
            Conflict: another order (``vm_exists``), one whose end was asked for (``vm_deleted``), no room
                (``no_room``), nothing left to lend (``addresses_exhausted``, ``ports_exhausted``).
        """

    async def bar(self, vm_id: VmId) -> None:
        """Refuse new rows of this id from now on: its end was asked for, and no late order may bring it back."""

    async def update(self, row: MachineRow, *, revision: int) -> MachineRow:
        """Write a changed row; raises ``Conflict`` (``stale_vm``) when it changed meanwhile."""

    async def relend(self, row: MachineRow, *, but: frozenset[int]) -> MachineRow:
        """Lend a machine other ports of the host, none of ``but``, instead of those that it has; raises as ``accept``
        where nothing is left to lend, and as ``update``.
        """

    async def resume(self, row: MachineRow) -> MachineRow:
        """Promise processor and memory to a stopped machine again; raises ``Conflict`` (``no_room``)."""

    async def get(self, vm_id: VmId) -> MachineRow:
        """Return one; raises ``NotFound`` (``vm_not_found``)."""

    async def all(self) -> Sequence[MachineRow]:
        """Return every one, oldest first."""

    async def resource(self) -> Resource:
        """Return what the host has and what of it is promised."""

    async def forget(self, vm_id: VmId) -> None:
        """Drop the row and what was lent with it: the last step, when nothing of the machine is left."""
