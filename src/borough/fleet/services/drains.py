"""Draining a host: nothing new is placed on it, and an operation says what is left until nothing is.

No machine is carried to another host. What happens to those that are there is the caller's choice: they leave with
their environments, are stopped where they are, or are deleted. The choice is in the operation, which goes on after a
restart and is called off by placing machines on the host again.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial

from borough.core.clock import utc_now
from borough.core.errors import BoroughError, Invalid, NotFound
from borough.fleet.environments import OnExpiry
from borough.fleet.hosts import Host
from borough.fleet.operations import Operation, OperationKind
from borough.fleet.ports.fleet import Fleet
from borough.fleet.services.machines import MachineService
from borough.fleet.services.operations import OperationService, Progress, new_operation, told_of
from borough.fleet.vms import Action, Vm, VmId, VmState

LOOK_EVERY_S = 0.5
LONGEST_S = 30 * 86_400
DEFAULT_S = 86_400
AT_ONCE = 8
_MOST_TOLD = 20
_ENDS = {OnExpiry.DELETE: "deleted", OnExpiry.STOP: "stopped"}


class Leaving(StrEnum):
    """What is done about the machines of a host that is drained."""

    WAIT = "wait"
    """Nothing: they leave when their environments end."""
    STOP = "stop"
    """They are stopped, their disks stay on the host; it is drained when none takes processor or memory."""
    DELETE = "delete"
    """They are deleted with their disks; the other machines of their environments stay."""


class DrainService:
    """Takes hosts out of service."""

    def __init__(self, fleet: Fleet, machines: MachineService, operations: OperationService) -> None:
        self._fleet = fleet
        self._machines = machines
        self._operations = operations

    async def begin(
        self, host_id: str, *, leaving: Leaving, timeout_s: int | None, operation_id: str
    ) -> tuple[Host, Sequence[Vm], Operation]:
        """Place nothing new on a host, and begin to drain it; the same that is under way already is returned.

        Returns the host, what is on it, and the operation: it ends when nothing is left, with what is left when
        ``timeout_s`` are over, or when machines are placed on the host again.

        Raises:
            NotFound: ``host_not_found``.
            Invalid: the time is none (``invalid_timeout``).
        """
        limit_s = DEFAULT_S if timeout_s is None else timeout_s
        if not 0 < limit_s <= LONGEST_S:
            raise Invalid(
                f"a drain cannot last {limit_s} s",
                code="invalid_timeout",
                resolution=f"give seconds from 1 to {LONGEST_S}, or leave it out for {DEFAULT_S}",
            )
        host = await self._fleet.change_host(host_id, cordoned=True, draining=True, labels=None)
        left = await self._left(host_id, leaving)
        operation = await self._under_way(host_id, leaving)
        if operation is None or timeout_s is not None:
            until = utc_now() + timedelta(seconds=limit_s)
            arguments = {"machines": leaving.value, "until": until.isoformat()}
            begun = new_operation(operation_id, OperationKind.DRAIN, host_id, total=len(left))
            operation = replace(begun, arguments=arguments, warnings=await self._told(left))
            await self._fleet.save_operation(operation)
        self._operations.start(operation, partial(self._drain, operation))
        return host, await self._fleet.vms_of(host_id), operation

    async def take_up(self) -> None:
        """Go on with every drain that was under way when the controller ended."""
        for operation in await self._operations.unfinished():
            if operation.kind is OperationKind.DRAIN:
                left = await self._left(operation.subject, Leaving(operation.arguments["machines"]))
                fresh = replace(operation, total=len(left), done=0, errors={})
                self._operations.start(fresh, partial(self._drain, fresh))

    async def _drain(self, operation: Operation, progress: Progress) -> None:
        host_id, until = operation.subject, datetime.fromisoformat(operation.arguments["until"])
        leaving = Leaving(operation.arguments["machines"])
        seen: set[VmId] = {vm.id for vm in await self._left(host_id, leaving)}
        gone: set[VmId] = set()
        while True:
            left = await self._left(host_id, leaving)
            seen |= {vm.id for vm in left}
            await progress.expect(len(seen))
            for vm_id in sorted(seen - gone - {vm.id for vm in left}):
                gone.add(vm_id)
                await progress.step(vm_id)
            if not left:
                await progress.warn(())
                return
            why = await self._why_ends(host_id, until)
            if why is not None:
                for vm in left:
                    await progress.step(vm.id, error=f"{why}: {vm.id} of {vm.env_id} is {_how(vm)}")
                return
            refused = await self._act(left, leaving)
            await progress.warn((*refused, *await self._told(left)))
            await asyncio.sleep(LOOK_EVERY_S)

    async def _act(self, left: Sequence[Vm], leaving: Leaving) -> tuple[str, ...]:
        """Do what was chosen about the machines that are left; return what their hosts refused."""
        if leaving is Leaving.WAIT:
            return ()
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(vm: Vm) -> str | None:
            async with slots:
                try:
                    await (self._delete(vm) if leaving is Leaving.DELETE else self._stop(vm))
                except NotFound:
                    return None  # it left meanwhile
                except BoroughError as error:  # it is tried again in the next round
                    return told_of(error)
                return None

        told = await asyncio.gather(*(one(vm) for vm in left))
        return tuple(each for each in told if each is not None)

    async def _stop(self, vm: Vm) -> None:
        if vm.state not in (VmState.CREATING, VmState.DELETING, VmState.UNKNOWN):
            await self._machines.act(vm.id, Action.STOP)

    async def _delete(self, vm: Vm) -> None:
        await self._machines.delete(vm.id)
        _, others = await self._fleet.environment(vm.env_id)
        if not others:
            await self._fleet.remove_environment(vm.env_id)

    async def _left(self, host_id: str, leaving: Leaving) -> Sequence[Vm]:
        """Return the machines for which the drain has to wait."""
        there = await self._fleet.vms_of(host_id)
        return there if leaving is not Leaving.STOP else [vm for vm in there if vm.runs]

    async def _why_ends(self, host_id: str, until: datetime) -> str | None:
        """Return why a drain ends although something is left, or ``None``."""
        try:
            host = await self._fleet.host(host_id)
        except NotFound:
            return None  # it was detached, and its machines with it
        if not host.draining:
            return "it was called off, machines are placed here again"
        return "the time is over" if utc_now() >= until else None

    async def _under_way(self, host_id: str, leaving: Leaving) -> Operation | None:
        for each in await self._operations.unfinished():
            is_drain = each.kind is OperationKind.DRAIN and each.subject == host_id
            if is_drain and each.arguments["machines"] == leaving.value:
                return each
        return None

    async def _told(self, left: Sequence[Vm]) -> tuple[str, ...]:
        """Return what is left, machine by machine, and when it would leave by itself."""
        lines = []
        for vm in left[:_MOST_TOLD]:
            with suppress(NotFound):  # it left meanwhile
                environment, _ = await self._fleet.environment(vm.env_id)
                end = f"{_ENDS[environment.on_expiry]} at {environment.expires_at:%Y-%m-%d %H:%M:%S} UTC"
                lines.append(f"{vm.id} of {vm.env_id} is {_how(vm)}; its environment is {end}")
        more = len(left) - _MOST_TOLD
        return (*lines, *([f"and {more} more"] if more > 0 else []))


def _how(vm: Vm) -> str:
    return f"{vm.state.value} ({vm.error})" if vm.error else vm.state.value
