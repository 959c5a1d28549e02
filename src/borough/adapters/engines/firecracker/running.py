"""Machines of Firecracker as processes of this host: started, found again, asked, ended."""

import asyncio
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from borough.adapters import process
from borough.adapters.engines import children
from borough.adapters.engines.firecracker import api, bodies, rooms
from borough.adapters.engines.firecracker.bodies import KERNEL, ROOT, Launch, Request
from borough.adapters.engines.places import CONSOLE_LOG, Kept, Places, machine_in, processes_by_name
from borough.adapters.engines.refusals import check_runs_its_own, failed, not_possible, wrong_image
from borough.adapters.engines.seeds import write_seed
from borough.adapters.process import Child, ProcessRef
from borough.fleet.images import ImageForm
from borough.fleet.ports.disks import Disk
from borough.fleet.ports.engines import Finding, Found, MachineOrder
from borough.fleet.vms import VmId

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
STARTS_WITHIN_S = 20.0
_LOOK_AGAIN_S = 0.02
_MOST_WORDS = 2000
_STATES: Mapping[str, Found] = {"Running": Found.RUNNING, "Paused": Found.PAUSED, "Not started": Found.FAILED}


@dataclass(frozen=True, slots=True, kw_only=True)
class FirecrackerSettings:
    """How machines of this engine are made on this host."""

    state: Path
    """A private folder on the file system of the disks, which are linked into it."""
    marker: str
    """The host's own."""
    program: str = "firecracker"
    jailer: str | None = "jailer"
    """``None``: never; otherwise it is used where it is installed and this program is root."""
    group_version: int | None = None
    """Of the control groups of this host, if they may be used."""
    nameservers: tuple[str, ...] = ()
    reachable_within_s: float = 60.0
    log_bytes: int = 16 << 20


