"""A host, as the fleet speaks to it: the port ``HostAgent``, on the machine itself."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

import structlog

from borough.core.errors import BoroughError, Conflict, NotFound
from borough.fleet.engines import Engine
from borough.fleet.hosts import HostReport
from borough.fleet.images import Image
from borough.fleet.names import check_name
from borough.fleet.ports.disks import DiskStore
from borough.fleet.ports.engines import (
    Chunk,
    EngineDriver,
    ExecOrder,
    FileEntry,
    MachineStats,
    SnapshotInfo,
    WithConsole,
)
from borough.fleet.ports.host_agent import CreateOrder
from borough.fleet.ports.machine_store import MachineStore
from borough.fleet.ports.signs import HostSigns
from borough.fleet.services.host_engines import HostEngines
from borough.fleet.services.host_machines import HostMachines
from borough.fleet.storage import Storage
from borough.fleet.vms import Action, Vm, VmId, VmState

_Part = TypeVar("_Part")

log = structlog.get_logger(__name__)

SETTLED_AT_ONCE = 8
_PERHAPS_ENDED = frozenset({"engine_failed", "not_running", "vm_not_running"})
"""Codes of an engine of whose machine nothing more may be there."""


class HostDaemon:
    """Everything that a host does for the fleet."""

    def __init__(
        self,
        host_id: str,
        machines: HostMachines,
        store: MachineStore,
        disks: DiskStore,
        *,
        engines: HostEngines,
        signs: HostSigns,
        storage: Storage,
        warnings: tuple[str, ...] = (),
    ) -> None:
        """``warnings`` are what this host cannot do, and why, told with every report."""
        self._host_id = host_id
        self._machines = machines
        self._store = store
        self._disks = disks
        self._engines = engines
        self._signs = signs
        self._storage = storage
        self._warnings = warnings
        self._restarted = False
        self._came: set[Engine] = set()
        """Engines that have been here since the host was opened."""

    async def open(self) -> None:
        """Find out what the engines can do here, and put everything in the order that the rows say."""
        self._restarted = await self._store.booted(await self._signs.boot_id())
        await self._engines.open(came=self._engine_came)
        self._came.update(offer.engine for offer in self._engines.offers)
        await self.reconcile(host_restarted=self._restarted)

    async def reconcile(self, *, host_restarted: bool = False) -> None:
        """Compare every machine's row with what there is, mend the difference, and remove what belongs to no row.

        Machines of an engine that has not found out yet what it can do here stay as they are until it has.
        """
        self._engines.ask_again()
        machines = await self._machines.all()
        known = [vm for vm in machines if self._engines.is_known(vm.spec.engine)]
        await self._settle(known, host_restarted=host_restarted)
        for removed in await self._machines.strays.remove():
            log.warning("orphan.removed", what=removed)
        await self._machines.links.refresh_rules()

    async def _engine_came(self, engine: Engine) -> None:
        """Settle the machines of an engine that is here only now; what ran before the host restarted, runs again."""
        restarted = self._restarted and engine not in self._came
        self._came.add(engine)
        machines = await self._machines.all()
        await self._settle([vm for vm in machines if vm.spec.engine is engine], host_restarted=restarted)

    async def _settle(self, machines: Sequence[Vm], *, host_restarted: bool) -> None:
        slots = asyncio.Semaphore(SETTLED_AT_ONCE)

        async def settle(vm: Vm) -> None:
            async with slots:
                try:
                    await self._machines.settle(vm.id, host_restarted=host_restarted)
                except BoroughError as error:
                    log.warning("vm.not_settled", vm=vm.id, error=error.message)

        await asyncio.gather(*(settle(vm) for vm in machines))

    # -- the port ``HostAgent`` ----------------------------------------------------------------------------------------

    async def report(self) -> HostReport:
        """Return what the host says of itself."""
        images = await self._disks.images()
        return HostReport(
            host_id=self._host_id,
            resource=await self._store.resource(),
            offers=self._engines.offers,
            storage=self._storage,
            images=tuple(image.name for image in images),
            image_digests={image.name: image.digest for image in images},
            image_engines={image.name: image.engines for image in images if image.engines},
            own_images=frozenset(image.name for image in images if not image.travels),
            pressure=await self._signs.pressure(),
            warnings=(*self._warnings, *self._engines.warnings),
        )

    async def create(self, order: CreateOrder) -> Vm:
        """Make and start a machine, or return the one that was made by the same order before."""
        return await self._machines.create(order)

    async def machines(self) -> Sequence[Vm]:
        """Return every machine of the host."""
        return await self._machines.all()

    async def changes(self) -> AsyncGenerator[VmId | None, None]:
        """Yield machines that changed without being asked to, ``None`` as soon as somebody listens."""
        async with aclosing(self._machines.changes.changes()) as told:
            async for vm_id in told:
                yield vm_id

    async def machine(self, vm_id: VmId) -> Vm:
        """Return one."""
        return await self._machines.get(vm_id)

    async def destroy(self, vm_id: VmId) -> None:
        """End a machine with everything of it; one that is unknown is gone already."""
        try:
            await self._machines.act(vm_id, Action.DELETE)
        except NotFound as error:
            if error.code != "vm_not_found":
                raise

    async def stop(self, vm_id: VmId) -> Vm:
        """Shut a machine down and keep its disk."""
        return await self._machines.act(vm_id, Action.STOP)

    async def start(self, vm_id: VmId) -> Vm:
        """Start a stopped machine from its disk, or let a paused one go on."""
        return await self._machines.act(vm_id, Action.START)

    async def pause(self, vm_id: VmId) -> Vm:
        """Freeze a machine."""
        return await self._machines.act(vm_id, Action.PAUSE)

    async def execute(self, vm_id: VmId, order: ExecOrder, stdin: AsyncIterator[bytes]) -> AsyncGenerator[Chunk, None]:
        """Run a command inside; the last chunk has the exit code."""
        driver = await self._running(vm_id)
        found = replace(order, env={**self._machines.links.way_out(await self._machines.get(vm_id)), **order.env})
        chunks = driver.execute(vm_id, found, stdin)
        try:
            async with aclosing(_closing(chunks)) as told:
                async for chunk in told:
                    yield chunk
        except BoroughError as error:
            if error.code in _PERHAPS_ENDED:
                await self._check_runs(vm_id)
            raise

    async def logs(self, vm_id: VmId, *, offset: int, follow: bool) -> AsyncGenerator[bytes, None]:
        """Yield what the machine printed, from ``offset`` bytes on."""
        driver = await self._driver(vm_id)
        async with aclosing(_closing(driver.logs(vm_id, offset=offset, follow=follow))) as told:
            async for part in told:
                yield part

    async def console(self, vm_id: VmId, keys: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Yield what the machine prints from now on, ``b""`` as soon as its console is open; ``keys`` are typed."""
        driver = await self._running(vm_id)
        if not isinstance(driver, WithConsole):
            raise Conflict(
                f"{vm_id} has no console to type at",
                code="not_possible",
                reason=f"machines of {driver.engine.value} have no serial line that this host holds",
                resolution="run a shell in it (tt exec -it), or read what it printed (tt logs)",
            )
        async with aclosing(_closing(driver.console(vm_id, keys))) as told:
            async for part in told:
                yield part

    async def listing(self, vm_id: VmId, path: str) -> Sequence[FileEntry]:
        """Return a folder's names."""
        return await (await self._driver(vm_id)).listing(vm_id, path)

    async def read(self, vm_id: VmId, path: str, *, as_tar: bool) -> AsyncGenerator[bytes, None]:
        """Yield a file, or a folder as a tar archive."""
        driver = await self._driver(vm_id)
        async with aclosing(_closing(driver.read(vm_id, path, as_tar=as_tar))) as told:
            async for part in told:
                yield part

    async def write(self, vm_id: VmId, path: str, content: AsyncIterator[bytes], *, from_tar: bool) -> int:
        """Write a file, or unpack a tar archive into a folder; return how many bytes came."""
        return await (await self._driver(vm_id)).write(vm_id, path, content, from_tar=from_tar)

    async def stats(self, vm_id: VmId) -> MachineStats:
        """Return what the machine uses now."""
        return await (await self._driver(vm_id)).stats(vm_id)

    async def snapshot(self, vm_id: VmId, name: str) -> SnapshotInfo:
        """Keep the present state under a name."""
        check_name(name, what="a snapshot")
        async with self._machines.alone(vm_id):
            return await (await self._driver(vm_id)).snapshot(vm_id, name)

    async def snapshots(self, vm_id: VmId) -> Sequence[SnapshotInfo]:
        """Return them, oldest first."""
        return await (await self._driver(vm_id)).snapshots(vm_id)

    async def restore(self, vm_id: VmId, name: str) -> Vm:
        """Return to a snapshot."""
        check_name(name, what="a snapshot")
        async with self._machines.alone(vm_id):
            driver = await self._driver(vm_id)
            await driver.restore(await self._machines.order_of(vm_id), name)
        await self._machines.settle(vm_id, host_restarted=False)
        await self._machines.links.refresh_rules()
        return await self._machines.get(vm_id)

    async def delete_snapshot(self, vm_id: VmId, name: str) -> None:
        """Forget one; one that is unknown is gone already."""
        async with self._machines.alone(vm_id):
            await (await self._driver(vm_id)).delete_snapshot(vm_id, name)

    async def images(self) -> Sequence[Image]:
        """Return the images of the host."""
        return await self._disks.images()

    async def put_image(self, image: Image, content: AsyncIterator[bytes]) -> Image:
        """Take an image in; what arrives is compared with its digest."""
        check_name(image.name, what="an image")
        return await self._disks.put(image, content)

    def image_content(self, name: str) -> AsyncIterator[bytes]:
        """Yield an image as it travels between hosts."""
        return self._disks.content(name)

    async def close(self) -> None:
        """Let go: machines run on, and are found again."""

    async def _driver(self, vm_id: VmId) -> EngineDriver:
        return self._machines.driver_of(await self._machines.get(vm_id))

    async def _check_runs(self, vm_id: VmId) -> None:
        """Look at once whether a machine has ended by itself, and write that down; raises ``Conflict``
        (``vm_not_running``) if it has.
        """
        await self._machines.settle(vm_id, host_restarted=False)
        await self._running(vm_id)

    async def _running(self, vm_id: VmId) -> EngineDriver:
        vm = await self._machines.get(vm_id)
        if vm.state is not VmState.RUNNING:
            raise Conflict(
                f"{vm_id} is {vm.state.value}",
                code="vm_not_running",
                reason=vm.error,
                resolution="start it first",
            )
        return self._machines.driver_of(vm)


async def _closing(parts: AsyncIterator[_Part]) -> AsyncGenerator[_Part, None]:
    """Yield ``parts``; close them at once when nobody wants more: what is behind them ends with them."""
    try:
        async for part in parts:
            yield part
    finally:
        if isinstance(parts, AsyncGenerator):
            await parts.aclose()
