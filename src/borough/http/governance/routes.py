"""The whole gateway: every row of its operation table."""

from borough.http.governance import approvals, escalations, grants, mcp, policy, proposals, tools
from borough.http.operations import Operation

OPERATIONS: tuple[Operation, ...] = (
    *tools.OPERATIONS,
    *proposals.OPERATIONS,
    *approvals.OPERATIONS,
    *grants.OPERATIONS,
    *escalations.OPERATIONS,
    *policy.OPERATIONS,
    *mcp.OPERATIONS,
)
