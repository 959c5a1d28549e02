"""Every row over all contexts."""

from borough.http.operations import Operation
from borough.http.overview import attention, events, evidence, explaining

OPERATIONS: tuple[Operation, ...] = (
    *events.OPERATIONS,
    *attention.OPERATIONS,
    *explaining.OPERATIONS,
    *evidence.OPERATIONS,
)
