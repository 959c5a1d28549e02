"""On a host: making machines and ending them, so that nothing is lost and nothing stays behind.

Each step is written before it is done and can be done again. What fails is undone step by step, each undoing on its
own, and the row goes last: as long as anything of a machine may be left, there is a row that says so.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from functools import partial

from borough.core.clock import utc_now
from borough.core.errors import BoroughError, Conflict, Invalid, NotFound, Unavailable
from borough.fleet.ports.disks import Disk, DiskStore
from borough.fleet.ports.engines import EngineDriver, Finding, Found, MachineOrder
from borough.fleet.ports.host_agent import CreateOrder
from borough.fleet.ports.machine_store import MachineRow, MachineStep, MachineStore
from borough.fleet.ports.network import HostNetwork, Link
from borough.fleet.services.host_changes import HostChanges
from borough.fleet.services.host_engines import HostEngines
from borough.fleet.services.host_links import OWN_DISKS, MachineLinks
from borough.fleet.services.host_strays import Strays
from borough.fleet.services.turns import Turns
from borough.fleet.vms import GOALS, Action, Vm, VmId, VmState, check_move

STOP_GRACE_S = 10.0


class HostMachines:
    """The machines of this host. One thing at a time happens to each; different machines do not wait for another."""

    def __init__(
        self,
        store: MachineStore,
        disks: DiskStore,
        network: HostNetwork,
        engines: HostEngines,
        *,
        changes: HostChanges,
        marker: str,
    ) -> None:
        """``marker`` is this host's own: it is in everything that is made, and nothing without it is ever touched."""
        self._store = store
        self._disks = disks
        self.links = MachineLinks(store, network)
        """Their places in the network."""
        self._engines = engines
        self.changes = changes
        """What becomes of them unasked."""
        changes.begin(partial(self.settle, host_restarted=False))
        self._marker = marker
        self._turns = Turns()
        self._entrance = asyncio.Lock()
        """Held while a row is written and while links are swept: no link is made before its row is known."""
        self.strays = Strays(store, disks, engines, self.links, entrance=self._entrance)
        """What belongs to no row."""
        self._working: set[asyncio.Future[Vm]] = set()

    async def create(self, order: CreateOrder) -> Vm:
        """Make and start a machine; the same order again returns the same machine, also while it is being made.

        Raises:
            Invalid: an engine that is not here (``engine_missing``), or an image (``image_missing``).
            Conflict: another order for this id (``vm_exists``), or no room (``no_room``).
            NotFound: what it is to be made from is not here (``vm_not_found``, ``snapshot_not_found``).
            Unavailable: a step failed (``create_failed``), with what it said; nothing is left of the machine.
        """
        return await self._to_the_end(self._create(order))

    async def _create(self, order: CreateOrder) -> Vm:
        driver = await self._engines.offered(order.spec.engine)
        async with self._turns.of(order.vm_id):
            await self._check_origin(order)
            async with self._entrance:
                row = await self._store.accept(_new_row(order), ports=order.spec.ports)
            if row.step is not MachineStep.ACCEPTED or row.vm.state is VmState.DELETING:
                return row.vm
            try:
                return (await self._build(row, driver)).vm
            except (BoroughError, OSError) as error:
                raise await self._undone(row, error) from error

    async def act(self, vm_id: VmId, action: Action) -> Vm:
        """Stop, start, pause or delete a machine; where it is already as asked, nothing happens.

        Raises:
            NotFound: there is no such machine (``vm_not_found``); deleting one that is gone is no error.
            Conflict: its state or engine does not allow it (``illegal_state``, ``not_possible``).
            Unavailable: the engine failed (``engine_failed``), or something could not be removed yet
                (``not_yet_removed``): the row stays and it is tried again.
        """
        return await self._to_the_end(self._act(vm_id, action))

    async def _act(self, vm_id: VmId, action: Action) -> Vm:
        async with self._turns.of(vm_id):
            if action is Action.DELETE:
                # An order that is still on its way must not make the machine after its end was confirmed.
                await self._store.bar(vm_id)
                return await self._destroy(await self._store.get(vm_id))
            return await self._move(await self._store.get(vm_id), action)

    async def get(self, vm_id: VmId) -> Vm:
        """Return one machine; raises ``NotFound`` (``vm_not_found``)."""
        return (await self._store.get(vm_id)).vm

    async def all(self) -> Sequence[Vm]:
        """Return every machine of this host, oldest first."""
        return [row.vm for row in await self._store.all()]

    async def settle(self, vm_id: VmId, *, host_restarted: bool) -> None:
        """Compare what is kept of a machine with what there is, and mend the difference.

        What was being made when this daemon ended is undone; what was being deleted is deleted; what was being stopped,
        started or paused is, or says why not; what ran before the host was restarted is started again; what ended by
        itself is told.
        """
        async with self._turns.of(vm_id):
            try:
                row = await self._store.get(vm_id)
            except NotFound:
                return
            if row.vm.state is VmState.DELETING or row.step is MachineStep.ACCEPTED:
                await self._destroy(row)
                return
            if row.step is MachineStep.MOVING:
                await self._drive(row)
                return
            await self._compare(row, host_restarted=host_restarted)

    async def order_of(self, vm_id: VmId) -> MachineOrder:
        """Return what the machine's engine needs to know of it."""
        row = await self._store.get(vm_id)
        return await self._order(row)

    def alone(self, vm_id: VmId) -> AbstractAsyncContextManager[None]:
        """Return what keeps everything else away from a machine."""
        return self._turns.of(vm_id)

    def driver_of(self, vm: Vm) -> EngineDriver:
        """Return the engine that made a machine; raises ``Unavailable`` (``engine_missing``) when it is gone."""
        driver = self._engines.drivers.get(vm.spec.engine)
        if driver is None:
            raise Unavailable(
                f"the engine {vm.spec.engine.value} is not on this host any more",
                code="engine_missing",
                resolution="install it again, or delete the machine when it is back",
            )
        return driver

    async def _check_origin(self, order: CreateOrder) -> None:
        """Refuse an order for a machine from a snapshot of one that is not here whole, before anything is made.

        What is whole is never waited for by what it is made from: two machines cannot wait for each other.
        """
        origin = order.spec.origin
        if origin is None:
            return
        with suppress(NotFound):
            await self._store.get(order.vm_id)
            return  # it was accepted before
        source = await self._store.get(origin.vm_id)
        if source.step is MachineStep.ACCEPTED or source.vm.spec.engine is not order.spec.engine:
            raise Conflict(
                f"{order.vm_id} cannot be made from {origin.vm_id}",
                code="not_possible",
                reason=f"that one is {source.vm.state.value}, and made by {source.vm.spec.engine.value}",
                resolution="name a machine of the same engine that is there",
            )

    async def _build(self, row: MachineRow, driver: EngineDriver) -> MachineRow:
        origin = row.vm.spec.origin
        if origin is None:
            return await self._made(row, driver)
        async with self._turns.of(origin.vm_id):  # the snapshot stays until it is copied
            return await self._made(row, driver)

    async def _made(self, row: MachineRow, driver: EngineDriver) -> MachineRow:
        # The row is there, and says that the machine is being made: whatever of it there is, is undone after a crash.
        disk = await self._disk(row, make=True)
        row = await self.links.published(row)
        link = await self.links.attach(row)
        await driver.create(self._ordered(row, disk, link))
        await self.links.let_out(row.vm)
        started = replace(row.vm, state=VmState.RUNNING, since=utc_now(), error=None)
        await self.changes.watch(started)
        return await self._store.update(replace(row, vm=started, step=MachineStep.DONE), revision=row.vm.revision)

    async def _undone(self, row: MachineRow, error: Exception) -> BoroughError:
        """Undo what was made, and return what to tell: the step's own words, and what could not be removed."""
        try:
            await self._destroy(await self._store.get(row.vm.id))
        except BoroughError as left:
            return Unavailable(
                f"the machine could not be made: {error}",
                code="create_failed",
                reason=f"and not all of it is removed: {left}",
            )
        if isinstance(error, Invalid | Conflict | NotFound):
            return error
        reason = error.reason if isinstance(error, BoroughError) else None
        return Unavailable(
            f"the machine could not be made: {error}",
            code="create_failed",
            reason=reason,
            resolution="read the reason; nothing of the machine is left, so it can be asked for again",
        )

    async def _destroy(self, row: MachineRow) -> Vm:
        """End a machine: the engine first, then each of the rest, whatever happens to the others; the row last."""
        vm = row.vm
        if vm.state is not VmState.DELETING:
            marked = replace(vm, state=VmState.DELETING, desired=VmState.DELETING, since=utc_now())
            row = await self._store.update(replace(row, vm=marked), revision=vm.revision)
        steps: list[tuple[str, Callable[[], Awaitable[object]]]] = []
        driver = self._engines.drivers.get(vm.spec.engine)
        if driver is not None:
            steps.append(("engine", lambda: driver.destroy(vm.id)))
        steps.append(("link", lambda: self.links.detach(vm.id)))
        steps.append(("disk", lambda: self._disks.remove(vm.id)))
        errors = [f"{what}: {error}" for what, step in steps if (error := await _failure(step)) is not None]
        if driver is None and row.step is not MachineStep.ACCEPTED:
            errors.append(f"the engine {vm.spec.engine.value} is not on this host any more")
        if errors:
            told = replace(row.vm, error="; ".join(errors))
            await self._store.update(replace(row, vm=told), revision=row.vm.revision)
            raise Unavailable(
                f"{vm.id} is not removed yet: {'; '.join(errors)}",
                code="not_yet_removed",
                resolution="it is tried again by itself; the machine stays visible as deleting until then",
            )
        await self._store.forget(vm.id)
        await self.links.refresh_rules()
        return row.vm

    async def _move(self, row: MachineRow, action: Action) -> Vm:
        vm, driver, goal = row.vm, self.driver_of(row.vm), GOALS[action]
        check_move(vm, goal)
        if _state(await driver.find(vm.id), goal) is goal:
            return await self._moved(row, goal)
        begun = replace(row, step=MachineStep.MOVING, vm=replace(vm, desired=goal))
        if goal is VmState.RUNNING and vm.state is VmState.STOPPED:
            return await self._drive(await self._store.resume(begun))
        return await self._drive(await self._store.update(begun, revision=vm.revision))

    async def _drive(self, row: MachineRow) -> Vm:
        """Bring a machine to what is desired of it; what went wrong is written down, and not tried again by itself."""
        vm, driver = row.vm, self.driver_of(row.vm)
        try:
            if _state(await driver.find(vm.id), vm.desired) is not vm.desired:
                if vm.desired is VmState.STOPPED:
                    await driver.stop(vm.id, grace_s=STOP_GRACE_S)
                elif vm.desired is VmState.PAUSED:
                    await driver.pause(vm.id)
                else:
                    await driver.start(await self._order(row))
                    await self.links.let_out(vm)
        except (BoroughError, OSError) as error:
            failed = replace(vm, error=f"it could not become {vm.desired.value}: {error}")
            await self._store.update(replace(row, step=MachineStep.DONE, vm=failed), revision=vm.revision)
            raise
        return await self._moved(row, vm.desired)

    async def _moved(self, row: MachineRow, goal: VmState) -> Vm:
        moved = replace(row.vm, state=goal, desired=goal, since=utc_now(), error=None)
        await self.changes.watch(moved)
        done = replace(row, step=MachineStep.DONE, vm=moved)
        return (await self._store.update(done, revision=row.vm.revision)).vm

    async def _compare(self, row: MachineRow, *, host_restarted: bool) -> None:
        vm, driver = row.vm, self.driver_of(row.vm)
        await self.links.attach(row)
        finding = await driver.find(vm.id)
        if finding.found in _AT_REST and vm.desired is VmState.RUNNING and host_restarted:
            await driver.start(await self._order(row))
            finding = await driver.find(vm.id)
        state = _state(finding, vm.desired)
        error = (
            self.links.unpublished.get(vm.id)
            if state is vm.desired
            else finding.detail or f"it is {state.value} and should be {vm.desired.value}"
        )
        seen = replace(vm, state=state, error=error, since=vm.since if state is vm.state else utc_now())
        await self.changes.watch(seen)
        if seen != vm:
            await self._store.update(replace(row, vm=seen), revision=vm.revision)
            self.changes.tell(vm.id)

    async def _order(self, row: MachineRow) -> MachineOrder:
        return self._ordered(row, await self._disk(row, make=False), await self.links.attach(row))

    def _ordered(self, row: MachineRow, disk: Disk | None, link: Link) -> MachineOrder:
        vm = row.vm
        return MachineOrder(vm_id=vm.id, env_id=vm.env_id, spec=vm.spec, disk=disk, link=link, marker=self._marker)

    async def _disk(self, row: MachineRow, *, make: bool) -> Disk | None:
        vm = row.vm
        if vm.spec.engine in OWN_DISKS:
            return None
        if not make:
            return await self._disks.disk(vm.id)
        origin = vm.spec.origin
        if origin is not None:
            copy = self.driver_of(vm).copy_snapshot
            return await self._disks.fill(vm.id, lambda path: copy(origin.vm_id, origin.snapshot, path))
        return await self._disks.clone(vm.spec.image, vm.id, size_mib=vm.spec.size.disk_mib)

    async def _to_the_end(self, work: Coroutine[None, None, Vm]) -> Vm:
        """Do ``work`` also when whoever asked for it leaves meanwhile: half a machine helps nobody."""
        task = asyncio.ensure_future(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return await asyncio.shield(task)


_STATES: Mapping[Found, VmState] = {
    Found.RUNNING: VmState.RUNNING,
    Found.PAUSED: VmState.PAUSED,
    Found.STOPPED: VmState.STOPPED,
    Found.FAILED: VmState.FAILED,
    Found.ABSENT: VmState.FAILED,
}


_AT_REST = frozenset({Found.STOPPED, Found.GONE})


def _state(finding: Finding, desired: VmState) -> VmState:
    """Return a machine's state: one whose processes are gone has failed, unless it was to be stopped anyway."""
    if finding.found is Found.GONE:
        return VmState.STOPPED if desired is VmState.STOPPED else VmState.FAILED
    return _STATES[finding.found]


def _new_row(order: CreateOrder) -> MachineRow:
    now = utc_now()
    vm = Vm(
        id=order.vm_id,
        env_id=order.env_id,
        host_id="",
        spec=order.spec,
        state=VmState.CREATING,
        desired=VmState.RUNNING,
        created_at=now,
        since=now,
    )
    return MachineRow(vm=vm, step=MachineStep.ACCEPTED, private_network=order.private_network)


async def _failure(step: Callable[[], Awaitable[object]]) -> str | None:
    try:
        await step()
    except (BoroughError, OSError) as error:
        return str(error)
    return None
