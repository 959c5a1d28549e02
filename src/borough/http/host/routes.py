"""The whole host daemon: every row of its operation table."""

from borough.http.fleet import guests, terminals
from borough.http.host import about, images, machines
from borough.http.operations import Operation

OPERATIONS: tuple[Operation, ...] = (
    *about.OPERATIONS,
    *images.OPERATIONS,
    *machines.OPERATIONS,
    *guests.OPERATIONS,
    *terminals.OPERATIONS,
)
