"""The use cases of people: set a pool, look at it, delete it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from borough.core.clock import utc_now
from borough.core.paging import Page, PageRequest
from borough.fleet.vms import VmState
from borough.pools.confining import check_wall
from borough.pools.pools import Machine, Pool, PoolSettings, Step, check_settings
from borough.pools.ports import PoolStore
from borough.pools.services.autoscaler import Seen
from borough.pools.services.telling import Telling
from borough.town.names import role_name

SHOWN_STEPS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolDetail:
    """A pool with its machines, as the last pass saw them."""

    pool: Pool
    desired: int | None
    """How many workers it is to have; ``None`` until it was looked at."""
    held: str | None
    machines: tuple[Machine, ...]
    states: Mapping[str, VmState]
    """By machine: how the fleet has it."""
    steps: tuple[Step, ...] = ()


class PoolService:
    """The pools of a town."""

    def __init__(self, store: PoolStore, telling: Telling, *, seen: Callable[[], Seen]) -> None:
        self._store = store
        self._telling = telling
        self._seen = seen

    async def put(self, role: str, settings: PoolSettings, *, by: str) -> tuple[PoolDetail, bool]:
        """Set a pool, and return it and whether it is new. A pool that is being deleted stays after all.

        Raises:
            Invalid: the settings contradict themselves or cannot be (as ``check_settings``, ``check_wall``).
        """
        check_settings(role, settings)
        check_wall(settings.manifest, settings.engine)
        now = utc_now()

        def change(before: Pool | None) -> Pool:
            if before is None:
                return Pool(role=role, settings=settings, created_at=now, changed_at=now)
            same = before.settings.machine == settings.machine
            generation = before.generation if same else before.generation + 1
            trouble = before.trouble if same else None
            return replace(
                before, settings=settings, generation=generation, leaving=False, changed_at=now, trouble=trouble
            )  # fmt: skip

        pool, is_new = await self._store.put(role, change)
        bounds = f"{settings.minimum} to {settings.maximum} workers, {settings.warm} ready"
        await self._telling.announce("pool_set", role, f"pool {role} is set: {bounds}", by=by)
        return await self._detail(pool), is_new

    async def get(self, role: str) -> PoolDetail:
        """Return a pool with its last steps; raises ``NotFound`` (``pool_not_found``)."""
        found = await self._detail(await self._store.pool(role))
        return replace(found, steps=await self._store.steps(role, limit=SHOWN_STEPS))

    async def find(self, page: PageRequest) -> Page[PoolDetail]:
        """Return pools by role."""
        pools = [pool for pool in await self._store.pools() if pool.role > (page.after or "")]
        found = [await self._detail(pool) for pool in pools[: page.limit]]
        return Page(items=tuple(found), after=pools[page.limit - 1].role if len(pools) > page.limit else None)

    async def delete(self, role: str, *, by: str) -> PoolDetail:
        """Begin to end a pool: workers finish what they have, machines go, and then the pool does.

        Raises:
            NotFound: there is none (``pool_not_found``).
        """
        role_name(role)
        pool = await self._store.change(role, lambda before: replace(before, leaving=True, changed_at=utc_now()))
        await self._telling.announce("pool_deleted", role, f"pool {role} drains and goes", by=by)
        return await self._detail(pool)

    async def _detail(self, pool: Pool) -> PoolDetail:
        seen = self._seen()
        decision = seen.decisions.get(pool.role)
        return PoolDetail(
            pool=pool,
            desired=None if decision is None else decision.desired,
            held=None if decision is None else decision.held,
            machines=await self._store.machines(pool.role),
            states=seen.states,
        )
