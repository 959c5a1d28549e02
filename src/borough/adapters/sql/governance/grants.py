"""Grants. Those that were not revoked are kept in memory too."""

from typing import Self

import apsw

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance.following import Following
from borough.adapters.sql.governance.rows import Row, moment, ms, places, row, rows
from borough.core.clock import from_ms, to_ms
from borough.core.errors import NotFound
from borough.core.ids import AgentId
from borough.governance.capabilities import parse_capability
from borough.governance.grants import Grant

_COLUMNS = "id, agent_id, capability, granted_by, granted_at_ms, expires_at_ms, revoked_at_ms, revoked_by"
_ADD = f"INSERT INTO grants ({_COLUMNS}) VALUES ({places(_COLUMNS)}) ON CONFLICT (id) DO NOTHING RETURNING {_COLUMNS}"
_EVERY = f"SELECT {_COLUMNS} FROM grants ORDER BY number"
_REPLACE = f"""
  UPDATE grants SET capability = ?, granted_by = ?, granted_at_ms = ?, expires_at_ms = ?, revoked_at_ms = ?,
    revoked_by = ? WHERE id = ? AND agent_id = ? RETURNING {_COLUMNS}
"""


class SqlGrants:
    """The port ``Grants``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._grants: dict[AgentId, dict[str, Grant]] = {}
        self._changes: Following[Grant] = Following(self._follow, reload=_every)

    @classmethod
    async def open(cls, database: Database) -> Self:
        """Return the store with every grant that was not revoked in memory."""
        grants = cls(database)
        database.follow(grants._changes)
        for grant in await database.read(_every):
            grants._follow(grant)
        return grants

    async def add(self, grant: Grant) -> None:
        """Store a grant."""

        def step(connection: apsw.Connection) -> None:
            added = row(connection, _ADD, _values(grant))
            if added is not None:
                self._changes.note(_grant(added))

        await self._database.write(step)

    async def of(self, agent_id: AgentId) -> tuple[Grant, ...]:
        """Return an agent's grants that were not revoked, oldest first."""
        return tuple(self._grants.get(agent_id, {}).values())

    async def replace(self, grant: Grant) -> None:
        """Store a changed grant."""

        def step(connection: apsw.Connection) -> None:
            changed = row(connection, _REPLACE, (*_values(grant)[2:], grant.id, grant.agent_id))
            if changed is None:
                raise NotFound(
                    f"there is no grant {grant.id}",
                    code="grant_not_found",
                    resolution="list those that are there: ash grants list",
                )
            self._changes.note(_grant(changed))

        await self._database.write(step)

    def forget(self, agent_id: AgentId) -> None:
        """Forget an agent's grants, which are gone from the tables."""
        self._grants.pop(agent_id, None)

    def _follow(self, grant: Grant) -> None:
        if grant.revoked_at is None:
            self._grants.setdefault(grant.agent_id, {})[grant.id] = grant
        else:
            self._grants.get(grant.agent_id, {}).pop(grant.id, None)


def _every(connection: apsw.Connection) -> list[Grant]:
    """Return every grant, also those that were revoked: they are to be forgotten where they are known."""
    return [_grant(stored) for stored in rows(connection, _EVERY)]


def _values(grant: Grant) -> Row:
    return (
        grant.id,
        grant.agent_id,
        str(grant.capability),
        grant.granted_by,
        to_ms(grant.granted_at),
        ms(grant.expires_at),
        ms(grant.revoked_at),
        grant.revoked_by,
    )


def _grant(stored: Row) -> Grant:
    id_, agent_id, capability, granted_by, granted_at_ms, expires_at_ms, revoked_at_ms, revoked_by = stored
    return Grant(
        id=id_,
        agent_id=AgentId(agent_id),
        capability=parse_capability(capability),
        granted_by=granted_by,
        granted_at=from_ms(granted_at_ms),
        expires_at=moment(expires_at_ms),
        revoked_at=moment(revoked_at_ms),
        revoked_by=revoked_by,
    )
