"""Every row over all contexts."""

from borough.http.operations import Operation
from borough.http.overview import attention, events

OPERATIONS: tuple[Operation, ...] = (*events.OPERATIONS, *attention.OPERATIONS)
