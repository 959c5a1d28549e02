"""The whole controller: every row of its operation table."""

from borough.http.fleet import about, envs, guests, history, hosts, terminals, tickets, vms
from borough.http.operations import Operation

OPERATIONS: tuple[Operation, ...] = (
    *about.PAGE,
    *about.PUBLIC,
    *hosts.OPERATIONS,
    *envs.OPERATIONS,
    *vms.OPERATIONS,
    *guests.OPERATIONS,
    *terminals.OPERATIONS,
    *about.OPERATIONS,
    *tickets.OPERATIONS,
    *history.OPERATIONS,
)
