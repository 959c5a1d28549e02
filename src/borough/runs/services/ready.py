"""Machines that stand ready in pools, as runs use them: found at admission, taken for an attempt, gone with its run.

A machine is taken under a claim that follows from run, try and lease, before the run's row tells of it. So a server
that ends between the two takes the same machine again, and what was taken for a run is found by the run's id alone.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from borough.core.errors import Conflict, NotFound
from borough.fleet.engines import Engine, Offer
from borough.fleet.vms import Vm, VmSpec
from borough.pools.services.warm import Wanted, WarmMachines
from borough.runs.admission import Start
from borough.runs.ports import House
from borough.runs.runs import Machine, Run

OpenPools = Callable[[], Awaitable[WarmMachines | None]]
"""Waits for the pools; ``None``: there can be none here. Raises ``Unavailable`` while that is not known."""
_TRIES: Final = 4


class ReadyMachines:
    """The ready machines of all pools."""

    def __init__(self, pools: OpenPools) -> None:
        self._pools = pools

    async def find(self, spec: VmSpec, offers: Sequence[Offer]) -> Vm | None:
        """Return a machine that is just as it is wanted; it stays where it is. ``offers``: its engine, on each host."""
        pools = await self._pools()
        return None if pools is None or not _may_be(spec, offers) else await pools.ready(_wanted(spec))

    async def take(self, run: Run, spec: VmSpec, offers: Sequence[Offer], *, epoch: int) -> Machine | None:
        """Take a machine for the attempt of a lease, for good; ``None``: none fits. Repeated it is the same one."""
        pools = await self._pools()
        if pools is None or not _may_be(spec, offers):
            return None
        vm = await pools.take(f"{_claims(run)}{run.tries}.{epoch}", _wanted(spec))
        if vm is None:
            return None
        return Machine(
            env_id=vm.env_id, vm_id=vm.id, host_id=vm.host_id, engine=vm.spec.engine, state=vm.state.value,
            start=Start.WARM,
        )  # fmt: skip

    async def taken(self, run: Run) -> tuple[str, ...]:
        """Return the environments that were taken for a run and may be there still, whatever its row tells of them."""
        pools = await self._pools()
        return () if pools is None else await pools.taken(_claims(run))


async def make_own(house: House, machine: Machine, *, owner: str, labels: dict[str, str], lifetime_s: int) -> bool:
    """Let a machine that was taken be its new owner's in the fleet too; return whether it is still there."""
    for _ in range(_TRIES):
        try:
            await house.change(machine.env_id, owner=owner, labels=labels, lifetime_s=lifetime_s)
        except NotFound:
            return False
        except Conflict as error:
            if error.code != "stale_env":
                return False  # it is being deleted
        else:
            return True
    return False


def _claims(run: Run) -> str:
    """Return what all claims of a run begin with."""
    return f"run {run.id}."


def _wanted(spec: VmSpec) -> Wanted:
    return Wanted(image=spec.image, engine=spec.engine, size=spec.size, egress=frozenset(spec.egress_allowlist))


def _may_be(spec: VmSpec, offers: Sequence[Offer]) -> bool:
    """Tell whether a machine of a pool can be such a one: it was made without what the run's manifest requires.

    So it will do where every host that has the engine can do that for all of its machines.
    """
    if spec.engine is Engine.DOCKER or not spec.deny_outgoing:
        return False  # a pool's containers run their image's own command; and every pool's machines are closed in
    return all(spec.required <= offer.capabilities for offer in offers)
