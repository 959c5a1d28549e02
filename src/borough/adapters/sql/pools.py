"""The store of pools: their rows, those of their machines, and the steps that were taken."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final, Self

import apsw
import msgspec

from borough.adapters.sql.engine import Database, Migration
from borough.adapters.sql.fleet.rows import row, rows, text
from borough.core.errors import Conflict, NotFound
from borough.pools.pools import Machine, Pool, Step, Use, may_move

_TABLES: Final = (
    "CREATE TABLE pools (role TEXT NOT NULL PRIMARY KEY, document TEXT NOT NULL) STRICT",
    """
    CREATE TABLE machines (
      number INTEGER PRIMARY KEY,
      id TEXT NOT NULL UNIQUE,
      role TEXT NOT NULL REFERENCES pools (role),
      document TEXT NOT NULL
    ) STRICT
    """,
    "CREATE INDEX machines_of_pool ON machines (role)",
    """
    CREATE TABLE steps (
      number INTEGER PRIMARY KEY AUTOINCREMENT,
      role TEXT NOT NULL REFERENCES pools (role) ON DELETE CASCADE,
      document TEXT NOT NULL
    ) STRICT
    """,
    "CREATE INDEX steps_of_pool ON steps (role, number)",
)
MIGRATIONS: Final = (Migration(number=1, statements=_TABLES),)
KEPT_STEPS: Final = 200
"""How many steps of a pool are kept."""

_POOL: Final = msgspec.json.Decoder(Pool)
_MACHINE: Final = msgspec.json.Decoder(Machine)
_STEP: Final = msgspec.json.Decoder(Step)
_SET_MACHINE: Final = "UPDATE machines SET document = ? WHERE id = ?"
_DROP_STEPS: Final = """
  DELETE FROM steps WHERE number IN (SELECT number FROM steps WHERE role = ? ORDER BY number DESC LIMIT -1 OFFSET ?)
