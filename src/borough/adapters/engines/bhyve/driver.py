"""The port ``EngineDriver`` for bhyve."""

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from borough.adapters.engines import consoles
from borough.adapters.engines.bhyve import argv
from borough.adapters.engines.bhyve.argv import Boot, Listed
from borough.adapters.engines.commands import HostRunner, Runner, must
from borough.adapters.engines.entered import EnteredMachines
from borough.adapters.engines.measuring import disk_bytes
from borough.adapters.engines.places import Places
from borough.adapters.engines.refusals import (
    check_runs_its_own,
    failed,
    not_possible,
    wrong_image,
)
from borough.adapters.engines.seeds import write_seed
from borough.adapters.engines.snapshotless import SnapshotlessMachines
from borough.adapters.engines.ssh import Ssh
from borough.adapters.process import ProcessRef
from borough.core.errors import Unavailable
from borough.fleet.engines import Capability, Engine, Missing, Offer
from borough.fleet.images import ImageForm
from borough.fleet.ports.disks import Disk
from borough.fleet.ports.engines import Finding, Found, MachineOrder, MachineStats
from borough.fleet.vms import VmId

_CAPABILITIES = frozenset(
    {
        Capability.PUBLISH_TCP, Capability.DENY_OUTGOING, Capability.PRIVATE_NETWORK, Capability.SSH_KEYS,
        Capability.LOGS, Capability.STATS, Capability.DISK_LIMIT, Capability.MEMORY_LIMIT, Capability.CPU_LIMIT,
        Capability.KERNEL, Capability.EXEC, Capability.PTY, Capability.FILES,
    }
)  # fmt: skip
_NO_SNAPSHOTS = "bhyve's snapshots are not part of FreeBSD's releases"
_REASONS: Mapping[Capability, str] = {
    Capability.PAUSE: "bhyve cannot freeze a machine",
    Capability.SNAPSHOT: _NO_SNAPSHOTS,
    Capability.CLONE: _NO_SNAPSHOTS,
    Capability.SNAPSHOT_MEMORY: _NO_SNAPSHOTS,
}
_FORMS = frozenset({ImageForm.RAW, ImageForm.VOLUME})
_LOOK_AGAIN_S = 0.1
_KILLED_WITHIN_S = 10.0
_STARTS_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BhyveSettings:
    """How machines of this engine are made on this host."""

    state: Path
    marker: str
    firmware: Path = argv.FIRMWARE
    """For guests that are not FreeBSD; used where it is installed."""
    nameservers: tuple[str, ...] = ()
    reachable_within_s: float = 120.0
    log_bytes: int = 16 << 20


