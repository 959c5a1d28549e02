"""The whole gateway: every row of its operation table."""

from borough.http.governance import health
from borough.http.operations import Operation

OPERATIONS: tuple[Operation, ...] = (*health.OPERATIONS,)
