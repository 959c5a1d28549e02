"""Escalations."""

import apsw
import orjson

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance.rows import Row, json_text, moment, ms, places, row, rows
from borough.core.clock import from_ms, to_ms
from borough.core.errors import Conflict, NotFound
from borough.core.ids import AgentId
from borough.governance.escalations import Escalation, EscalationKind, EscalationState

_COLUMNS = (
    "id, from_agent_id, to_agent_id, kind, detail, created_at_ms, capability, ttl_s, state, passed_by, "
    "resolved_by, resolved_at_ms"
)
_ADD = f"INSERT INTO escalations ({_COLUMNS}) VALUES ({places(_COLUMNS)}) ON CONFLICT (id) DO NOTHING"
_SELECT = f"SELECT {_COLUMNS} FROM escalations"
_REPLACE = """
  UPDATE escalations SET to_agent_id = ?, state = ?, passed_by = ?, resolved_by = ?, resolved_at_ms = ?
  WHERE id = ? AND state = ? AND to_agent_id IS ? RETURNING id
"""


class SqlEscalations:
    """The port ``Escalations``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, escalation: Escalation) -> None:
        """Store an escalation."""
        await self._database.write(lambda connection: rows(connection, _ADD, _values(escalation)))

    async def get(self, escalation_id: str) -> Escalation:
        """Return one."""
        found = await self._database.read(
            lambda connection: row(connection, f"{_SELECT} WHERE id = ?", (escalation_id,))
        )
        if found is None:
            raise _not_found(escalation_id)
        return _escalation(found)

    async def open(self) -> tuple[Escalation, ...]:
        """Return what waits for a decision, oldest first."""
        found = await self._database.read(
            lambda connection: rows(connection, f"{_SELECT} WHERE state = 'open' ORDER BY number")
        )
        return tuple(map(_escalation, found))

    async def replace(self, escalation: Escalation, *, was: Escalation) -> None:
        """Store a changed escalation."""
        values = (
            escalation.to_agent_id,
            escalation.state,
            json_text(list(escalation.passed_by)),
            escalation.resolved_by,
            ms(escalation.resolved_at),
        )

        def step(connection: apsw.Connection) -> None:
            if row(connection, _REPLACE, (*values, escalation.id, was.state, was.to_agent_id)) is None:
                if row(connection, "SELECT 1 FROM escalations WHERE id = ?", (escalation.id,)) is None:
                    raise _not_found(escalation.id)
                raise Conflict(
                    f"escalation {escalation.id} was decided or passed on already",
                    code="already_decided",
                    resolution="list what waits: ash hierarchy escalations",
                )

        await self._database.write(step)


def _values(escalation: Escalation) -> Row:
    return (
        escalation.id,
        escalation.from_agent_id,
        escalation.to_agent_id,
        escalation.kind,
        escalation.detail,
        to_ms(escalation.created_at),
        escalation.capability,
        escalation.ttl_s,
        escalation.state,
        json_text(list(escalation.passed_by)),
        escalation.resolved_by,
        ms(escalation.resolved_at),
    )


def _escalation(stored: Row) -> Escalation:
    (id_, sender, to, kind, detail, created_at_ms, capability, ttl_s, state, passed_by, by, resolved_at_ms) = stored
    return Escalation(
        id=id_,
        from_agent_id=AgentId(sender),
        to_agent_id=None if to is None else AgentId(to),
        kind=EscalationKind(kind),
        detail=detail,
        created_at=from_ms(created_at_ms),
        capability=capability,
        ttl_s=ttl_s,
        state=EscalationState(state),
        passed_by=tuple(map(AgentId, orjson.loads(passed_by))),
        resolved_by=by,
        resolved_at=moment(resolved_at_ms),
    )


def _not_found(escalation_id: str) -> NotFound:
    return NotFound(
        f"there is no escalation {escalation_id}",
        code="escalation_not_found",
        resolution="list those that wait: ash hierarchy escalations",
    )
