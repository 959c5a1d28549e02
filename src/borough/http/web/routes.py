"""The dashboard: every row of its operation table."""

from borough.http.operations import Operation
from borough.http.web import assets, signing_in

OPERATIONS: tuple[Operation, ...] = (*assets.OPERATIONS, *signing_in.OPERATIONS)