"""
_PUT: Final = "INSERT INTO pools VALUES (?, ?) ON CONFLICT (role) DO UPDATE SET document = excluded.document"


class SqlPools:
    """The port ``PoolStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open the file, made owner-only where there is none; raises as ``Database.open``."""
        return cls(await Database.open(path, MIGRATIONS))

    async def close(self) -> None:
        """Finish what was asked for and close the file."""
        await self._database.close()

    # -- pools ---------------------------------------------------------------------------------------------------------

    async def put(self, role: str, change: Callable[[Pool | None], Pool]) -> tuple[Pool, bool]:
        """Write what ``change`` makes of the pool that is there; return it, and whether there was none."""

        def step(connection: apsw.Connection) -> tuple[Pool, bool]:
            before = _pool(connection, role)
            after = change(before)
            rows(connection, _PUT, (role, text(after)))
            return after, before is None

        return await self._database.write(step)

    async def pools(self) -> tuple[Pool, ...]:
        """Return all, by role."""
        found = await self._database.read(
            lambda connection: rows(connection, "SELECT document FROM pools ORDER BY role")
        )
        return tuple(_POOL.decode(document) for (document,) in found)

    async def pool(self, role: str) -> Pool:
        """Return one; raises ``NotFound`` (``pool_not_found``)."""
        return _known(await self._database.read(lambda connection: _pool(connection, role)), role)

    async def change(self, role: str, change: Callable[[Pool], Pool]) -> Pool:
        """Write a changed pool; raises ``NotFound`` (``pool_not_found``)."""

        def step(connection: apsw.Connection) -> Pool:
            after = change(_known(_pool(connection, role), role))
            rows(connection, _PUT, (role, text(after)))
            return after

        return await self._database.write(step)

    async def remove(self, role: str) -> bool:
        """Forget a pool that is leaving and has no machines, with its steps; return whether it was one."""

        def step(connection: apsw.Connection) -> bool:
            pool = _pool(connection, role)
            if pool is None or not pool.leaving:
                return False
            if row(connection, "SELECT 1 FROM machines WHERE role = ? LIMIT 1", (role,)) is not None:
                return False
            rows(connection, "DELETE FROM steps WHERE role = ?", (role,))
            rows(connection, "DELETE FROM pools WHERE role = ?", (role,))
            return True

        return await self._database.write(step)

    # -- machines ------------------------------------------------------------------------------------------------------

    async def machines(self, role: str | None = None) -> tuple[Machine, ...]:
        """Return the machines of one pool, or of all, oldest first."""
        statement = "SELECT document FROM machines WHERE ?1 IS NULL OR role = ?1 ORDER BY number"
        found = await self._database.read(lambda connection: rows(connection, statement, (role,)))
        return tuple(_MACHINE.decode(document) for (document,) in found)

    async def intend(self, machines: Sequence[Machine]) -> None:
        """Write rows of machines that the fleet is about to be asked for."""

        def step(connection: apsw.Connection) -> None:
            for machine in machines:
                values = (machine.id, machine.role, text(machine))
                rows(connection, "INSERT INTO machines (id, role, document) VALUES (?, ?, ?)", values)

        await self._database.write(step)

    async def move(self, machine: Machine) -> Machine:
        """Write a changed machine.

        Raises:
            NotFound: it is not there any more (``pool_machine_not_found``).
            Conflict: what it is used for does not allow that (``illegal_use``).
        """

        def step(connection: apsw.Connection) -> Machine:
            found = row(connection, "SELECT document FROM machines WHERE id = ?", (machine.id,))
            if found is None:
                raise NotFound(
                    f"the pool {machine.role} has no machine {machine.id}",
                    code="pool_machine_not_found",
                    resolution="look again: it was taken, or is gone",
                )
            before = _MACHINE.decode(found[0])
            if before.use is not machine.use and not may_move(before.use, machine.use):
                raise Conflict(
                    f"a machine that is {before.use.value} cannot become {machine.use.value}",
                    code="illegal_use",
                    resolution="look again: somebody else was faster",
                )
            rows(connection, _SET_MACHINE, (text(machine), machine.id))
            return machine

        return await self._database.write(step)

    async def forget(self, machine_id: str) -> None:
        """Drop a machine's row, once nothing of it is left; none there is no error."""
        await self._database.write(
            lambda connection: rows(connection, "DELETE FROM machines WHERE id = ?", (machine_id,))
        )

    async def take_warm(self, claim: str, fits: Callable[[Machine, Pool], bool], *, at: datetime) -> Machine | None:
        """Take the oldest warm machine that fits out of its pool, for good; ``None``: none fits.

        The same ``claim`` gets the same machine again.
        """
        statement = (
            "SELECT machines.document, pools.document FROM machines JOIN pools USING (role) ORDER BY machines.number"
        )

        def step(connection: apsw.Connection) -> Machine | None:
            found = [(_MACHINE.decode(one), _POOL.decode(pool)) for one, pool in rows(connection, statement)]
            for machine, _ in found:
                if machine.taken_by == claim:
                    return machine
            for machine, pool in found:
                if machine.use is Use.WARM and not pool.leaving and fits(machine, pool):
                    taken = replace(machine, use=Use.TAKEN, taken_by=claim, since=at, reason=f"taken by {claim}")
                    rows(connection, _SET_MACHINE, (text(taken), machine.id))
                    return taken
            return None

        return await self._database.write(step)

    # -- steps ---------------------------------------------------------------------------------------------------------

    async def note(self, role: str, step: Step) -> None:
        """Write a step; the oldest beyond those that are kept go. Of a pool that is gone nothing is written."""

        def write(connection: apsw.Connection) -> None:
            if _pool(connection, role) is None:
                return
            rows(connection, "INSERT INTO steps (role, document) VALUES (?, ?)", (role, text(step)))
            rows(connection, _DROP_STEPS, (role, KEPT_STEPS))

        await self._database.write(write)

    async def steps(self, role: str, *, limit: int) -> tuple[Step, ...]:
        """Return the last steps of a pool, newest first."""
        statement = "SELECT document FROM steps WHERE role = ? ORDER BY number DESC LIMIT ?"
        found = await self._database.read(lambda connection: rows(connection, statement, (role, limit)))
        return tuple(_STEP.decode(document) for (document,) in found)


def _pool(connection: apsw.Connection, role: str) -> Pool | None:
    found = row(connection, "SELECT document FROM pools WHERE role = ?", (role,))
    return None if found is None else _POOL.decode(found[0])


def _known(pool: Pool | None, role: str) -> Pool:
    if pool is None:
        raise NotFound(
            f"there is no pool for the role {role[:80]!r}",
            code="pool_not_found",
            resolution="see 'borough pool list', or make it with 'borough pool set'",
        )
    return pool
