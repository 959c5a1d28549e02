"""Proposed tools."""

import apsw
import orjson

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance.rows import Row, json_text, moment, ms, places, row, rows
from borough.core.clock import from_ms, to_ms
from borough.core.errors import Conflict, NotFound
from borough.core.ids import AgentId
from borough.governance.tools import Category, Implementation, Proposal, ProposalState, Source, Tool

_COLUMNS = "id, agent_id, tool, implementation, created_at_ms, state, decided_by, decided_at_ms, everywhere"
_ADD = f"INSERT INTO proposals ({_COLUMNS}) VALUES ({places(_COLUMNS)}) ON CONFLICT (id) DO NOTHING"
_SELECT = f"SELECT {_COLUMNS} FROM proposals"
_REPLACE = """
  UPDATE proposals SET state = ?, decided_by = ?, decided_at_ms = ?, everywhere = ?
  WHERE id = ? AND state = ? RETURNING id
"""


class SqlProposals:
    """The port ``Proposals``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, proposal: Proposal) -> None:
        """Store a proposal."""
        await self._database.write(lambda connection: rows(connection, _ADD, _values(proposal)))

    async def get(self, proposal_id: str) -> Proposal:
        """Return one."""
        found = await self._database.read(lambda connection: row(connection, f"{_SELECT} WHERE id = ?", (proposal_id,)))
        if found is None:
            raise _not_found(proposal_id)
        return _proposal(found)

    async def all(self, *, state: ProposalState | None) -> tuple[Proposal, ...]:
        """Return proposals, oldest first."""
        where, values = ("", ()) if state is None else ("WHERE state = ?", (state,))
        found = await self._database.read(
            lambda connection: rows(connection, f"{_SELECT} {where} ORDER BY number", values)
        )
        return tuple(map(_proposal, found))

    async def replace(self, proposal: Proposal, *, was: ProposalState) -> None:
        """Store a decided proposal."""
        values = (proposal.state, proposal.decided_by, ms(proposal.decided_at), int(proposal.everywhere))

        def step(connection: apsw.Connection) -> None:
            if row(connection, _REPLACE, (*values, proposal.id, was)) is None:
                if row(connection, "SELECT 1 FROM proposals WHERE id = ?", (proposal.id,)) is None:
                    raise _not_found(proposal.id)
                raise Conflict(
                    f"proposal {proposal.id} was decided already",
                    code="already_decided",
                    resolution="have the tool proposed again",
                )

        await self._database.write(step)


def _values(proposal: Proposal) -> Row:
    return (
        proposal.id,
        proposal.agent_id,
        json_text(_tool_document(proposal.tool)),
        json_text(_implementation_document(proposal.implementation)),
        to_ms(proposal.created_at),
        proposal.state,
        proposal.decided_by,
        ms(proposal.decided_at),
        int(proposal.everywhere),
    )


def _proposal(stored: Row) -> Proposal:
    id_, agent_id, tool, implementation, created_at_ms, state, decided_by, decided_at_ms, everywhere = stored
    return Proposal(
        id=id_,
        agent_id=AgentId(agent_id),
        tool=_tool(tool),
        implementation=Implementation(**orjson.loads(implementation)),
        created_at=from_ms(created_at_ms),
        state=ProposalState(state),
        decided_by=decided_by,
        decided_at=moment(decided_at_ms),
        everywhere=bool(everywhere),
    )


def _tool_document(tool: Tool) -> dict[str, object]:
    return {
        "name": tool.name,
        "description": tool.description,
        "category": tool.category,
        "input_schema": dict(tool.input_schema),
        "output_schema": dict(tool.output_schema),
        "estimated_cost_micros": tool.estimated_cost_micros,
        "requires_approval": tool.requires_approval,
        "approval_timeout_s": tool.approval_timeout_s,
        "source": tool.source,
    }


def _tool(text: str) -> Tool:
    document = orjson.loads(text)
    kinds = {"category": Category(document["category"]), "source": Source(document["source"])}
    return Tool(**{**document, **kinds})


def _implementation_document(how: Implementation) -> dict[str, object]:
    return {"kind": how.kind, "runtime": how.runtime, "code": how.code, "agent_id": how.agent_id}


def _not_found(proposal_id: str) -> NotFound:
    return NotFound(
        f"there is no proposal {proposal_id}",
        code="proposal_not_found",
        resolution="list those that are there: ash tools proposed",
    )
