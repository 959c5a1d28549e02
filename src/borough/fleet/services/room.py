"""Waiting for room: an environment that found none is decided on again until there is some, or its time is over.

Whoever waits is woken when a machine has gone. What asked earlier has the first claim, so of those who want the same
only the first need be decided on: where it finds no room, neither do the others.
"""

import asyncio
from collections.abc import Hashable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial

from borough.core.clock import utc_now
from borough.core.errors import Conflict
from borough.fleet.hosts import Host
from borough.fleet.placement import NotPlaced, Plan, place
from borough.fleet.ports.fleet import Fleet, View
from borough.fleet.services.images import ImageService
from borough.fleet.services.operations import Progress
from borough.fleet.vms import Vm, VmId, VmState
from borough.fleet.waiting import Waiting, reasons, with_claims

LOOK_EVERY_S = 0.5
"""How often is looked for room that came otherwise than by the end of a machine."""
TELL_EVERY_S = 2.0
"""How often is written down what is waited for."""


class RoomService:
    """Lets environments wait. Who waits is in the rows: it goes on waiting, in its place, after a restart."""

    def __init__(self, fleet: Fleet, images: ImageService, *, most_vms: int) -> None:
        self._fleet = fleet
        self._images = images
        self._most_vms = most_vms
        self._came = asyncio.Event()
        self._refused = _Refused()

    def came(self) -> None:
        """Tell those who wait that there may be room now."""
        self._refused = _Refused()
        self._came.set()
        self._came = asyncio.Event()

    async def wait(self, env_id: str, progress: Progress) -> bool:
        """Return whether the environment has its machines planned; one that does not wait has.

        One whose time is over is forgotten, and one that was deleted meanwhile is; both are told in the operation.
        """
        waiting = await self._of(env_id)
        if waiting is None:
            return True
        told_at = 0.0
        while True:
            came = self._came
            decision = await self._look(waiting)
            if isinstance(decision, Plan):
                self.came()  # whoever asked later is next
                await progress.warn(())
                return True
            if decision is None:
                await _none_made(progress, waiting, f"{env_id} was deleted while it waited for room")
                return False
            if (now := asyncio.get_running_loop().time()) - told_at >= TELL_EVERY_S:
                told_at = now
                await progress.warn(reasons(decision))
            if utc_now() >= waiting.until:
                await self._fleet.remove_environment(env_id)
                await _none_made(progress, waiting, f"there was no room in time: {decision.reason}")
                return False
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await came.wait()

    async def _look(self, waiting: Waiting) -> Plan | NotPlaced | None:
        """Decide anew; in one step with writing it where there seems to be room, or where nobody waits any more."""
        stock = await self._images.stock()
        view = await self._fleet.view()
        if any(each.env_id == waiting.env_id for each in view.waiting):
            known = self._refused.of(waiting, view)
            if known is None and isinstance(seen := self._decide(view, waiting, stock=stock), NotPlaced):
                known = self._refused.note(waiting, seen)
            if known is not None:
                return known
        return await self._fleet.place_waiting(
            waiting.env_id, partial(self._decide, stock=stock), _machines, at=utc_now()
        )  # fmt: skip

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


class _Refused:
    """What was refused in one state of the fleet, by what was asked for."""

    def __init__(self) -> None:
        self._state: tuple[tuple[Host, ...], tuple[str, ...]] = ((), ())
        self._known: dict[Hashable, tuple[int, NotPlaced]] = {}

    def of(self, waiting: Waiting, view: View) -> NotPlaced | None:
        """Return how somebody who asked earlier for the same was refused, if nothing has changed since."""
        state = view.hosts, tuple(each.env_id for each in view.waiting)
        if state != self._state:
            self._state, self._known = state, {}
        number, refused = self._known.get(_asked(waiting), (waiting.number, None))
        return refused if number < waiting.number else None

    def note(self, waiting: Waiting, refused: NotPlaced) -> NotPlaced:
        """Note a refusal in the state that was asked about last, and return it."""
        self._known.setdefault(_asked(waiting), (waiting.number, refused))
        return refused


def _asked(waiting: Waiting) -> Hashable:
    return repr((waiting.specs, waiting.constraints))


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
