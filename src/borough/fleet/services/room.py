"""Waiting for room: an environment that found none is decided on again until there is some, or its time is over."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import partial

from borough.core.clock import utc_now
from borough.core.errors import Conflict
from borough.fleet.placement import NotPlaced, Plan, place
from borough.fleet.ports.fleet import Fleet, View
from borough.fleet.services.images import ImageService
from borough.fleet.services.operations import Progress
from borough.fleet.vms import Vm, VmId, VmState
from borough.fleet.waiting import Waiting, reasons, with_claims

LOOK_EVERY_S = 0.5


class RoomService:
    """Lets environments wait. Who waits is in the rows: it goes on waiting, in its place, after a restart."""

    def __init__(self, fleet: Fleet, images: ImageService, *, most_vms: int) -> None:
        self._fleet = fleet
        self._images = images
        self._most_vms = most_vms

    async def wait(self, env_id: str, progress: Progress) -> bool:
        """Return whether the environment has its machines planned; one that does not wait has.

        One whose time is over is forgotten, and one that was deleted meanwhile is; both are told in the operation.
        """
        waiting = await self._of(env_id)
        if waiting is None:
            return True
        while True:
            stock = await self._images.stock()
            decision = await self._fleet.place_waiting(
                env_id, partial(self._decide, stock=stock), _machines, at=utc_now()
            )  # fmt: skip
            if isinstance(decision, Plan):
                await progress.warn(())
                return True
            if decision is None:
                await _none_made(progress, waiting, f"{env_id} was deleted while it waited for room")
                return False
            await progress.warn(reasons(decision))
            if utc_now() >= waiting.until:
                await self._fleet.remove_environment(env_id)
                await _none_made(progress, waiting, f"there was no room in time: {decision.reason}")
                return False
            await asyncio.sleep(LOOK_EVERY_S)

    async def _of(self, env_id: str) -> Waiting | None:
        return next((each for each in await self._fleet.waiting() if each.env_id == env_id), None)

    def _decide(self, view: View, waiting: Waiting, *, stock: frozenset[str]) -> Plan | NotPlaced:
        hosts = with_claims(view.hosts, view.waiting, view.tenants, before=waiting.number, stock=stock)
        decision = place(waiting.specs, hosts, waiting.constraints, tenants=view.tenants, stock=stock)
        try:
            check_count(view.vm_count + len(waiting.specs), most=self._most_vms)
        except Conflict as full:  # machines leave: that too is waited for
            return NotPlaced(number=0, spec=waiting.specs[0], reason=full.message, hosts={})
        return decision


def check_count(count: int, *, most: int) -> None:
    """Raise ``Conflict`` (``too_many_vms``) when the fleet would have more machines than it may."""
    if count > most:
        raise Conflict(
            f"the fleet would have more than {most} machines",
            code="too_many_vms",
            resolution="delete environments that are not needed, or raise the limit in the settings",
        )


def planned(plan: Plan, vm_ids: Sequence[VmId], env_id: str, at: datetime) -> Sequence[Vm]:
    """Return the machines of a plan, as they are before any host has been asked."""
    return [
        Vm(
            id=vm_id,
            env_id=env_id,
            host_id=placed.host_id,
            spec=placed.spec,
            state=VmState.CREATING,
            desired=VmState.RUNNING,
            created_at=at,
            since=at,
        )
        for vm_id, placed in zip(vm_ids, plan.placed, strict=True)
    ]


def _machines(waiting: Waiting, plan: Plan) -> Sequence[Vm]:
    return planned(plan, waiting.vm_ids, waiting.env_id, utc_now())


async def _none_made(progress: Progress, waiting: Waiting, why: str) -> None:
    await progress.warn(())
    for vm_id in waiting.vm_ids:
        await progress.step(vm_id, error=why)
