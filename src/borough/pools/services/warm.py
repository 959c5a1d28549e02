"""Ready machines for others than the pool's own workers: taken for good, and used once."""

from dataclasses import dataclass

from borough.core.clock import utc_now
from borough.core.errors import NotFound
from borough.fleet.engines import Engine
from borough.fleet.resources import Size
from borough.fleet.services.environments import EnvironmentService
from borough.fleet.vms import Vm, VmState
from borough.pools.confining import confined
from borough.pools.pools import Machine, Pool, Use
from borough.pools.ports import PoolStore
from borough.pools.services.machines import SERVER


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a machine has to be to be taken."""

    image: str
    engine: Engine
    size: Size
    egress: frozenset[str] = frozenset({SERVER})
    """Exactly what may be reached from inside."""


class WarmMachines:
    """The ready machines of all pools."""

    def __init__(self, store: PoolStore, environments: EnvironmentService) -> None:
        self._store = store
        self._environments = environments

    async def ready(self, wanted: Wanted) -> Vm | None:
        """Return the machine that would be taken now, and leave it where it is."""
        pools = {pool.role: pool for pool in await self._store.pools()}
        for machine in await self._store.machines() if pools else ():
            if machine.use is Use.WARM and _fits(machine, pools[machine.role], wanted):
                vm = await self._running(machine)
                if vm is not None:
                    return vm
        return None

    async def taken(self, by: str) -> tuple[str, ...]:
        """Return the environments of machines that were taken by claims that begin so, and may be there still."""
        machines = await self._store.machines()
        return tuple(each.env_id for each in machines if (each.taken_by or "").startswith(by))

    async def take(self, claim: str, wanted: Wanted) -> Vm | None:
        """Take a ready machine that is exactly so; ``None``: there is none, and nothing was changed.

        It is the caller's from then on: the same ``claim`` gets the same machine again, nobody else ever does, the pool
        makes another, and whoever took it prolongs its environment (``env_id``) and deletes it.
        """
        machine = await self._store.take_warm(claim, lambda each, pool: _fits(each, pool, wanted), at=utc_now())
        return None if machine is None else await self._running(machine)

    async def _running(self, machine: Machine) -> Vm | None:
        try:
            detail = await self._environments.detail(machine.env_id)
        except NotFound:
            return None  # it went just now; its row goes with the next pass
        return next((vm for vm in detail.vms if vm.state is VmState.RUNNING), None)


def _fits(machine: Machine, pool: Pool, wanted: Wanted) -> bool:
    spec = pool.settings.spec(egress=(SERVER, *confined(pool.settings.manifest).egress))
    same = (spec.image, spec.engine, spec.size) == (wanted.image, wanted.engine, wanted.size)
    serves = not pool.leaving and machine.generation == pool.generation
    return same and serves and frozenset(spec.egress_allowlist) == wanted.egress
