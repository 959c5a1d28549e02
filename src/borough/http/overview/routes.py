"""Every row over all contexts."""

from borough.http.operations import Operation
from borough.http.overview import attention, events, evidence, explaining, figures

OPERATIONS: tuple[Operation, ...] = (
    *events.OPERATIONS,
    *attention.OPERATIONS,
    *explaining.OPERATIONS,
    *evidence.OPERATIONS,
    *figures.OPERATIONS,
)
