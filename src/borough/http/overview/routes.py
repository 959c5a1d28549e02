"""Every row over all contexts."""

from borough.http.operations import Operation
from borough.http.overview import attention, events, explaining

OPERATIONS: tuple[Operation, ...] = (*events.OPERATIONS, *attention.OPERATIONS, *explaining.OPERATIONS)
