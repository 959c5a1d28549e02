"""The port ``EngineDriver`` for jails."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

from borough.adapters import beneath
from borough.adapters.engines import consoles
from borough.adapters.engines.bhyve.driver import seconds
from borough.adapters.engines.commands import ENVIRONMENT, HostRunner, Runner, must
from borough.adapters.engines.jail import argv
from borough.adapters.engines.jail.argv import Start
from borough.adapters.engines.places import Places
from borough.adapters.engines.refusals import not_possible, not_running, wrong_image
from borough.adapters.engines.shells import Entrance
from borough.adapters.engines.snapshotless import SnapshotlessMachines
from borough.adapters.process import ProcessRef
from borough.core.errors import Unavailable
from borough.fleet.engines import Capability, Engine, Missing, Offer
from borough.fleet.images import ImageForm
from borough.fleet.ports.disks import Disk
from borough.fleet.ports.engines import Chunk, ExecOrder, Finding, Found, MachineOrder, MachineStats
from borough.fleet.ssh_keys import is_usable
from borough.fleet.vms import VmId

_CAPABILITIES = frozenset(
    {
        Capability.PUBLISH_TCP, Capability.DENY_OUTGOING, Capability.PRIVATE_NETWORK, Capability.SSH_KEYS,
        Capability.LOGS, Capability.STATS, Capability.EXEC, Capability.FILES,
    }
)  # fmt: skip
_LIMITS = frozenset({Capability.MEMORY_LIMIT, Capability.CPU_LIMIT})
_NO_SNAPSHOTS = "a jail's root is an ordinary folder of this host"
_STOP_WITHIN_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class JailSettings:
    """How machines of this engine are made on this host."""

    state: Path
    marker: str
    bridge: str = "tt0"
    """The device that gets a jail's address while it runs."""
    jexec: str = "jexec"
    log_bytes: int = 16 << 20


