"""The port ``EngineDriver`` for QEMU."""

import asyncio
import re
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path

from borough.adapters import process, procfs
from borough.adapters.engines import consoles
from borough.adapters.engines.entered import EnteredMachines
from borough.adapters.engines.measuring import measure
from borough.adapters.engines.places import Kept, Places
from borough.adapters.engines.qemu import acceleration, agent, snapshots
from borough.adapters.engines.qemu.acceleration import Acceleration
from borough.adapters.engines.qemu.console import sit_down
from borough.adapters.engines.qemu.running import ENVIRONMENT, QemuSettings, Running, processes
from borough.adapters.engines.refusals import failed, no_snapshot, not_running
from borough.adapters.engines.ssh import Ssh, speaks
from borough.adapters.process import ProcessRef
from borough.core.errors import Conflict, Unavailable
from borough.fleet.engines import Capability, Engine, Missing, Offer
from borough.fleet.names import check_name
from borough.fleet.ports.engines import Chunk, ExecOrder, Finding, MachineOrder, MachineStats, SnapshotInfo
from borough.fleet.vms import VmId

_ALWAYS = frozenset(
    {
        Capability.PUBLISH_TCP, Capability.DENY_OUTGOING, Capability.SSH_KEYS, Capability.LOGS, Capability.CONSOLE,
        Capability.STATS, Capability.PAUSE, Capability.SNAPSHOT, Capability.SNAPSHOT_MEMORY, Capability.CLONE,
        Capability.DISK_LIMIT, Capability.MEMORY_LIMIT, Capability.CPU_LIMIT, Capability.KERNEL,
    }
)  # fmt: skip
_BY_SSH = frozenset({Capability.EXEC, Capability.PTY, Capability.FILES})
_VERSION = re.compile(rb"version (\S+)")


