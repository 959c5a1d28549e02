"""Machines of QEMU as processes of this host: started, found again, spoken to, ended."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from borough.adapters import process, procfs
from borough.adapters.engines import children
from borough.adapters.engines.bubblewrap.cgroups import Amounts, Groups, Trees, find_trees
from borough.adapters.engines.places import SEED, Places, machine_in, processes_by_name
from borough.adapters.engines.qemu.argv import (
    PID_FILE,
    PROGRAM,
    QMP_SOCKET,
    Boot,
    boot_argv,
    name_in,
    user_mode_nameserver,
)
from borough.adapters.engines.qemu.qmp import Qmp, SocketLost, conversation
from borough.adapters.engines.refusals import check_runs_its_own, failed, wrong_image
from borough.adapters.engines.seeds import write_seed
from borough.adapters.process import Child, ProcessRef
from borough.core.errors import Unavailable
from borough.fleet.images import ImageForm
from borough.fleet.ports.disks import Disk
from borough.fleet.ports.engines import Finding, Found, MachineOrder
from borough.fleet.vms import VmId

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}
STARTS_WITHIN_S = 60.0
QUITS_WITHIN_S = 5.0
LOG = "qemu.log"
"""What QEMU itself says."""
_LOOK_AGAIN_S = 0.02
_OVERHEAD_MIB = 512
_THREADS = 256
"""QEMU's own: one for each processor, and workers for its disk."""
_USUAL_WEIGHT = 100
_MOST_WORDS = 2000
_RUNNING = "running"
_PAUSED = frozenset({"paused", "prelaunch", "suspended", "inmigrate", "postmigrate", "save-vm", "restore-vm"})
_ENDED = "shutdown"
_FORMS = frozenset({ImageForm.QCOW2, ImageForm.RAW, ImageForm.VOLUME})


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuSettings:
    """How machines of this engine are made on this host."""

    state: Path
    """A private folder: one folder for each machine, the key into machines, and what was found out of this host."""
    marker: str
    """The host's own."""
    program: str = PROGRAM
    publish_on: str = "0.0.0.0"  # noqa: S104 - what is published is meant to be reached; a setting narrows it
    """Where published ports listen in user mode."""
    nameservers: tuple[str, ...] = ()
    """For machines on the bridge; in user mode QEMU answers for the host's own."""
    reachable_within_s: float = 180.0
    """How long a machine may take from its start until it can be entered."""
    log_bytes: int = 16 << 20
    """How much of a console is kept."""
    use_groups: bool = True
    """Whether to limit what QEMU itself takes, where control groups may be used."""


