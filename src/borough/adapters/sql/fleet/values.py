"""Between the controller's rows and values: columns in one order, and both ways of reading them."""

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final

import apsw
import msgspec

from borough.adapters.sql.fleet.picture import Change, FleetPicture, NumberedVm
from borough.adapters.sql.fleet.rows import Row, moment, ms, rows, text
from borough.core.clock import from_ms, to_ms
from borough.fleet.environments import Environment, OnExpiry
from borough.fleet.hosts import Host, HostReport, HostState
from borough.fleet.operations import Operation, OperationKind, OperationState
from borough.fleet.vms import Vm, VmId, VmSpec, VmState
from borough.fleet.waiting import Waiting

HOST: Final = "id, addr, report, state, registered_at_ms, heard_at_ms, labels, cordoned, draining, error, revision"
ENVIRONMENT: Final = (
    "id, owner, created_at_ms, expires_at_ms, on_expiry, labels, deleting, stopped_at_ms, private_network, revision"
)
VM: Final = (
    "id, env_id, host_id, spec, state, desired, created_at_ms, since_ms, ip, port_map, error, disk_enforced, revision"
)
OPERATION: Final = "id, kind, subject, state, started_at_ms, ended_at_ms, total, done, errors, warnings, arguments"

_REPORT: Final = msgspec.json.Decoder(HostReport)
_SPEC: Final = msgspec.json.Decoder(VmSpec)
_LABELS: Final = msgspec.json.Decoder(dict[str, str])
_PORTS: Final = msgspec.json.Decoder(dict[int, int])
_WAITING: Final = msgspec.json.Decoder(Waiting)
_TEXTS: Final = msgspec.json.Decoder(tuple[str, ...])


def load(connection: apsw.Connection) -> FleetPicture:
    """Read everything of which the controller keeps a picture."""
    picture = FleetPicture()
    for found in rows(connection, f"SELECT {HOST} FROM hosts ORDER BY number"):
        picture.apply(Change("host", found[0], host_of(found)))
    for found in rows(connection, f"SELECT {ENVIRONMENT} FROM environments"):
        picture.apply(Change("environment", found[0], environment_of(found)))
    for number, *columns in rows(connection, f"SELECT number, {VM} FROM vms ORDER BY number"):
        picture.apply(Change("vm", columns[0], NumberedVm(number, vm_of(tuple(columns)))))
    for number, document in rows(connection, "SELECT number, document FROM waiting ORDER BY number"):
        waiting = waiting_of(number, document)
        picture.apply(Change("waiting", waiting.env_id, waiting))
    newest = connection.execute("SELECT coalesce(max(id), 0) FROM events").get
    picture.apply(Change("event", "", newest))
    return picture


def waiting_of(number: int, document: str) -> Waiting:
    """Return what waits of a row."""
    return replace(_WAITING.decode(document), number=number)


def host_row(host: Host) -> Row:
    """Return a host's columns."""
    return (
        host.id,
        host.addr,
        text(host.report),
        host.state,
        to_ms(host.registered_at),
        to_ms(host.heard_at),
        text(host.labels),
        int(host.cordoned),
        int(host.draining),
        host.error,
        host.revision,
    )


def host_of(found: Row) -> Host:
    """Return the host of a row."""
    id_, addr, report, state, registered_at_ms, heard_at_ms, labels, cordoned, draining, error, revision = found
    return Host(
        id=id_,
        addr=addr,
        report=_REPORT.decode(report),
        state=HostState(state),
        registered_at=from_ms(registered_at_ms),
        heard_at=from_ms(heard_at_ms),
        labels=_LABELS.decode(labels),
        cordoned=bool(cordoned),
        draining=bool(draining),
        error=error,
        revision=revision,
    )


def environment_row(environment: Environment) -> Row:
    """Return an environment's columns."""
    return (
        environment.id,
        environment.owner,
        to_ms(environment.created_at),
        to_ms(environment.expires_at),
        environment.on_expiry,
        text(environment.labels),
        int(environment.deleting),
        ms(environment.stopped_at),
        int(environment.private_network),
        environment.revision,
    )


def environment_of(found: Row) -> Environment:
    """Return the environment of a row."""
    id_, owner, created_at_ms, expires_at_ms, on_expiry, labels, deleting, stopped_at_ms, private, revision = found
    return Environment(
        id=id_,
        owner=owner,
        created_at=from_ms(created_at_ms),
        expires_at=from_ms(expires_at_ms),
        on_expiry=OnExpiry(on_expiry),
        labels=_LABELS.decode(labels),
        deleting=bool(deleting),
        stopped_at=moment(stopped_at_ms),
        private_network=bool(private),
        revision=revision,
    )


def vm_row(vm: Vm) -> Row:
    """Return a machine's columns."""
    return (
        vm.id,
        vm.env_id,
        vm.host_id,
        text(vm.spec),
        vm.state,
        vm.desired,
        to_ms(vm.created_at),
        ms(vm.since),
        None if vm.ip is None else str(vm.ip),
        text(vm.port_map),
        vm.error,
        int(vm.disk_enforced),
        vm.revision,
    )


def vm_of(found: Row) -> Vm:
    """Return the machine of a row."""
    id_, env_id, host_id, spec, state, desired, created_at_ms, since_ms, ip, ports, error, enforced, revision = found
    return Vm(
        id=VmId(id_),
        env_id=env_id,
        host_id=host_id,
        spec=_SPEC.decode(spec),
        state=VmState(state),
        desired=VmState(desired),
        created_at=from_ms(created_at_ms),
        since=moment(since_ms),
        ip=None if ip is None else IPv4Address(ip),
        port_map=_PORTS.decode(ports),
        error=error,
        disk_enforced=bool(enforced),
        revision=revision,
    )


def operation_row(operation: Operation) -> Row:
    """Return an operation's columns."""
    return (
        operation.id,
        operation.kind,
        operation.subject,
        operation.state,
        to_ms(operation.started_at),
        ms(operation.ended_at),
        operation.total,
        operation.done,
        text(operation.errors),
        text(operation.warnings),
        text(operation.arguments),
    )


def operation_of(found: Row) -> Operation:
    """Return the operation of a row."""
    id_, kind, subject, state, started_at_ms, ended_at_ms, total, done, errors, warnings, arguments = found
    return Operation(
        id=id_,
        kind=OperationKind(kind),
        subject=subject,
        state=OperationState(state),
        started_at=from_ms(started_at_ms),
        ended_at=moment(ended_at_ms),
        total=total,
        done=done,
        errors=_LABELS.decode(errors),
        warnings=_TEXTS.decode(warnings),
        arguments=_LABELS.decode(arguments),
    )
