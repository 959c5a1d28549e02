"""The whole gateway: every row of its operation table."""

from borough.http.governance import (
    agents,
    audit,
    blackboard,
    bus,
    events,
    health,
    hierarchy,
    memory,
    observations,
    proofs,
    schedule,
    secrets,
    status,
    store,
    tokens,
    workspaces,
)
from borough.http.operations import Operation

AGENTS: tuple[Operation, ...] = (
    *agents.OPERATIONS,
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

OPERATIONS: tuple[Operation, ...] = (*health.OPERATIONS, *status.OPERATIONS, *AGENTS, *RECORDS)