class Running:
    """The processes of one host daemon's machines. Whoever calls holds the machine's turn."""

    def __init__(self, settings: QemuSettings, places: Places) -> None:
        self._settings = settings
        self._places = places
        self._trees: Trees | None = None
        if settings.use_groups:
            with suppress(OSError):  # no groups here: the guest's own size is the limit that is left
                self._trees = find_trees()

    async def process(self, vm_id: VmId) -> ProcessRef | None:
        """Return the machine's process, proven to be it, or ``None``."""
        children.collect()
        return await asyncio.to_thread(self._places.process, vm_id)

    async def launch(self, order: MachineOrder, *, acceleration: str, key: str, paused: bool = False) -> None:
        """Start the machine from its disk; it runs, or nothing of it does.

        Raises:
            Conflict: there is no disk that QEMU could start from (``not_possible``).
            Unavailable: QEMU did not start (``engine_failed``), with its own words.
        """
        disk = _bootable(order)
        folder = self._places.folder(order.vm_id)
        boot = Boot(
            program=self._settings.program,
            name=prefix_of(self._settings.marker) + order.vm_id,
            acceleration=acceleration,
            cpus=order.spec.size.cpu,
            memory_mib=order.spec.size.mem_mib,
            disk=disk,
            seed=folder / SEED,
            link=order.link,
            closed=order.spec.deny_outgoing,
            publish_on=self._settings.publish_on,
            paused=paused,
        )
        await asyncio.to_thread(self._prepare, order, disk, key)
        child = await asyncio.to_thread(
            process.start_server, boot_argv(boot), env=ENVIRONMENT, cwd=folder, log=folder / LOG, umask=0o077
        )
        children.keep(child, order.vm_id)
        await asyncio.to_thread(self._limit, order, child)
        await self._begun(order.vm_id, child)

    async def forget(self, vm_id: VmId) -> None:
        """Remove all that is kept of a machine whose process has ended."""
        groups = self._groups(vm_id)
        if groups is not None:
            await asyncio.to_thread(groups.remove)
        await asyncio.to_thread(self._places.remove, vm_id)

    async def end(self, vm_id: VmId) -> None:
        """End the machine's process: what it was given to write is written, if it still listens."""
        ref = await self.process(vm_id)
        children.let_go(vm_id)
        if ref is None:
            return
        with suppress(Unavailable):  # then it is ended without its consent
            async with self.speak(vm_id) as qmp:
                await qmp.execute("quit")
            await asyncio.to_thread(procfs.wait_gone, [ref], within_s=QUITS_WITHIN_S)
        await asyncio.to_thread(process.end, ref, grace_s=QUITS_WITHIN_S)
        (self._places.folder(vm_id) / PID_FILE).unlink(missing_ok=True)

    @asynccontextmanager
    async def speak(self, vm_id: VmId) -> AsyncIterator[Qmp]:
        """Speak to the machine's QEMU; raises ``SocketLost``, ``Unavailable``."""
        async with conversation(self._places.folder(vm_id), QMP_SOCKET) as qmp:
            yield qmp

    async def find(self, vm_id: VmId) -> Finding:
        """Return what there is of the machine.

        Raises:
            Unavailable: it runs, and does not answer in time: unknown how it is (``engine_failed``).
        """
        if await self.process(vm_id) is None:
            return await asyncio.to_thread(self._at_rest, vm_id)
        try:
            async with self.speak(vm_id) as qmp:
                status = (await qmp.execute("query-status"))["status"]
        except SocketLost as lost:
            if await self.process(vm_id) is None:
                return await asyncio.to_thread(self._at_rest, vm_id)
            return Finding(found=Found.RUNNING, detail=lost.message)
        return _told(status)

    async def _begun(self, vm_id: VmId, child: Child) -> None:
        """Return once QEMU answers; raises ``Unavailable`` when it ends instead, or stays silent."""
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            ended = child.poll() is not None
            try:
                async with self.speak(vm_id):
                    return
            except SocketLost:
                if ended or time.monotonic() > deadline:
                    raise failed(f"QEMU did not start: {await asyncio.to_thread(self._words, vm_id, child)}") from None
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _words(self, vm_id: VmId, child: Child) -> str:
        """Return what QEMU said last."""
        said = (self._places.folder(vm_id) / LOG).read_text(errors="replace").strip()
        return said[-_MOST_WORDS:] or f"exit status {child.poll()}"

    def _at_rest(self, vm_id: VmId) -> Finding:
        kept = self._places.find(vm_id)
        if kept is None:
            return Finding(found=Found.ABSENT)
        if not kept.disk.path.exists():
            return Finding(found=Found.FAILED, detail=f"its disk {kept.disk.path} is gone")
        if (self._places.folder(vm_id) / PID_FILE).exists():
            by = children.killed_by(vm_id)
            return Finding(
                found=Found.GONE, detail=f"its process was ended by {by}" if by else "its process was killed"
            )
        return Finding(found=Found.STOPPED)

    def _groups(self, vm_id: VmId) -> Groups | None:
        return None if self._trees is None else Groups(self._trees, f"qemu-{self._settings.marker[:8]}-{vm_id}")

    def _limit(self, order: MachineOrder, child: Child) -> None:
        """Hold QEMU itself to the guest's size and what it needs beside that; a guest cannot make it take more."""
        groups = self._groups(order.vm_id)
        if groups is None:
            return
        size = order.spec.size
        groups.make(
            Amounts(
                memory_bytes=(size.mem_mib + _OVERHEAD_MIB) << 20,
                processes=_THREADS + size.cpu,
                cpu_weight=_USUAL_WEIGHT,
                cpus=size.cpu + 1,
            )
        )
        for members in groups.members:
            Path(members).write_text(str(child.pid))

    def _prepare(self, order: MachineOrder, disk: Disk, key: str) -> None:
        """Note the machine, and make its seed: what it reads at every start, and acts on when its id is new to it."""
        self._places.note(order, disk)
        link = order.link
        servers = self._settings.nameservers if link.device is not None else (str(user_mode_nameserver(link)),)
        write_seed(self._places.folder(order.vm_id), order, key=key, nameservers=servers)


def prefix_of(marker: str) -> str:
    """Return what the names of a host's processes begin with."""
    return f"borough:{marker}:"


def processes(marker: str) -> Mapping[VmId, ProcessRef]:
    """Return the processes of a host's machines."""
    ours = {os.geteuid()}

    def named(arguments: Sequence[str]) -> VmId | None:
        return machine_in(name_in(arguments) or "", prefix_of(marker))

    return processes_by_name(named, users=lambda _: ours)


def _bootable(order: MachineOrder) -> Disk:
    check_runs_its_own(order)
    if order.disk is None or order.disk.form not in _FORMS:
        raise wrong_image(order, "a disk image")
    return order.disk


def _told(status: str) -> Finding:
    if status == _RUNNING:
        return Finding(found=Found.RUNNING)
    if status in _PAUSED:
        return Finding(found=Found.PAUSED)
    if status == _ENDED:
        return Finding(found=Found.STOPPED)
    return Finding(found=Found.FAILED, detail=f"QEMU says that it is {status}")
