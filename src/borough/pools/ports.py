"""What pools need from outside: rows of pools, of their machines and of steps. One method is one atomic step."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from borough.pools.pools import Machine, Pool, Step


class PoolStore(Protocol):
    """Pools with their machines. All raise ``Unavailable`` (``store_unavailable``) where nothing can be read."""

    async def put(self, role: str, change: Callable[[Pool | None], Pool]) -> tuple[Pool, bool]:
        """Write what ``change`` makes of the pool that is there; return it, and whether there was none."""

    async def pools(self) -> tuple[Pool, ...]:
        """Return all, by role."""

    async def pool(self, role: str) -> Pool:
        """Return one; raises ``NotFound`` (``pool_not_found``)."""

    async def change(self, role: str, change: Callable[[Pool], Pool]) -> Pool:
        """Write a changed pool; raises ``NotFound`` (``pool_not_found``)."""

    async def remove(self, role: str) -> bool:
        """Forget a pool that is leaving and has no machines, with its steps; return whether it was one."""

    async def machines(self, role: str | None = None) -> tuple[Machine, ...]:
        """Return the machines of one pool, or of all, oldest first."""

    async def intend(self, machines: Sequence[Machine]) -> None:
        """Write rows of machines that the fleet is about to be asked for."""

    async def move(self, machine: Machine) -> Machine:
        """Write a changed machine.

        Raises:
            NotFound: it is not there any more (``pool_machine_not_found``).
            Conflict: what it is used for does not allow that (``illegal_use``).
        """

    async def forget(self, machine_id: str) -> None:
        """Drop a machine's row, once nothing of it is left; none there is no error."""

    async def take_warm(self, claim: str, fits: Callable[[Machine, Pool], bool], *, at: datetime) -> Machine | None:
        """Take the oldest warm machine that fits out of its pool, for good; ``None``: none fits.

        The same ``claim`` gets the same machine again.
        """

    async def note(self, role: str, step: Step) -> None:
        """Write a step; the oldest beyond those that are kept go. Of a pool that is gone nothing is written."""

    async def steps(self, role: str, *, limit: int) -> tuple[Step, ...]:
        """Return the last steps of a pool, newest first."""
