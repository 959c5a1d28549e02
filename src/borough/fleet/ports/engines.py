"""The port of an engine: what it is ordered to make, and what it tells of that."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from borough.fleet.engines import Engine, Missing, Offer
from borough.fleet.ports.disks import Disk
from borough.fleet.ports.network import Link
from borough.fleet.vms import VmId, VmSpec


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