class JailMachines(SnapshotlessMachines):
    """Machines that are jails. Use it from one event loop; they outlive it."""

    _why_no_snapshots = _NO_SNAPSHOTS

    def __init__(self, settings: JailSettings, *, bridged: bool, runner: Runner | None = None) -> None:
        self._settings = settings
        self._bridged = bridged
        self._runner = runner or HostRunner()
        settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        super().__init__(Places(settings.state / "machines", processes=_none))

    @property
    def engine(self) -> Engine:
        """Return which one it is."""
        return Engine.JAIL

    async def probe(self) -> Offer | Missing:
        """Return what can be done here, or why there are no jails."""
        if not self._bridged:
            return _missing("its machines would have no network: this host has no bridge for them")
        try:
            kernel = await self._runner.run(["uname", "-sr"])
            tools = await self._runner.run(["which", "jail", "jexec", "jls"])
        except Unavailable as failure:
            return _missing(str(failure))
        system, _, release = kernel.stdout.decode().strip().partition(" ")
        if system != "FreeBSD":
            return _missing(f"jails are part of FreeBSD, and this is {system}")
        if tools.code != 0:
            return _missing("jail, jexec or jls is not installed")
        able, reasons = set(_CAPABILITIES), {Capability.PTY: "jexec gives no terminal"}
        if await self._limits():
            able |= _LIMITS
        else:
            reasons |= dict.fromkeys(_LIMITS, "resource accounting is off: set kern.racct.enable=1 in loader.conf")
        reasons[Capability.PAUSE] = "a jail cannot be frozen"
        reasons |= dict.fromkeys((Capability.SNAPSHOT, Capability.CLONE), _NO_SNAPSHOTS)
        return Offer(engine=Engine.JAIL, version=release, capabilities=frozenset(able), reasons=reasons)

    # -- its life ------------------------------------------------------------------------------------------------------

    async def create(self, order: MachineOrder) -> None:
        """Make the jail and start it, unless it runs."""
        await self.start(order)

    async def start(self, order: MachineOrder) -> None:
        """Make the jail of its folder again; one that was removed is not there to be changed."""
        disk = _root(order)
        async with self._turn(order.vm_id):
            if not await self._runs(order.vm_id):
                await self._launch(order, disk)

    async def stop(self, vm_id: VmId, *, grace_s: float) -> None:
        """Shut the jail down, by force after ``grace_s``; its folder stays."""
        async with self._turn(vm_id):
            await self._kept(vm_id)
            await self._end(vm_id, grace_s=grace_s)

    async def pause(self, vm_id: VmId) -> None:
        """Raise ``Conflict`` (``not_possible``)."""
        await self._kept(vm_id)
        raise not_possible("a jail cannot be frozen", reason="FreeBSD has no such command", resolution="stop it")

    async def destroy(self, vm_id: VmId) -> None:
        """End the jail and remove all that is kept of it; its folder is the store's."""
        async with self._turn(vm_id):
            await self._end(vm_id, grace_s=0.0)
            await asyncio.to_thread(self._places.remove, vm_id)

    async def find(self, vm_id: VmId) -> Finding:
        """Return what there is of the jail."""
        if await self._runs(vm_id):
            return Finding(found=Found.RUNNING)
        if await asyncio.to_thread(self._places.find, vm_id) is None:
            return Finding(found=Found.ABSENT)
        await asyncio.to_thread(consoles.trim, self._places.console(vm_id), self._settings.log_bytes)
        return Finding(found=Found.STOPPED)

    async def machines(self) -> Sequence[VmId]:
        """Return every machine that has a folder here, or is a jail under a name of ours."""
        listed = await must(self._runner, argv.LISTING)
        return sorted({*await super().machines(), *argv.machines_in(listed.decode(), self._settings.marker)})

    # -- its inside ----------------------------------------------------------------------------------------------------

    async def execute(self, vm_id: VmId, order: ExecOrder, stdin: AsyncIterator[bytes]) -> AsyncGenerator[Chunk, None]:
        """Run a command inside; the last chunk has the exit code. Closing the iterator ends the command."""
        if order.tty is not None:
            raise not_possible("no terminal", reason="jexec gives none", resolution="enter the machine by SSH")
        async with aclosing(super().execute(vm_id, order, stdin)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def stats(self, vm_id: VmId) -> MachineStats:
        """Return what the jail uses now."""
        await self._kept(vm_id)
        if not await self._runs(vm_id):
            return MachineStats()
        told = await must(self._runner, ["ps", "-J", self._name(vm_id), "-o", "cputime=", "-o", "rss="])
        rows = [line.split() for line in told.decode().splitlines() if line.strip()]
        return MachineStats(
            cpu_seconds=sum(seconds(used) for used, _ in rows),
            memory_bytes=sum(int(resident) << 10 for _, resident in rows),
            processes=len(rows),
        )

    # -- what they share -----------------------------------------------------------------------------------------------

    async def _launch(self, order: MachineOrder, disk: Disk) -> None:
        name = self._name(order.vm_id)
        await asyncio.to_thread(self._places.note, order, disk)
        keys = [key for key in order.spec.ssh_keys if is_usable(key)]
        if keys:
            await asyncio.to_thread(_give_keys, disk.path, keys)
        start = Start(
            name=name,
            vm_id=order.vm_id,
            root=disk.path,
            address=order.link.address,
            bridge=self._settings.bridge,
            console=self._places.console(order.vm_id),
            command=order.spec.command,
            env=order.spec.env,
            stop_within_s=_STOP_WITHIN_S,
        )
        if await self._limits():
            for words in argv.limit_argv(name, order.spec.size):
                await must(self._runner, words)
        await must(self._runner, argv.start_argv(start))

    async def _end(self, vm_id: VmId, *, grace_s: float) -> None:
        name = self._name(vm_id)
        if grace_s > 0 and await self._runs(vm_id):
            with suppress(TimeoutError, Unavailable):  # then by force, below
                async with asyncio.timeout(grace_s):
                    await self._runner.run(argv.stop_argv(name))
        if await self._runs(vm_id):
            await must(self._runner, argv.remove_argv(name))
        if await self._limits():
            await self._runner.run(argv.unlimit_argv(name))

    async def _entrance(self, vm_id: VmId) -> Entrance:
        await self._kept(vm_id)
        if not await self._runs(vm_id):
            raise not_running(vm_id)

        def command(words: str, terminal: bool) -> Sequence[str]:  # noqa: ARG001, FBT001 - as the field has it
            return argv.inside_argv(self._settings.jexec, self._name(vm_id), words)

        async def ready() -> None:
            """Nothing has to be waited for: a jail is there when it is made."""

        return Entrance(
            vm_id=vm_id,
            argv=command,
            environment=ENVIRONMENT,
            folder=self._places.folder(vm_id),
            ready=ready,
            still_runs=lambda: self._runs(vm_id),
        )

    async def _runs(self, vm_id: VmId) -> bool:
        return (await self._runner.run(["jls", "-j", self._name(vm_id), "jid"])).code == 0

    async def _limits(self) -> bool:
        told = await self._runner.run(["sysctl", "-n", "kern.racct.enable"])
        return told.code == 0 and told.stdout.strip() == b"1"

    def _name(self, vm_id: VmId) -> str:
        return argv.name_of(self._settings.marker, vm_id)


def _root(order: MachineOrder) -> Disk:
    if order.disk is None or order.disk.form is not ImageForm.FOLDER:
        raise wrong_image(order, "a root folder")
    return order.disk


def _give_keys(root: Path, keys: Sequence[str]) -> None:
    """Write the keys where a server looks for them; no link of the image leads elsewhere."""
    directory = beneath.open_directory(root, ["root", ".ssh"], create=True)
    try:
        beneath.write_private(directory, "authorized_keys", "".join(f"{key}\n" for key in keys).encode())
    finally:
        os.close(directory)


def _none() -> Mapping[VmId, ProcessRef]:
    """Return nothing: FreeBSD's processes are asked for by its own tools."""
    return {}


def _missing(reason: str) -> Missing:
    return Missing(engine=Engine.JAIL, reason=reason)
