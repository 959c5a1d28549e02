"""Machines of pools in the fleet: asked for, prolonged, deleted. Each is an environment of one machine."""

from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Final

from borough.auth.machines import SERVER_NAME, SERVER_PORT
from borough.core.acting import acting_as
from borough.core.clock import utc_now
from borough.core.errors import BoroughError, NotFound
from borough.core.ids import derived_id, new_id
from borough.fleet.fitness import Constraints
from borough.fleet.orders import EnvOrder, Ids
from borough.fleet.services.environments import EnvironmentService
from borough.fleet.vms import vm_id_of
from borough.pools.confining import Confined, confined
from borough.pools.pools import Machine, Pool, Use
from borough.pools.ports import PoolStore
from borough.pools.scaling import Failure
from borough.pools.services.watching import LIFETIME, boot_id

NO_ROOM: Final = frozenset({"unschedulable", "too_many_vms", "no_room"})
"""Codes that say that nothing is wrong with what was asked for but the place."""
LABEL: Final = "pool"
SERVER: Final = f"{SERVER_NAME}:{SERVER_PORT}"
"""Where every machine's worker has to be let out to."""
_MOST_ROLE: Final = 63


class PoolMachines:
    """The machines of all pools, as the fleet has them."""

    def __init__(self, store: PoolStore, environments: EnvironmentService) -> None:
        self._store = store
        self._environments = environments

    async def intend(self, pool: Pool, count: int, *, reason: str) -> tuple[Machine, ...]:
        """Write down that ``count`` machines are to be made."""
        now = utc_now()
        machines = tuple(_planned(pool, reason, new_id(), now=now) for _ in range(count))
        await self._store.intend(machines)
        return machines

    async def ask(self, pool: Pool, machine: Machine) -> Failure | None:
        """Ask the fleet for a machine that is on record; asked again it is the same one. Return why it is none."""
        bounds: Confined = confined(pool.settings.manifest)
        try:
            spec = pool.settings.spec(egress=(SERVER, *bounds.egress))
            order = EnvOrder(
                id=machine.env_id,
                owner=_owner(pool.role),
                specs=(spec,),
                lifetime_s=round(LIFETIME.total_seconds()),
                labels={LABEL: pool.role},
                constraints=Constraints(isolation=bounds.isolation),
            )
            with acting_as(order.owner):
                await self._environments.create(order, Ids(operation=boot_id(machine), vms=(machine.vm_id,)))
        except BoroughError as error:
            await self._store.move(replace(machine, use=Use.ENDING, since=utc_now(), reason=told_of(error)))
            return Failure(reason=told_of(error), asked_at=machine.created_at, no_room=error.code in NO_ROOM)
        return None

    async def prolong(self, machine: Machine) -> None:
        """Let a machine live on."""
        with suppress(NotFound), acting_as(_owner(machine.role)):
            await self._environments.change(machine.env_id, lifetime_s=round(LIFETIME.total_seconds()))

    async def delete(self, machine: Machine) -> None:
        """Begin to delete a machine; the fleet goes on until its host has confirmed."""
        with suppress(NotFound), acting_as(_owner(machine.role)):
            await self._environments.delete(machine.env_id, operation_id=derived_id("pool end", machine.id))


def told_of(error: BoroughError) -> str:
    """Return an error's words and its reason."""
    return f"{error.message}: {error.reason}" if error.reason else error.message


def _owner(role: str) -> str:
    return f"pool {role}"


def _planned(pool: Pool, reason: str, machine_id: str, *, now: datetime) -> Machine:
    return Machine(
        id=machine_id,
        role=pool.role,
        generation=pool.generation,
        use=Use.BOOTING,
        since=now,
        created_at=now,
        env_id=f"pool-{pool.role[:_MOST_ROLE]}-{machine_id[:8]}",
        vm_id=vm_id_of(derived_id("pool machine", machine_id)),
        reason=reason,
    )