class QemuMachines(EnteredMachines):
    """Machines of QEMU. Use it from one event loop; the machines outlive it."""

    def __init__(self, settings: QemuSettings, *, bridged: bool, has_proxy: bool) -> None:
        """``bridged``: machines get links on the host's bridge; ``has_proxy``: there is a way out by list."""
        places = Places(settings.state / "machines", processes=partial(processes, settings.marker))
        ssh = Ssh(settings.state / "ssh")
        super().__init__(places, ssh, reachable_within_s=settings.reachable_within_s, publish_on=settings.publish_on)
        self._settings = settings
        self._bridged = bridged
        self._has_proxy = has_proxy
        self._running = Running(settings, places)
        self._acceleration: Acceleration | None = None
        self._finding_out = asyncio.Lock()
        self._at_console: set[VmId] = set()

    @property
    def engine(self) -> Engine:
        """Return which one it is."""
        return Engine.QEMU

    async def probe(self) -> Offer | Missing:
        """Return what can be done here, or why not: a guest is booted to find that out."""
        version = await self._version()
        if version is None:
            return Missing(engine=Engine.QEMU, reason=f"there is no {self._settings.program} that runs")
        if shutil.which("qemu-img") is None:
            return Missing(engine=Engine.QEMU, reason="there is no qemu-img")
        found = await self._boots_on(version)
        if found.name is None:
            return Missing(engine=Engine.QEMU, reason=f"no guest boots here: {found.reason}")
        reasons: dict[Capability, str] = {}
        lacks = self._ssh.missing()
        if lacks is not None:
            reasons |= dict.fromkeys(_BY_SSH, lacks)
        if not self._bridged:
            reasons[Capability.PRIVATE_NETWORK] = "machines of this host have no network between them"
        if not (self._bridged and self._has_proxy):
            reasons[Capability.EGRESS_ALLOWLIST] = "this host has no egress proxy that machines could reach"
        if found.reason is not None:
            reasons[Capability.KERNEL] = f"slow: {found.reason}"
        able = {*_ALWAYS, *({*_BY_SSH, Capability.PRIVATE_NETWORK, Capability.EGRESS_ALLOWLIST} - reasons.keys())}
        return Offer(
            engine=Engine.QEMU,
            version=version,
            capabilities=frozenset(able),
            reasons=reasons,
            acceleration=found.name,
        )

    # -- its life ------------------------------------------------------------------------------------------------------

    async def create(self, order: MachineOrder) -> None:
        """Make the machine and start it, unless it runs."""
        async with self._turn(order.vm_id):
            if await self._running.process(order.vm_id) is None:
                await self._launch(order)

    async def start(self, order: MachineOrder) -> None:
        """Start a stopped machine from its disk, or let a paused one go on."""
        async with self._turn(order.vm_id):
            if await self._running.process(order.vm_id) is None:
                await self._launch(order)
                return
            async with self._running.speak(order.vm_id) as qmp:
                await qmp.execute("cont")

    async def stop(self, vm_id: VmId, *, grace_s: float) -> None:
        """Press the machine's power button; after ``grace_s`` end it. Its disk stays."""
        async with self._turn(vm_id):
            await self._kept(vm_id)
            ref = await self._running.process(vm_id)
            if ref is None:
                return
            with suppress(Unavailable):  # it is ended below, whether it can be spoken to or not
                async with self._running.speak(vm_id) as qmp:
                    await qmp.execute("cont")
                    await qmp.execute("system_powerdown")
                await asyncio.to_thread(procfs.wait_gone, [ref], within_s=grace_s)
            await self._running.end(vm_id)

    async def pause(self, vm_id: VmId) -> None:
        """Freeze the machine."""
        async with self._turn(vm_id):
            await self._process(vm_id)
            async with self._running.speak(vm_id) as qmp:
                await qmp.execute("stop")

    async def destroy(self, vm_id: VmId) -> None:
        """End the machine and remove all that is kept of it; its disk is the store's."""
        async with self._turn(vm_id):
            await self._running.end(vm_id)
            await self._running.forget(vm_id)

    async def last_process(self, vm_id: VmId) -> ProcessRef | None:
        """Return the machine's process, which is all of it on this host; ``None`` when it does not run."""
        return await self._running.process(vm_id)

    async def find(self, vm_id: VmId) -> Finding:
        """Return what there is of the machine.

        Raises:
            Unavailable: it runs, and does not answer in time: unknown how it is (``engine_failed``).
        """
        async with self._turn(vm_id):
            await asyncio.to_thread(consoles.trim, self._places.console(vm_id), self._settings.log_bytes)
            return await self._running.find(vm_id)

    # -- its inside ----------------------------------------------------------------------------------------------------

    async def execute(self, vm_id: VmId, order: ExecOrder, stdin: AsyncIterator[bytes]) -> AsyncGenerator[Chunk, None]:
        """Run a command inside, by the guest agent where there is one and SSH does not answer."""
        door = await self._door(vm_id)
        found = None if await speaks(door) else await agent.greeted(self._places.folder(vm_id))
        chunks = super().execute(vm_id, order, stdin) if found is None else agent.execute(found, order, stdin)
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk
        finally:
            if found is not None:
                found.close()

    async def console(self, vm_id: VmId, keys: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Yield what the machine prints from now on, ``b""`` as soon as its console is open; ``keys`` are typed."""
        await self._kept(vm_id)
        if not await self._runs(vm_id):
            raise not_running(vm_id)
        if vm_id in self._at_console:
            raise Conflict(
                f"somebody sits at the console of {vm_id}",
                code="console_in_use",
                reason="a serial line has one other end",
                resolution="wait until they leave, or read along (tt logs -f)",
            )
        self._at_console.add(vm_id)
        try:
            async with aclosing(sit_down(self._places.folder(vm_id), keys)) as parts:
                async for part in parts:
                    yield part
        finally:
            self._at_console.discard(vm_id)

    # -- its states ----------------------------------------------------------------------------------------------------

    async def stats(self, vm_id: VmId) -> MachineStats:
        """Return what the machine uses now."""
        kept = await self._kept(vm_id)
        return await asyncio.to_thread(measure, await self._running.process(vm_id), kept, disk=kept.disk.path)

    async def snapshot(self, vm_id: VmId, name: str) -> SnapshotInfo:
        """Keep the present state under a name: with memory while it runs; one that is there already is returned."""
        check_name(name, what="a snapshot")
        kept = await self._kept(vm_id)
        snapshots.check_disk(kept.disk)
        async with self._turn(vm_id):
            infos = await self._listed(vm_id, kept)
            if snapshots.named(infos, name) is None:
                if await self._running.process(vm_id) is None:
                    await snapshots.save_at_rest(kept.disk, name)
                else:
                    async with self._running.speak(vm_id) as qmp:
                        await snapshots.save(qmp, name)
                infos = await self._listed(vm_id, kept)
        info = snapshots.named(infos, name)
        if info is None:
            raise failed(f"QEMU says that {name} is kept, and does not list it")
        return info

    async def snapshots(self, vm_id: VmId) -> Sequence[SnapshotInfo]:
        """Return them, oldest first."""
        kept = await self._kept(vm_id)
        if not snapshots.can_keep(kept.disk):
            return []
        async with self._turn(vm_id):
            return await self._listed(vm_id, kept)

    async def restore(self, order: MachineOrder, name: str) -> None:
        """Return to a snapshot and run from it; raises ``NotFound`` (``snapshot_not_found``)."""
        kept = await self._kept(order.vm_id)
        snapshots.check_disk(kept.disk)
        async with self._turn(order.vm_id):
            info = snapshots.named(await self._listed(order.vm_id, kept), name)
            if info is None:
                raise no_snapshot(order.vm_id, name)
            if not info.with_memory:
                await self._running.end(order.vm_id)
                await snapshots.apply_at_rest(kept.disk, name)
                await self._launch(order)
                return
            if await self._running.process(order.vm_id) is None:
                await self._launch(order, paused=True)
            async with self._running.speak(order.vm_id) as qmp:
                await snapshots.load(qmp, name)
                await qmp.execute("cont")

    async def delete_snapshot(self, vm_id: VmId, name: str) -> None:
        """Forget one; one that is unknown is gone already."""
        kept = await self._kept(vm_id)
        if not snapshots.can_keep(kept.disk):
            return
        async with self._turn(vm_id):
            if snapshots.named(await self._listed(vm_id, kept), name) is None:
                return
            if await self._running.process(vm_id) is None:
                await snapshots.delete_at_rest(kept.disk, name)
                return
            async with self._running.speak(vm_id) as qmp:
                await snapshots.delete(qmp, name)

    async def copy_snapshot(self, vm_id: VmId, name: str, target: Path) -> None:
        """Write the disk that a machine had at a snapshot; raises ``NotFound`` (``snapshot_not_found``)."""
        kept = await self._kept(vm_id)
        snapshots.check_disk(kept.disk)
        async with self._turn(vm_id):
            if snapshots.named(await self._listed(vm_id, kept), name) is None:
                raise no_snapshot(vm_id, name)
            await snapshots.copy(kept.disk, name, target)

    # -- what they share -----------------------------------------------------------------------------------------------

    async def _launch(self, order: MachineOrder, *, paused: bool = False) -> None:
        version = await self._version()
        if version is None:
            raise failed(f"{self._settings.program} is not on this host any more")
        found = await self._boots_on(version)
        if found.name is None:
            raise failed(f"no guest boots on this host: {found.reason}")
        key = await asyncio.to_thread(self._ssh.public_key)
        await self._running.launch(order, acceleration=found.name, key=key, paused=paused)

    async def _listed(self, vm_id: VmId, kept: Kept) -> Sequence[SnapshotInfo]:
        if await self._running.process(vm_id) is None:
            return await snapshots.listed_at_rest(kept.disk)
        async with self._running.speak(vm_id) as qmp:
            return await snapshots.listed(qmp)

    async def _process(self, vm_id: VmId) -> ProcessRef:
        await self._kept(vm_id)
        ref = await self._running.process(vm_id)
        if ref is None:
            raise not_running(vm_id)
        return ref

    async def _runs(self, vm_id: VmId) -> bool:
        return await self._running.process(vm_id) is not None

    async def _version(self) -> str | None:
        if shutil.which(self._settings.program) is None:
            return None
        finished = await asyncio.to_thread(process.run, [self._settings.program, "--version"], env=ENVIRONMENT)
        told = _VERSION.search(finished.stdout)
        return told[1].decode() if finished.code == 0 and told is not None else None

    async def _boots_on(self, version: str) -> Acceleration:
        async with self._finding_out:
            if self._acceleration is None:
                self._acceleration = await asyncio.to_thread(
                    acceleration.find, self._settings.program, version, state=self._settings.state
                )
            return self._acceleration
