"""The whole gateway: every row of its operation table."""

from borough.http.governance import agents, hierarchy, schedule, store, workspaces
from borough.http.operations import Operation

OPERATIONS: tuple[Operation, ...] = (
    *agents.OPERATIONS,
    *hierarchy.OPERATIONS,
    *schedule.OPERATIONS,
    *store.OPERATIONS,
    *workspaces.OPERATIONS,
)