class Running:
    """The processes of one host daemon's machines. Whoever calls holds the machine's turn."""

    def __init__(self, settings: FirecrackerSettings) -> None:
        self._settings = settings
        self._program = shutil.which(settings.program) or settings.program
        jailer = None if settings.jailer is None or os.geteuid() != 0 else shutil.which(settings.jailer)
        self._jailer = jailer
        self.places = Places(settings.state / "machines", processes=self._processes)

    def room(self, vm_id: VmId) -> Path:
        """Return the folder in which a machine's Firecracker runs."""
        if self._jailer is None:
            return self.places.folder(vm_id) / "room"
        return rooms.jail_root(self._jails, self._program, self._name(vm_id))

    async def process(self, vm_id: VmId) -> ProcessRef | None:
        """Return the machine's process, proven to be it, or ``None``."""
        children.collect()
        return await asyncio.to_thread(self.places.process, vm_id)

    async def launch(self, order: MachineOrder, *, key: str, state: Path | None = None) -> None:
        """Start the machine from its disk, or from a ``state`` with memory; it runs, or nothing of it does.

        Raises:
            Conflict: disk or link are none that Firecracker could use (``not_possible``).
            Unavailable: Firecracker did not start (``engine_failed``), with its own words.
        """
        disk = _bootable(order)
        await asyncio.to_thread(self._prepare, order, disk, key, state)
        launch = Launch(
            firecracker=self._program,
            name=self._name(order.vm_id),
            jailer=self._jailer,
            user=bodies.user_of(order.link.address),
            jails=self._jails,
            group_version=self._settings.group_version,
            size=order.spec.size,
        )
        folder, room = self.places.folder(order.vm_id), self.room(order.vm_id)
        child = await asyncio.to_thread(
            process.start_server, bodies.launch_argv(launch), env=ENVIRONMENT, cwd=room, log=folder / CONSOLE_LOG,
            umask=0o077,
        )  # fmt: skip
        children.keep(child, order.vm_id)
        try:
            await self._begun(order.vm_id, child)
            asked = bodies.boot_requests(order.link, order.spec.size) if state is None else [bodies.load_request()]
            for request in asked:
                await api.ask(room, request, within_s=api.SAVES_WITHIN_S)
        except BaseException:
            children.let_go(order.vm_id)
            await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(process.end, child.ref, grace_s=0.0)))
            raise

    async def ask(self, vm_id: VmId, request: Request) -> None:
        """Ask the machine's Firecracker; raises as ``api.ask`` does."""
        await api.ask(self.room(vm_id), request, within_s=api.SAVES_WITHIN_S)

    async def end(self, vm_id: VmId) -> None:
        """End the machine's process; what was written to its disk by then is written."""
        ref = await self.process(vm_id)
        children.let_go(vm_id)
        if ref is not None:
            await asyncio.to_thread(process.end, ref, grace_s=1.0)

    async def remove(self, vm_id: VmId) -> None:
        """Remove all that is kept of a machine."""
        await asyncio.to_thread(rooms.remove, self.room(vm_id), self._name(vm_id))
        await asyncio.to_thread(self.places.remove, vm_id)

    async def find(self, vm_id: VmId) -> Finding:
        """Return what there is of the machine; raises ``Unavailable`` when it runs and does not answer in time."""
        if await self.process(vm_id) is None:
            return await asyncio.to_thread(self._at_rest, vm_id)
        try:
            state = str((await api.told(self.room(vm_id)))["state"])
        except api.SocketLost as lost:
            if await self.process(vm_id) is None:
                return await asyncio.to_thread(self._at_rest, vm_id)
            return Finding(found=Found.RUNNING, detail=lost.message)
        return Finding(
            found=_STATES.get(state, Found.FAILED), detail=None if state in _STATES else f"Firecracker says {state!r}"
        )

    @property
    def _jails(self) -> Path:
        return self._settings.state / "jails"

    def _name(self, vm_id: VmId) -> str:
        return bodies.name_of(self._settings.marker, vm_id)

    def _prepare(self, order: MachineOrder, disk: Disk, key: str, state: Path | None) -> None:
        self.places.note(order, disk)
        seed = write_seed(
            self.places.folder(order.vm_id), order, key=key, nameservers=self._settings.nameservers
        )  # fmt: skip
        if state is None:
            rooms.grow(disk.path, order.spec.size.disk_mib)
        owner = None if self._jailer is None else bodies.user_of(order.link.address)
        rooms.furnish(self.room(order.vm_id), disk.path, seed, owner=owner, state=state)

    async def _begun(self, vm_id: VmId, child: Child) -> None:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            ended = child.poll() is not None
            with suppress(api.SocketLost):
                await api.told(self.room(vm_id))
                return
            if ended or time.monotonic() > deadline:
                said = await asyncio.to_thread(self.places.console(vm_id).read_text, errors="replace")
                raise failed(f"Firecracker did not start: {said.strip()[-_MOST_WORDS:] or child.poll()}")
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _at_rest(self, vm_id: VmId) -> Finding:
        kept = self.places.find(vm_id)
        if kept is None:
            return Finding(found=Found.ABSENT)
        if not (kept.disk.path / ROOT).exists():
            return Finding(found=Found.FAILED, detail=f"its disk {kept.disk.path} is gone")
        killed = children.killed_by(vm_id)
        if killed is not None:
            return Finding(found=Found.GONE, detail=f"its process was ended by {killed}")
        return Finding(found=Found.STOPPED)

    def _processes(self) -> Mapping[VmId, ProcessRef]:
        prefix = bodies.prefix_of(self._settings.marker)

        def named(arguments: Sequence[str]) -> VmId | None:
            return machine_in(bodies.name_in(arguments) or "", prefix)

        return processes_by_name(named, users=lambda vm_id: _users(self.places.find(vm_id)))


def _users(kept: Kept | None) -> set[int]:
    """Return under whom a machine's process may run: ourselves, or the user that the jailer gives it."""
    return {os.geteuid()} | (set() if kept is None else {bodies.user_of(kept.link.address)})


def _bootable(order: MachineOrder) -> Disk:
    check_runs_its_own(order)
    disk = order.disk
    if disk is None or disk.form is not ImageForm.FOLDER or not (disk.path / KERNEL).is_file():
        raise wrong_image(order, "a folder with a kernel and a root file system (vmlinux, rootfs.ext4)")
    if order.link.device is None:
        raise not_possible(
            "Firecracker's machines need a bridge",
            reason="it has no user-mode networking",
            resolution="run the host daemon as root, or choose the engine qemu",
        )
    return disk
