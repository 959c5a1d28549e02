"""The port ``EngineDriver`` for Firecracker."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from borough.adapters import procfs
from borough.adapters.engines import consoles
from borough.adapters.engines.entered import EnteredMachines
from borough.adapters.engines.firecracker import bodies, states
from borough.adapters.engines.firecracker.bodies import ROOT
from borough.adapters.engines.firecracker.probing import probe
from borough.adapters.engines.firecracker.running import FirecrackerSettings, Running
from borough.adapters.engines.measuring import measure
from borough.adapters.engines.refusals import no_snapshot, not_cloned, not_running
from borough.adapters.engines.ssh import Ssh
from borough.adapters.process import ProcessRef
from borough.core.errors import Unavailable
from borough.fleet.engines import Capability, Engine, Missing, Offer
from borough.fleet.names import check_name
from borough.fleet.ports.engines import Finding, Found, MachineOrder, MachineStats, SnapshotInfo
from borough.fleet.vms import VmId

_ALWAYS = frozenset(
    {
        Capability.PUBLISH_TCP, Capability.DENY_OUTGOING, Capability.PRIVATE_NETWORK, Capability.SSH_KEYS,
        Capability.LOGS, Capability.STATS, Capability.PAUSE, Capability.SNAPSHOT, Capability.SNAPSHOT_MEMORY,
        Capability.DISK_LIMIT, Capability.MEMORY_LIMIT, Capability.CPU_LIMIT, Capability.KERNEL,
    }
)  # fmt: skip
_NO_CLONES = "a snapshot of this engine goes on with the memory, addresses and keys of the machine it is of"
_BY_SSH = frozenset({Capability.EXEC, Capability.PTY, Capability.FILES})


class FirecrackerMachines(EnteredMachines):
    """Machines of Firecracker. Use it from one event loop; the machines outlive it."""

    def __init__(self, settings: FirecrackerSettings, *, bridged: bool, has_proxy: bool) -> None:
        """``bridged``: machines get links on the host's bridge; ``has_proxy``: there is a way out by list."""
        settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._running = Running(settings)
        ssh = Ssh(settings.state / "ssh")
        super().__init__(self._running.places, ssh, reachable_within_s=settings.reachable_within_s)
        self._settings = settings
        self._bridged = bridged
        self._has_proxy = has_proxy

    @property
    def engine(self) -> Engine:
        """Return which one it is."""
        return Engine.FIRECRACKER

    async def probe(self) -> Offer | Missing:
        """Return what can be done here, or why not: no guest boots, or machines would have no network."""
        found = await asyncio.to_thread(probe, self._settings.program, state=self._settings.state)
        if found is None:
            return _missing(f"there is no {self._settings.program} that runs")
        if found.reason is not None:
            return _missing(found.reason)
        if not self._bridged:
            return _missing("its machines would have no network: this host has no bridge for them")
        lacks = self._ssh.missing()
        reasons: dict[Capability, str] = {} if lacks is None else dict.fromkeys(_BY_SSH, lacks)
        reasons[Capability.CLONE] = _NO_CLONES
        if not self._has_proxy:
            reasons[Capability.EGRESS_ALLOWLIST] = "this host has no egress proxy that machines could reach"
        able = {*_ALWAYS, *({*_BY_SSH, Capability.EGRESS_ALLOWLIST} - reasons.keys())}
        return Offer(
            engine=Engine.FIRECRACKER,
            version=found.version,
            capabilities=frozenset(able),
            reasons=reasons,
            acceleration="kvm",
        )

    async def create(self, order: MachineOrder) -> None:
        """Make the machine and start it, unless it runs."""
        async with self._turn(order.vm_id):
            if not await self._runs(order.vm_id):
                await self._launch(order)

    async def start(self, order: MachineOrder) -> None:
        """Start a stopped machine from its disk, or let a paused one go on."""
        async with self._turn(order.vm_id):
            if not await self._runs(order.vm_id):
                await self._launch(order)
            elif (await self._running.find(order.vm_id)).found is Found.PAUSED:
                await self._running.ask(order.vm_id, bodies.pause_request(paused=False))

    async def stop(self, vm_id: VmId, *, grace_s: float) -> None:
        """Ask the guest to shut down; after ``grace_s`` end it. Its disk stays."""
        async with self._turn(vm_id):
            await self._kept(vm_id)
            ref = await self._running.process(vm_id)
            if ref is None:
                return
            with suppress(Unavailable):  # it is ended below, whether it can be asked or not
                if (await self._running.find(vm_id)).found is Found.PAUSED:
                    await self._running.ask(vm_id, bodies.pause_request(paused=False))
                await self._running.ask(vm_id, bodies.shutdown_request())
                await asyncio.to_thread(procfs.wait_gone, [ref], within_s=grace_s)
            await self._running.end(vm_id)

    async def pause(self, vm_id: VmId) -> None:
        """Freeze the machine."""
        async with self._turn(vm_id):
            await self._kept(vm_id)
            if not await self._runs(vm_id):
                raise not_running(vm_id)
            if (await self._running.find(vm_id)).found is not Found.PAUSED:
                await self._running.ask(vm_id, bodies.pause_request(paused=True))

    async def destroy(self, vm_id: VmId) -> None:
        """End the machine and remove all that is kept of it; its disk is the store's."""
        async with self._turn(vm_id):
            await self._running.end(vm_id)
            await self._running.remove(vm_id)

    async def last_process(self, vm_id: VmId) -> ProcessRef | None:
        """Return the machine's process, which is all of it on this host; ``None`` when it does not run."""
        return await self._running.process(vm_id)

    async def find(self, vm_id: VmId) -> Finding:
        """Return what there is of the machine; raises ``Unavailable`` when it runs and does not answer in time."""
        async with self._turn(vm_id):
            await asyncio.to_thread(consoles.trim, self._places.console(vm_id), self._settings.log_bytes)
            return await self._running.find(vm_id)

    async def stats(self, vm_id: VmId) -> MachineStats:
        """Return what the machine uses now."""
        kept = await self._kept(vm_id)
        ref = await self._running.process(vm_id)
        return await asyncio.to_thread(measure, ref, kept, disk=kept.disk.path / ROOT)

    async def snapshot(self, vm_id: VmId, name: str) -> SnapshotInfo:
        """Keep the present state under a name: with memory while it runs; one that is there already is returned."""
        check_name(name, what="a snapshot")
        disk = (await self._kept(vm_id)).disk.path
        async with self._turn(vm_id):
            if await self._named(vm_id, name) is None:
                if await self._runs(vm_id):
                    await self._save(vm_id, name)
                else:
                    await asyncio.to_thread(states.keep, disk, name, room=None)
            info = await self._named(vm_id, name)
        if info is None:
            raise no_snapshot(vm_id, name)
        return info

    async def snapshots(self, vm_id: VmId) -> Sequence[SnapshotInfo]:
        """Return them, oldest first."""
        return await asyncio.to_thread(states.listed, (await self._kept(vm_id)).disk.path)

    async def restore(self, order: MachineOrder, name: str) -> None:
        """Return to a snapshot and run from it; raises ``NotFound`` (``snapshot_not_found``)."""
        disk = (await self._kept(order.vm_id)).disk.path
        async with self._turn(order.vm_id):
            info = await self._named(order.vm_id, name)
            if info is None:
                raise no_snapshot(order.vm_id, name)
            await self._running.end(order.vm_id)
            folder = await asyncio.to_thread(states.bring_back, disk, name)
            key = await asyncio.to_thread(self._ssh.public_key)
            await self._running.launch(order, key=key, state=folder if info.with_memory else None)

    async def delete_snapshot(self, vm_id: VmId, name: str) -> None:
        """Forget one; one that is unknown is gone already."""
        check_name(name, what="a snapshot")
        disk = (await self._kept(vm_id)).disk.path
        async with self._turn(vm_id):
            await asyncio.to_thread(states.forget, disk, name)

    async def copy_snapshot(self, vm_id: VmId, name: str, target: Path) -> None:
        """Raise ``Conflict`` (``not_possible``)."""
        del target
        await self._kept(vm_id)
        raise not_cloned(vm_id, name, reason=_NO_CLONES)

    async def _save(self, vm_id: VmId, name: str) -> None:
        """Keep memory and disk of one moment: the machine stands still meanwhile."""
        was_running = (await self._running.find(vm_id)).found is Found.RUNNING
        if was_running:
            await self._running.ask(vm_id, bodies.pause_request(paused=True))
        try:
            await self._running.ask(vm_id, bodies.save_request())
            disk = (await self._kept(vm_id)).disk.path
            await asyncio.to_thread(states.keep, disk, name, room=self._running.room(vm_id))
        finally:
            if was_running:
                await self._running.ask(vm_id, bodies.pause_request(paused=False))

    async def _named(self, vm_id: VmId, name: str) -> SnapshotInfo | None:
        return next((info for info in await self.snapshots(vm_id) if info.name == name), None)

    async def _launch(self, order: MachineOrder) -> None:
        key = await asyncio.to_thread(self._ssh.public_key)
        await self._running.launch(order, key=key)

    async def _runs(self, vm_id: VmId) -> bool:
        return await self._running.process(vm_id) is not None


def _missing(reason: str) -> Missing:
    return Missing(engine=Engine.FIRECRACKER, reason=reason)
