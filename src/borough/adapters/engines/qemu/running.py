"""Machines of QEMU as processes of this host: started, found again, spoken to, ended."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from borough.adapters import process, procfs
from borough.adapters.engines.qemu.argv import PROGRAM, QMP_SOCKET, Boot, boot_argv, user_mode_nameserver
from borough.adapters.engines.qemu.places import SEED, Places
from borough.adapters.engines.qemu.qmp import Qmp, SocketLost, conversation
from borough.adapters.engines.volumes import fat_volume
from borough.adapters.process import Child, ProcessRef
from borough.core.errors import Conflict, Unavailable
from borough.fleet.cloud_init import VOLUME_LABEL, Seed, documents
from borough.fleet.images import ImageForm
from borough.fleet.ports.machines import Disk, Finding, Found, MachineOrder
from borough.fleet.ssh_keys import is_usable
from borough.fleet.vms import VmId

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}
STARTS_WITHIN_S = 60.0
QUITS_WITHIN_S = 5.0
LOG = "qemu.log"
"""What QEMU itself says."""
_LOOK_AGAIN_S = 0.02
_MOST_WORDS = 2000
_RUNNING = "running"
_PAUSED = frozenset({"paused", "prelaunch", "suspended", "inmigrate", "postmigrate", "save-vm", "restore-vm"})
_ENDED = "shutdown"
_FORMS = frozenset({ImageForm.QCOW2, ImageForm.RAW, ImageForm.VOLUME})


_children: set[Child] = set()
"""Machines that this process started, so that it collects their exit status. They may outlive any driver, and it."""


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


class Running:
    """The processes of one host daemon's machines. Whoever calls holds the machine's turn."""

    def __init__(self, settings: QemuSettings, places: Places) -> None:
        self._settings = settings
        self._places = places

    async def process(self, vm_id: VmId) -> ProcessRef | None:
        """Return the machine's process, proven to be it, or ``None``."""
        _collect()
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
            name=self._places.name(order.vm_id),
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
        _children.add(child)
        await self._begun(order.vm_id, child)

    async def end(self, vm_id: VmId) -> None:
        """End the machine's process: what it was given to write is written, if it still listens."""
        ref = await self.process(vm_id)
        if ref is None:
            return
        with suppress(Unavailable):  # then it is ended without its consent
            async with self.speak(vm_id) as qmp:
                await qmp.execute("quit")
            await asyncio.to_thread(procfs.wait_gone, [ref], within_s=QUITS_WITHIN_S)
        await asyncio.to_thread(process.end, ref, grace_s=QUITS_WITHIN_S)

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
        return Finding(found=Found.STOPPED)

    def _prepare(self, order: MachineOrder, disk: Disk, key: str) -> None:
        """Note the machine, and make its seed: what it reads at every start, and acts on when its id is new to it."""
        self._places.note(order, disk)
        usable = [each for each in order.spec.ssh_keys if is_usable(each)]
        link = order.link
        servers = self._settings.nameservers if link.device is not None else (str(user_mode_nameserver(link)),)
        seed = Seed(
            vm_id=order.vm_id,
            address=link.address,
            network=link.network,
            gateway=link.gateway,
            nameservers=servers,
            ssh_keys=[*usable, key],
        )
        draft = self._places.folder(order.vm_id) / f".{SEED}"
        draft.write_bytes(fat_volume(VOLUME_LABEL, documents(seed)))
        draft.replace(draft.with_name(SEED))


def failed(what: str) -> Unavailable:
    """Return the error for an engine that did not do what it was asked."""
    return Unavailable(what, code="engine_failed", resolution="read its words; the machine's console may tell more")


def not_running(vm_id: VmId) -> Conflict:
    """Return the error for a machine that would have to run."""
    return Conflict(f"{vm_id} does not run", code="vm_not_running", resolution="start it first")


def _bootable(order: MachineOrder) -> Disk:
    if order.spec.command or order.spec.env:
        raise Conflict(
            "a machine with a kernel of its own runs what its image starts",
            code="not_possible",
            resolution="leave command and environment out, and run commands once it is up",
        )
    if order.disk is None or order.disk.form not in _FORMS:
        raise Conflict(
            f"{order.spec.image} is no disk",
            code="not_possible",
            reason="this engine starts machines from a disk image",
            resolution="choose such an image, or another engine",
        )
    return order.disk


def _told(status: str) -> Finding:
    if status == _RUNNING:
        return Finding(found=Found.RUNNING)
    if status in _PAUSED:
        return Finding(found=Found.PAUSED)
    if status == _ENDED:
        return Finding(found=Found.STOPPED)
    return Finding(found=Found.FAILED, detail=f"QEMU says that it is {status}")


def _collect() -> None:
    for child in [child for child in _children if child.poll() is not None]:
        _children.discard(child)
