"""The whole gateway: every row of its operation table."""

from borough.http.governance import (
    agents,
    approvals,
    audit,
    blackboard,
    bus,
    escalations,
    events,
    grants,
    health,
    hierarchy,
    mcp,
    memory,
    messages,
    observations,
    policy,
    proofs,
    proposals,
    schedule,
    secrets,
    status,
    store,
    tokens,
    tools,
    workspaces,
)
from borough.http.governance.cors import of_routes
from borough.http.operations import Operation

AGENTS: tuple[Operation, ...] = (
    *agents.OPERATIONS,
    *messages.OPERATIONS,
    *hierarchy.OPERATIONS,
    *schedule.OPERATIONS,
    *store.OPERATIONS,
    *workspaces.OPERATIONS,
)
RECORDS: tuple[Operation, ...] = (
    *audit.OPERATIONS,
    *proofs.OPERATIONS,
    *events.OPERATIONS,
    *memory.OPERATIONS,
    *observations.OPERATIONS,
    *blackboard.OPERATIONS,
    *bus.OPERATIONS,
    *secrets.OPERATIONS,
    *tokens.OPERATIONS,
)

TOOLS: tuple[Operation, ...] = (
    *tools.OPERATIONS,
    *proposals.OPERATIONS,
    *approvals.OPERATIONS,
    *grants.OPERATIONS,
    *escalations.OPERATIONS,
    *policy.OPERATIONS,
    *mcp.OPERATIONS,
)

OPERATIONS: tuple[Operation, ...] = (*health.OPERATIONS, *status.OPERATIONS, *AGENTS, *TOOLS, *RECORDS)

MCP_PATH = "/mcp"
"""Where an agent's tools are served by the Model Context Protocol."""
_is_row = of_routes(OPERATIONS)


def is_gateways(path: str) -> bool:
    """Tell whether a request for ``path`` is for the gateway, where others are served on the same port."""
    return path == MCP_PATH or _is_row(path)
