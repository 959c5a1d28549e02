"""What the fleet's rows share: query structs, ids, flags and tables of errors."""

from typing import Annotated, Literal, TypeVar

from msgspec import Meta, Struct, field

from borough.core.ids import derived_id
from borough.core.paging import DEFAULT_LIMIT, MAX_LIMIT, PageRequest, decode_cursor, encode_cursor
from borough.fleet.operations import Operation as FleetOperation
from borough.fleet.vms import VmId, vm_id_of
from borough.governance.hosts import parse_allowed
from borough.http.fleet import render
from borough.http.fleet.dialect import data
from borough.http.operations import Call, Reply

Flag = Literal["1", "true", "0", "false"]
Limit = Annotated[int, Meta(ge=1, le=MAX_LIMIT)]
Ticket = Annotated[str, Meta(description="instead of the header, for browsers; the controller gives it")]
Value = TypeVar("Value")

NAME_ERRORS = {"invalid_name": 400, "invalid_labels": 400, "invalid_lifetime": 400}
SPEC_ERRORS = {
    "invalid_size": 400,
    "invalid_port": 400,
    "invalid_ssh_key": 400,
    "unknown_capability": 400,
    "invalid_host": 400,
}
ENV_ERRORS = {"env_not_found": 404}
VM_ERRORS = {"vm_not_found": 404}
HOST_ERRORS = {"host_not_found": 404}
CALL_ERRORS = {
    "host_unreachable": 502,
    "host_timeout": 504,
    "host_failed": 502,
    "host_refused_key": 502,
    "host_certificate_changed": 502,
    "host_tls_failed": 502,
    "not_a_host": 502,
    "engine_failed": 502,
    "engine_missing": 422,
    "create_failed": 502,
    "not_yet_removed": 502,
    "operation_failed": 502,
}
"""What may go wrong between the controller and a host, and on the host: the gateway's answers."""
GUEST_ERRORS = {
    **VM_ERRORS,
    **CALL_ERRORS,
    "vm_not_running": 409,
    "not_possible": 409,
    "illegal_state": 409,
    "stale_vm": 409,
    "no_room": 409,
}


class Nothing(Struct, kw_only=True):
    """A query of the reference: whatever else is in it is ignored."""


class ByTicket(Struct, kw_only=True, forbid_unknown_fields=True):
    """How browsers get in."""

    ticket: Ticket | None = None


class Later(Struct, kw_only=True):
    """Whether the caller waits."""

    later: Flag = field(name="async", default="0")


class PageQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """Which page."""

    limit: Limit = DEFAULT_LIMIT
    cursor: str | None = None


class OptionalPage(Struct, kw_only=True):
    """Which page; without a limit there is one page with everything, as the reference has it."""

    limit: Limit | None = None
    cursor: str | None = None


def is_set(flag: str) -> bool:
    """Tell whether a flag of a query says yes."""
    return flag in {"1", "true"}


def egress_lines(lines: list[str]) -> tuple[str, ...]:
    """Return an egress list in its one spelling; raises ``Invalid`` (``invalid_port``, ``invalid_host``)."""
    return tuple(str(parse_allowed(line)) for line in lines)


def accepted(operation: FleetOperation) -> Reply:
    """Return the answer to what has begun and goes on without its caller."""
    headers = {"location": f"/api/operations/{operation.id}"}
    return Reply(status=202, body=data(render.operation_view(operation)), headers=headers)


def vm_id(call: Call) -> VmId:
    """Return the machine that the path names; it is only looked up."""
    return VmId(call.path["id"])


def vm_ids(call: Call, count: int) -> tuple[VmId, ...]:
    """Return the ids of the machines that a request makes: the same when it is repeated."""
    return tuple(vm_id_of(derived_id(call.operation_key, "vm", str(number))) for number in range(count))


def operation_id(call: Call) -> str:
    """Return the id of the operation that a request begins."""
    return derived_id(call.operation_key, "operation")


def page_request(limit: int | None, cursor: str | None, *, most: int = MAX_LIMIT) -> PageRequest:
    """Return the page that was asked for; raises ``Invalid`` (``invalid_cursor``)."""
    return PageRequest(limit=most if limit is None else limit, after=decode_cursor(cursor) if cursor else "")


def paged(value: list[Value], after: str | None, *, limit: int | None = None) -> Reply:
    """Return a page with the address of the next one in ``Link``."""
    headers: dict[str, str] = {}
    if after is not None:
        headers["link"] = f'<?limit={limit or MAX_LIMIT}&cursor={encode_cursor(after)}>; rel="next"'
    return Reply(status=200, body=data(value), headers=headers)
