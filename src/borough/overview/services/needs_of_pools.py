"""What of pools needs a person: those whose machines come to nothing."""

from collections.abc import Awaitable, Callable
from typing import Final

from borough.core.clock import rfc3339
from borough.core.paging import Page, PageRequest
from borough.overview.attention import Kind, Need, Settling, Urgency
from borough.overview.occurrences import Context, Subject
from borough.overview.services.slices import part
from borough.pools.pools import Pool, Trouble
from borough.pools.ports import PoolStore

OpenedPools = Callable[[], Awaitable[PoolStore | None]]
"""Waits until pools are open; ``None``: there are none here. Raises ``Unavailable`` where that lasts."""


class TroubledPools:
    """Pools that boot nothing for a while, since what they booted came to nothing."""

    context: Final = Context.FLEET
    kind: Final = Kind.POOL

    def __init__(self, pools: OpenedPools) -> None:
        self._pools = pools

    async def page(self, page: PageRequest) -> Page[Need]:
        """Return some, those in trouble for longest first."""
        store = await self._pools()
        pools = () if store is None else await store.pools()
        return part([_troubled(pool, pool.trouble) for pool in pools if pool.trouble is not None], page)


def _troubled(pool: Pool, trouble: Trouble) -> Need:
    what = "finds no room" if trouble.no_room else "cannot start its machines"
    times = "once" if trouble.count == 1 else f"{trouble.count} times in a row"
    return Need(
        kind=Kind.POOL,
        title=f"the pool {pool.role} {what}",
        why=f"{times}: {trouble.reason}",
        since=trouble.at,
        urgency=Urgency.SOON,
        subject=Subject(kind="pool", id=pool.role),
        safe_default=f"it is tried again at {rfc3339(trouble.until)}; work for {pool.role} waits until then",
        deadline=trouble.until,
        settled_by=(
            Settling(
                label="See its machines and its last steps",
                method="GET",
                path=f"/v1/pools/{pool.role}",
                command=f"borough pool show {pool.role}",
            ),
            Settling(
                label="Let it go, with its machines",
                method="DELETE",
                path=f"/v1/pools/{pool.role}",
                command=f"borough pool delete {pool.role}",
            ),
        ),
    )
