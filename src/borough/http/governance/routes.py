"""The whole gateway: every row of its operation table."""

from borough.http.governance import (
    audit,
    blackboard,
    bus,
    events,
    health,
    memory,
    observations,
    proofs,
    secrets,
    tokens,
)
from borough.http.operations import Operation

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

OPERATIONS: tuple[Operation, ...] = (*health.OPERATIONS, *RECORDS)
