"""All of governance's stores in one file, opened together."""

from dataclasses import dataclass

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance.agent_store import SqlAgentStore
from borough.adapters.sql.governance.agents import SqlAgents
from borough.adapters.sql.governance.approvals import SqlApprovals
from borough.adapters.sql.governance.courses import SqlCourses
from borough.adapters.sql.governance.escalations import SqlEscalations
from borough.adapters.sql.governance.grants import SqlGrants
from borough.adapters.sql.governance.mcp_definitions import SqlMcpDefinitions
from borough.adapters.sql.governance.memory import SqlMemory
from borough.adapters.sql.governance.observations import SqlObservations
from borough.adapters.sql.governance.proposals import SqlProposals
from borough.adapters.sql.governance.secrets import SqlSecrets
from borough.adapters.sql.governance.tool_pins import SqlToolPins


@dataclass(frozen=True, slots=True, kw_only=True)
class GovernanceStores:
    """The stores of one file."""

    agents: SqlAgents
    courses: SqlCourses
    grants: SqlGrants
    agent_store: SqlAgentStore
    mcp_definitions: SqlMcpDefinitions
    approvals: SqlApprovals
    proposals: SqlProposals
    escalations: SqlEscalations
    tool_pins: SqlToolPins
    memory: SqlMemory
    observations: SqlObservations
    secrets: SqlSecrets


async def open_stores(database: Database) -> GovernanceStores:
    """Return the stores in a file that was opened with ``tables.MIGRATIONS``."""
    grants = await SqlGrants.open(database)
    return GovernanceStores(
        agents=await SqlAgents.open(database, grants),
        courses=await SqlCourses.open(database),
        grants=grants,
        agent_store=SqlAgentStore(database),
        mcp_definitions=SqlMcpDefinitions(database),
        approvals=SqlApprovals(database),
        proposals=SqlProposals(database),
        escalations=SqlEscalations(database),
        tool_pins=SqlToolPins(database),
        memory=SqlMemory(database),
        observations=SqlObservations(database),
        secrets=SqlSecrets(database),
    )
