"""All of governance's stores in one file, opened together."""

from dataclasses import dataclass

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance.agent_store import SqlAgentStore
from borough.adapters.sql.governance.agents import SqlAgents
from borough.adapters.sql.governance.approvals import SqlApprovals
from borough.adapters.sql.governance.grants import SqlGrants
from borough.adapters.sql.governance.mcp_definitions import SqlMcpDefinitions
from borough.adapters.sql.governance.memory import SqlMemory
from borough.adapters.sql.governance.observations import SqlObservations
from borough.adapters.sql.governance.proposals import SqlProposals
from borough.adapters.sql.governance.secrets import SqlSecrets


@dataclass(frozen=True, slots=True, kw_only=True)
class GovernanceStores:
    """The stores of one file."""

    agents: SqlAgents
    grants: SqlGrants
    agent_store: SqlAgentStore
    mcp_definitions: SqlMcpDefinitions
    approvals: SqlApprovals
    proposals: SqlProposals
    memory: SqlMemory
    observations: SqlObservations
    secrets: SqlSecrets


async def open_stores(database: Database) -> GovernanceStores:
    """Return the stores in a file that was opened with ``tables.MIGRATIONS``."""
    grants = await SqlGrants.open(database)
    return GovernanceStores(
        agents=await SqlAgents.open(database, grants),
        grants=grants,
        agent_store=SqlAgentStore(database),
        mcp_definitions=SqlMcpDefinitions(database),
        approvals=SqlApprovals(database),
        proposals=SqlProposals(database),
        memory=SqlMemory(database),
        observations=SqlObservations(database),
        secrets=SqlSecrets(database),
    )
