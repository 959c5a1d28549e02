"""What pools say of themselves: every step and every trouble with its reason, kept, and told in the town's events."""

from collections.abc import Sequence
from dataclasses import replace

import structlog

from borough.core.clock import utc_now
from borough.core.errors import NotFound
from borough.pools.pools import Pool, Step, Trouble
from borough.pools.ports import PoolStore
from borough.pools.scaling import Failure, after_failure
from borough.town.ports.events import Events

log = structlog.get_logger(__name__)


class Telling:
    """Writes down what is done with pools."""

    def __init__(self, store: PoolStore, events: Events) -> None:
        self._store = store
        self._events = events

    async def step(self, role: str, *, before: int, after: int, reason: str, machine: str | None = None) -> None:
        """Note one step."""
        step = Step(at=utc_now(), before=before, after=after, reason=reason, machine=machine)
        await self._noted(role, step)
        log.info("pool.step", pool=role, before=before, after=after, reason=reason, machine=machine)
        about = {"role": role, "reason": reason} | ({} if machine is None else {"machine": machine})
        await self._events.append("pool_scaled", f"pool {role}: {before} to {after} workers: {reason}", about)

    async def held(self, pool: Pool, *, workers: int, reason: str) -> None:
        """Note why nothing is done although more is wanted, once as long as that lasts."""
        told = f"held: {reason}"
        known = (pool.trouble is not None and pool.trouble.reason == reason) or (
            pool.last_step is not None and pool.last_step.reason == told
        )
        if not known:
            await self.step(pool.role, before=workers, after=workers, reason=told)

    async def trouble(self, role: str, failures: Sequence[Failure], *, workers: int) -> None:
        """Note boots that came to nothing, together as one, and when it is tried again.

        That there is no room is told again only when it is for another reason.
        """
        at = utc_now()
        worst = next((each for each in failures if not each.no_room), failures[0])
        latest = replace(worst, asked_at=max(each.asked_at for each in failures))
        known: list[Trouble | None] = []

        def change(before: Pool) -> Pool:
            known.append(before.trouble)
            return replace(before, trouble=after_failure(before.trouble, latest, at=at))

        try:
            trouble = (await self._store.change(role, change)).trouble
        except NotFound:
            return  # the pool is gone, and nothing is tried again
        before = known[-1]
        again = before is not None and trouble is not None and before.no_room and before.reason == trouble.reason
        if trouble is None or again:
            return
        pause = max(0.0, (trouble.until - at).total_seconds())
        what = "no room" if trouble.no_room else f"failure {trouble.count} in a row"
        reason = f"{what}, next try in {pause:.0f} s: {latest.reason}"
        await self.step(role, before=workers, after=workers, reason=reason)

    async def over(self, pool: Pool) -> None:
        """Note that trouble is over."""
        await self._store.change(pool.role, lambda before: replace(before, trouble=None))

    async def announce(self, kind: str, role: str, message: str, *, by: str) -> None:
        """Tell what somebody did with a pool."""
        await self._events.append(kind, message, {"role": role, "by": by})

    async def _noted(self, role: str, step: Step) -> None:
        await self._store.note(role, step)
        try:
            await self._store.change(role, lambda pool: replace(pool, last_step=step))
        except NotFound:
            return  # it went with its last machine
