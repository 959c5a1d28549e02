"""Environments over many hosts: decide, commit, act, record.

Where every machine goes is decided and promised in one step, before any host is asked; what is done afterwards is an
operation that goes on without its caller and after a crash.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial

from borough.core.clock import utc_now
from borough.core.errors import BoroughError, Conflict, NotFound
from borough.core.ids import new_id
from borough.core.paging import Page, PageRequest
from borough.fleet.environments import (
    MOST_LIFETIME,
    Environment,
    OnExpiry,
    check_labels,
    lifetime_of,
)
from borough.fleet.names import check_name
from borough.fleet.operations import Operation, OperationKind, OperationState
from borough.fleet.orders import EnvDetail, EnvOrder, Ids, detail_of
from borough.fleet.placement import NotPlaced, Plan, candidates, place, unplaceable
from borough.fleet.ports.fleet import EnvFilter, Fleet, View
from borough.fleet.services.images import ImageService
from borough.fleet.services.machines import MachineService
from borough.fleet.services.operations import OperationService, Progress, Work, new_operation, told_of
from borough.fleet.services.room import RoomService, check_count, planned
from borough.fleet.vms import Action, VmId, VmState, vm_id_of
from borough.fleet.waiting import Waiting, check_wait, reasons, with_claims

ENDS_WITHIN_S = 30.0
"""How long the end of an earlier try is waited for when a request is repeated."""


class EnvironmentService:
    """The environments of the fleet."""

    def __init__(
        self,
        fleet: Fleet,
        machines: MachineService,
        operations: OperationService,
        images: ImageService,
        *,
        most_vms: int,
        most_lifetime: timedelta = MOST_LIFETIME,
    ) -> None:
        self._fleet = fleet
        self._machines = machines
        self._operations = operations
        self._images = images
        self._room = RoomService(fleet, images, most_vms=most_vms)
        machines.on_gone.append(self._room.came)
        self._most_vms = most_vms
        self._most_lifetime = most_lifetime

    async def create(self, order: EnvOrder, ids: Ids) -> EnvDetail:
        """Plan an environment, promise its room, and begin to make it; returns when that is written down.

        Raises:
            Invalid: a name, label, lifetime or wait is none, or no host can take a machine (``unschedulable``).
            Conflict: there is one of that id (``env_exists``), or too many machines (``too_many_vms``) or such that
                wait (``too_many_waiting``).
        """
        check_name(order.id, what="an environment")
        check_labels(order.labels)
        lifetime = lifetime_of(order.lifetime_s, most=self._most_lifetime)
        wait_s = 0 if order.wait_s is None else check_wait(order.wait_s)
        before, stock = await asyncio.gather(self._operations.find(ids.operation), self._images.stock())
        if before is not None:
            repeated = await self._repeated(order.id, before)
            if repeated is not None:
                return replace(repeated, warnings=lifetime.warnings)
            # What was tried under these ids came to nothing, and hosts do not take ids a second time.
            ids = replace(ids, vms=tuple(vm_id_of(new_id()) for _ in ids.vms))
        now = utc_now()
        environment = Environment(
            id=order.id,
            owner=order.owner,
            created_at=now,
            expires_at=now + timedelta(seconds=wait_s + lifetime.seconds),
            on_expiry=order.on_expiry,
            labels=order.labels,
            private_network=order.private_network,
        )
        begun = new_operation(ids.operation, OperationKind.CREATE, order.id, total=len(order.specs))
        operation = replace(begun, started_at=now)  # by this moment both know each other

        def waits(failure: NotPlaced) -> tuple[Waiting, Operation]:
            waiting = Waiting(
                env_id=order.id,
                operation_id=operation.id,
                vm_ids=ids.vms,
                specs=order.specs,
                constraints=order.constraints,
                lifetime_s=lifetime.seconds,
                until=now + timedelta(seconds=wait_s),
            )
            return waiting, replace(operation, warnings=reasons(failure))

        plan = await self._fleet.plan(
            environment,
            lambda view: self._decide(order, view, stock),
            lambda plan: planned(plan, ids.vms, order.id, now),
            operation,
            waits=waits if wait_s else None,
        )
        if isinstance(plan, NotPlaced):
            if not wait_s:
                refused = unplaceable(plan)
                about = {"env_id": order.id, "owner": order.owner, "code": refused.code}
                await self._fleet.append_event("env.refused", f"{order.id} is not made: {told_of(refused)}", about)
                raise refused
            operation = replace(operation, warnings=reasons(plan))
        self._operations.start(operation, partial(self._make, order.id))
        return replace(await self.detail(order.id), warnings=lifetime.warnings, operation=operation)

    async def preview(self, order: EnvOrder) -> Plan | NotPlaced:
        """Return where the machines would go, or why not; nothing is kept."""
        view, stock = await self._fleet.view(), await self._images.stock()
        found = self._decide(order, view, stock)
        if isinstance(found, Plan):
            return found
        later = candidates([found.spec], view.hosts, order.constraints, tenants=view.tenants, stock=stock)
        return replace(found, later=later)

    async def detail(self, env_id: str) -> EnvDetail:
        """Return an environment with its machines; raises ``NotFound`` (``env_not_found``)."""
        environment, vms = await self._fleet.environment(env_id)
        return detail_of(environment, vms, await self._fleet.waiting())

    async def find(self, wanted: EnvFilter, page: PageRequest) -> Page[EnvDetail]:
        """Return environments by id."""
        found = await self._fleet.environments(wanted, page)
        waiting = await self._fleet.waiting()
        details = tuple(detail_of(each, vms, waiting) for each, vms in found.items)
        return Page(items=details, after=found.after)

    async def delete(self, env_id: str, *, operation_id: str) -> Operation:
        """Begin to delete an environment; it stays, deleting, until every host has confirmed.

        Raises:
            NotFound: there is none of that id (``env_not_found``).
        """
        environment, vms = await self._fleet.environment(env_id)
        if not environment.deleting:
            await self._fleet.change_environment(
                replace(environment, deleting=True), revision=environment.revision, event="env.deleting"
            )
        operation = new_operation(operation_id, OperationKind.DELETE, env_id, total=len(vms))
        await self._fleet.save_operation(operation)
        self._operations.start(operation, partial(self._remove, env_id))
        return operation

    async def act(self, env_id: str, action: Action, *, operation_id: str) -> Operation:
        """Begin to stop or start every machine of an environment.

        Raises:
            NotFound: there is none of that id (``env_not_found``).
            Conflict: it is being deleted (``env_deleting``).
        """
        environment, vms = await self._fleet.environment(env_id)
        if environment.deleting:
            raise Conflict(
                f"{env_id} is being deleted", code="env_deleting", resolution="create it again when it is gone"
            )
        kind = OperationKind.STOP if action is Action.STOP else OperationKind.START
        if action is Action.START and environment.stopped_at is not None:
            environment = await self._extended(environment)
        operation = new_operation(operation_id, kind, env_id, total=len(vms))
        await self._fleet.save_operation(operation)
        self._operations.start(operation, partial(self._act, env_id, action))
        return operation

    async def change(
        self,
        env_id: str,
        *,
        lifetime_s: int | None = None,
        owner: str | None = None,
        labels: Mapping[str, str] | None = None,
        on_expiry: OnExpiry | None = None,
    ) -> EnvDetail:
        """Change what people say of an environment; a lifetime counts from now.

        Raises:
            NotFound: ``env_not_found``.
            Conflict: it changed meanwhile (``stale_env``), or is being deleted (``env_deleting``).
            Invalid: a lifetime or label is none.
        """
        environment, _ = await self._fleet.environment(env_id)
        if environment.deleting:
            raise Conflict(f"{env_id} is being deleted", code="env_deleting", resolution="create another")
        changed = environment
        warnings: tuple[str, ...] = ()
        if lifetime_s is not None:
            lifetime = lifetime_of(lifetime_s, most=self._most_lifetime)
            warnings = lifetime.warnings
            changed = replace(changed, expires_at=utc_now() + timedelta(seconds=lifetime.seconds), stopped_at=None)
        if labels is not None:
            changed = replace(changed, labels=check_labels(labels))
        changed = replace(changed, owner=changed.owner if owner is None else owner)
        changed = replace(changed, on_expiry=changed.on_expiry if on_expiry is None else on_expiry)
        await self._fleet.change_environment(changed, revision=environment.revision, event="env.changed")
        return replace(await self.detail(env_id), warnings=warnings)

    async def expire(self, environment: Environment, *, operation_id: str) -> Operation:
        """Do what an environment wants when its time is over."""
        if environment.on_expiry is OnExpiry.DELETE or environment.deleting:
            return await self.delete(environment.id, operation_id=operation_id)
        stopped = replace(environment, stopped_at=utc_now())
        await self._fleet.change_environment(stopped, revision=environment.revision, event="env.expired")
        return await self.act(environment.id, Action.STOP, operation_id=operation_id)

    async def take_up(self) -> None:
        """Go on with everything that was under way when the controller ended."""
        for operation in await self._operations.unfinished():
            work = self._work(operation)
            if work is not None:
                fresh = operation if operation.kind is OperationKind.CREATE else replace(operation, done=0, errors={})
                self._operations.start(fresh, work)

    def _work(self, operation: Operation) -> Work | None:
        env_id = operation.subject
        match operation.kind:
            case OperationKind.CREATE:
                return partial(self._make, env_id)
            case OperationKind.DELETE:
                return partial(self._remove, env_id)
            case OperationKind.STOP:
                return partial(self._act, env_id, Action.STOP)
            case OperationKind.START:
                return partial(self._act, env_id, Action.START)
            case _:
                return None

    def _decide(self, order: EnvOrder, view: View, stock: frozenset[str]) -> Plan | NotPlaced:
        check_count(view.vm_count + len(order.specs), most=self._most_vms)
        hosts = with_claims(view.hosts, view.waiting, view.tenants, stock=stock)
        return place(order.specs, hosts, order.constraints, tenants=view.tenants, stock=stock)

    async def _make(self, env_id: str, progress: Progress) -> None:
        """Have every machine made that is not there yet; without a single one the environment goes again.

        What went wrong is written down before the rows that tell of it go.
        """
        if not await self._room.wait(env_id, progress):
            return
        environment, vms = await self._fleet.environment(env_id)
        wanted = {vm.id: vm for vm in vms if vm.state in (VmState.CREATING, VmState.UNKNOWN)}
        failed = {vm.id: vm.error for vm in vms if vm.state is VmState.DELETING and vm.error is not None}
        known = {what: error for what, error in progress.operation.errors.items() if what not in wanted}
        await progress.recall(failed | known)

        async def make(vm_id: VmId) -> None:
            await self._machines.create(
                wanted[vm_id],
                private_network=environment.private_network,
                told=progress.tell,
                ends=partial(progress.ends_with, vm_id),
            )

        if environment.deleting:
            await progress.step(env_id, error="it is being deleted")
        else:
            await progress.each(list(wanted), make)
        await self._drop_unmade(env_id, progress)

    async def _drop_unmade(self, env_id: str, progress: Progress) -> None:
        """Remove what could not be made; what cannot be removed yet is tried again by the loops."""
        environment, left = await self._fleet.environment(env_id)
        for vm in left:
            if vm.state is VmState.CREATING and not environment.deleting:  # something broke: see what its host has
                await self._machines.unheard(vm.id, progress.operation.errors.get(vm.id, "it was not made"))
        failed = [vm.id for vm in left if vm.state is VmState.DELETING]
        if progress.operation.total and len(failed) == len(left) and not environment.deleting:
            environment = await self._fleet.change_environment(
                replace(environment, deleting=True), revision=environment.revision, event="env.deleting"
            )
        for outcome in await asyncio.gather(*map(self._machines.delete, failed), return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, BoroughError):
                raise outcome
        if environment.deleting:
            with suppress(Conflict):  # some machine is not gone yet
                await self._fleet.remove_environment(env_id)

    async def _repeated(self, env_id: str, before: Operation) -> EnvDetail | None:
        """Return the environment that was made by the same request before, if it is there."""
        if before.state is OperationState.RUNNING and not await self._fleet_has(env_id):
            before = await self._operations.wait(before.id, timeout_s=ENDS_WITHIN_S)
        if not await self._fleet_has(env_id):
            return None
        made = await self.detail(env_id)
        return replace(made, operation=before) if made.environment.created_at == before.started_at else None

    async def _fleet_has(self, env_id: str) -> bool:
        try:
            await self._fleet.environment(env_id)
        except NotFound:
            return False
        return True

    async def _remove(self, env_id: str, progress: Progress) -> None:
        try:
            _, vms = await self._fleet.environment(env_id)
        except NotFound:
            return
        await progress.each([vm.id for vm in vms], self._machines.delete)
        if not progress.operation.errors:
            await self._fleet.remove_environment(env_id)

    async def _act(self, env_id: str, action: Action, progress: Progress) -> None:
        _, vms = await self._fleet.environment(env_id)
        await progress.each([vm.id for vm in vms], lambda vm_id: self._machines.act(vm_id, action))

    async def _extended(self, environment: Environment) -> Environment:
        """Give an environment that ran out and is started again a new lifetime."""
        lifetime = environment.expires_at - environment.created_at
        fresh = replace(environment, stopped_at=None, expires_at=utc_now() + lifetime)
        return await self._fleet.change_environment(fresh, revision=environment.revision, event="env.changed")