class BhyveMachines(EnteredMachines, SnapshotlessMachines):
    """Machines of bhyve. Use it from one event loop; the machines outlive it."""

    _why_no_snapshots = _NO_SNAPSHOTS

    def __init__(self, settings: BhyveSettings, *, bridged: bool, runner: Runner | None = None) -> None:
        self._settings = settings
        self._bridged = bridged
        self._runner = runner or HostRunner()
        settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        places = Places(settings.state / "machines", processes=_none)
        super().__init__(places, Ssh(settings.state / "ssh"), reachable_within_s=settings.reachable_within_s)

    @property
    def engine(self) -> Engine:
        """Return which one it is."""
        return Engine.BHYVE

    async def probe(self) -> Offer | Missing:
        """Return what can be done here, or why not: there is no bhyve, or its kernel module is not loaded."""
        if not self._bridged:
            return _missing("its machines would have no network: this host has no bridge for them")
        try:
            kernel = await self._runner.run(["uname", "-sr"])
            system, _, release = kernel.stdout.decode().strip().partition(" ")
            if system != "FreeBSD":
                return _missing(f"it is part of FreeBSD, and this is {system}")
            module = await self._runner.run(["kldstat", "-q", "-m", "vmm"])
            control = await self._runner.run(["which", "bhyve", "bhyvectl"])
        except Unavailable as failure:
            return _missing(str(failure))
        if module.code != 0:
            return _missing("the kernel module vmm is not loaded: kldload vmm")
        if control.code != 0:
            return _missing("bhyve or bhyvectl is not installed")
        return Offer(engine=Engine.BHYVE, version=release, capabilities=_CAPABILITIES, reasons=dict(_REASONS))

    async def create(self, order: MachineOrder) -> None:
        """Make the machine and start it, unless it runs."""
        await self.start(order)

    async def start(self, order: MachineOrder) -> None:
        """Start the machine from its disk; what the kernel kept of an earlier start goes first."""
        async with self._turn(order.vm_id):
            if await self._process(order.vm_id) is None:
                await self._launch(order, _bootable(order))

    async def stop(self, vm_id: VmId, *, grace_s: float) -> None:
        """Press the machine's power button, which for bhyve is TERM; after ``grace_s`` end it. Its disk stays."""
        async with self._turn(vm_id):
            await self._kept(vm_id)
            await self._end(vm_id, grace_s=grace_s)

    async def pause(self, vm_id: VmId) -> None:
        """Raise ``Conflict`` (``not_possible``)."""
        await self._kept(vm_id)
        raise not_possible("bhyve cannot freeze a machine", reason="it has no such command", resolution="stop it")

    async def destroy(self, vm_id: VmId) -> None:
        """End the machine and remove all that is kept of it; its disk is the store's."""
        async with self._turn(vm_id):
            await self._end(vm_id, grace_s=0.0)
            await asyncio.to_thread(self._places.remove, vm_id)

    async def find(self, vm_id: VmId) -> Finding:
        """Return what there is of the machine."""
        if await self._process(vm_id) is not None:
            return Finding(found=Found.RUNNING)
        kept = await asyncio.to_thread(self._places.find, vm_id)
        if kept is not None:
            await asyncio.to_thread(consoles.trim, self._places.console(vm_id), self._settings.log_bytes)
            return Finding(found=Found.STOPPED)
        return Finding(found=Found.STOPPED if await self._is_in_kernel(vm_id) else Found.ABSENT)

    async def machines(self) -> Sequence[VmId]:
        """Return every machine that has a folder here, or a place in the kernel under a name of ours."""
        listed = (await self._runner.run(["ls", str(argv.DEVICES)])).stdout.decode().split()
        ours = (argv.machine_of(name, self._settings.marker) for name in listed)
        return sorted({*await super().machines(), *(vm_id for vm_id in ours if vm_id is not None)})

    async def stats(self, vm_id: VmId) -> MachineStats:
        """Return what the machine uses now."""
        kept = await self._kept(vm_id)
        process = await self._process(vm_id)
        disk = await asyncio.to_thread(disk_bytes, kept.disk.path)
        if process is None:
            return MachineStats(disk_bytes=disk)
        told = await must(self._runner, ["ps", "-o", "cputime=", "-o", "rss=", "-p", str(process.pid)])
        used, resident = told.decode().split()
        return MachineStats(cpu_seconds=seconds(used), memory_bytes=int(resident) << 10, disk_bytes=disk)

    async def _launch(self, order: MachineOrder, disk: Disk) -> None:
        key = await asyncio.to_thread(self._ssh.public_key)
        folder = self._places.folder(order.vm_id)
        await asyncio.to_thread(self._places.note, order, disk)
        seed = await asyncio.to_thread(
            write_seed, folder, order, key=key, nameservers=self._settings.nameservers
        )  # fmt: skip
        boot = Boot(
            name=self._name(order.vm_id),
            size=order.spec.size,
            disk=disk.path,
            seed=seed,
            link=order.link,
            firmware=self._settings.firmware if self._settings.firmware.exists() else None,
            folder=folder,
        )
        await self._runner.run(argv.destroy_argv(boot.name))  # what an earlier start left; mostly nothing
        if boot.firmware is None:
            await must(self._runner, argv.load_argv(boot))
        await must(self._runner, argv.boot_argv(boot))
        if not await self._comes(order.vm_id):
            said = await asyncio.to_thread(_last_words, self._places.console(order.vm_id))
            await self._runner.run(argv.destroy_argv(boot.name))
            raise failed(f"bhyve did not start: {said}")

    async def _comes(self, vm_id: VmId) -> bool:
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while await self._process(vm_id) is None:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_LOOK_AGAIN_S)
        return True

    async def _end(self, vm_id: VmId, *, grace_s: float) -> None:
        process = await self._process(vm_id)
        if process is not None and grace_s > 0:
            await self._runner.run(["kill", "-TERM", str(process.pid)])
            await self._wait_gone(vm_id, process, within_s=grace_s)
        if process is not None and await self._process(vm_id) == process:
            await self._runner.run(["kill", "-KILL", str(process.pid)])
            if not await self._wait_gone(vm_id, process, within_s=_KILLED_WITHIN_S):
                raise failed(f"bhyve's process {process.pid} does not end")
        if await self._is_in_kernel(vm_id):
            await must(self._runner, argv.destroy_argv(self._name(vm_id)))

    async def _wait_gone(self, vm_id: VmId, process: Listed, *, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while await self._process(vm_id) == process:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_LOOK_AGAIN_S)
        return True

    async def _process(self, vm_id: VmId) -> Listed | None:
        listing = await must(self._runner, argv.PROCESSES)
        return argv.find_process(listing.decode(errors="replace"), self._name(vm_id), user=os.geteuid())

    async def _is_in_kernel(self, vm_id: VmId) -> bool:
        return (await self._runner.run(["ls", str(argv.DEVICES / self._name(vm_id))])).code == 0

    async def _runs(self, vm_id: VmId) -> bool:
        return await self._process(vm_id) is not None

    def _name(self, vm_id: VmId) -> str:
        return argv.name_of(self._settings.marker, vm_id)


def seconds(told: str) -> float:
    """Return a processor time as ``ps`` tells it: ``[[days-]hours:]minutes:seconds.hundredths``."""
    days, _, rest = told.rpartition("-")
    total = 0.0
    for part in rest.split(":"):
        total = total * 60 + float(part)
    return total + (int(days) * 86_400 if days else 0)


def _bootable(order: MachineOrder) -> Disk:
    check_runs_its_own(order)
    if order.disk is None or order.disk.form not in _FORMS:
        raise wrong_image(order, "a raw disk image or a volume")
    if order.link.device is None:
        raise not_possible(
            "bhyve's machines need a bridge",
            reason="it has no user-mode networking",
            resolution="run the host daemon as root",
        )
    return order.disk


def _last_words(console: Path) -> str:
    with suppress(FileNotFoundError):
        return console.read_text(errors="replace").strip()[-2000:] or "it said nothing"
    return "it said nothing"


def _none() -> Mapping[VmId, ProcessRef]:
    """Return nothing: FreeBSD's processes are asked for by ``ps``."""
    return {}


def _missing(reason: str) -> Missing:
    return Missing(engine=Engine.BHYVE, reason=reason)
