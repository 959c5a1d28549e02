"""From the fleet's values to its wire. ``strict`` leaves out what the reference does not have."""

from datetime import datetime
from typing import TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from borough.core.clock import rfc3339
from borough.core.events import Event
from borough.fleet.engines import REFERENCE_ENGINES, Engine
from borough.fleet.environments import reference_state
from borough.fleet.hosts import Host, HostReport, Pressure
from borough.fleet.operations import Operation
from borough.fleet.orders import EnvDetail
from borough.fleet.placement import NotPlaced, Placed, Plan
from borough.fleet.ports.engines import Chunk, FileEntry, MachineStats, SnapshotInfo, Stream
from borough.fleet.ports.fleet import Totals
from borough.fleet.resources import Resource
from borough.fleet.services.images import HostedImage
from borough.fleet.vms import REFERENCE_STATES, Vm
from borough.http.fleet import guest_wire, wire

Value = TypeVar("Value")
_CLOSEST = {Engine.BUBBLEWRAP: Engine.DOCKER}
"""What the reference's clients are told instead of an engine that they do not know."""


def seconds(at: datetime) -> int:
    """Return a moment as the reference has it."""
    return int(at.timestamp())


def some(value: Value | None) -> Value | UnsetType:
    """Return ``value``, or what leaves the member out."""
    return UNSET if value is None else value


def resource_view(resource: Resource) -> wire.Resource:
    """Return what a host has and what is promised."""
    return msgspec.convert(resource, wire.Resource, from_attributes=True)


def host_view(host: Host, *, strict: bool) -> wire.Host:
    """Return a host."""
    report = host.report
    shown = wire.Host(
        id=host.id,
        addr=host.addr,
        resource=resource_view(report.resource),
        state=host.state.value,
        engines=engine_names(report.engines, strict=strict),
        storage=report.storage.value,
        registered_at=seconds(host.registered_at),
    )
    if strict:
        return shown
    shown.heard_at = seconds(host.heard_at)
    shown.labels = dict(host.labels)
    shown.cordoned = host.cordoned
    shown.draining = host.draining
    shown.error = some(host.error)
    shown.offers = offers_view(report)
    shown.images = list(report.images)
    shown.pressure = pressure_view(report.pressure)
    shown.warnings = list(report.warnings)
    return shown


def offers_view(report: HostReport) -> list[wire.Offer]:
    """Return a host's engines with what each can do there."""
    return [
        wire.Offer(
            engine=offer.engine.value,
            version=offer.version,
            capabilities=sorted(offer.capabilities),
            reasons={capability.value: why for capability, why in offer.reasons.items()},
            acceleration=some(offer.acceleration),
        )
        for offer in report.offers
    ]


def pressure_view(pressure: Pressure) -> wire.Pressure:
    """Return how a host feels."""
    return wire.Pressure(
        memory_some_avg10=pressure.memory_some_avg10,
        cpu_some_avg10=pressure.cpu_some_avg10,
        io_some_avg10=pressure.io_some_avg10,
        memory_available_mib=some(pressure.memory_available_mib),
        disk_free_mib=some(pressure.disk_free_mib),
    )


def engine_names(engines: tuple[Engine, ...], *, strict: bool) -> list[str]:
    """Return engines in the order in which the host tells them."""
    return [engine.value for engine in engines if not strict or engine in REFERENCE_ENGINES]


def vm_view(vm: Vm, *, strict: bool) -> wire.Vm:
    """Return a machine."""
    spec, size = vm.spec, vm.spec.size
    shown = wire.Vm(
        id=vm.id,
        env_id=vm.env_id,
        host_id=vm.host_id,
        image=spec.image,
        engine=(_CLOSEST.get(spec.engine, spec.engine) if strict else spec.engine).value,
        cpu=size.cpu,
        mem=size.mem_mib,
        disk=size.disk_mib,
        ip="" if vm.ip is None else str(vm.ip),
        port_map=dict(sorted(vm.port_map.items())),
        state=(REFERENCE_STATES.get(vm.state, vm.state) if strict else vm.state).value,
        created_at=seconds(vm.created_at),
    )
    if strict:
        return shown
    shown.desired = vm.desired.value
    shown.since = UNSET if vm.since is None else seconds(vm.since)
    shown.error = some(vm.error)
    shown.disk_limit = "enforced" if vm.disk_enforced else "advisory"
    shown.deny_outgoing = spec.deny_outgoing
    shown.egress_allowlist = list(spec.egress_allowlist) or UNSET
    if spec.origin is not None:
        shown.origin = wire.Origin(vm_id=spec.origin.vm_id, snapshot=spec.origin.snapshot)
    return shown


def env_view(detail: EnvDetail, *, strict: bool) -> wire.Env:
    """Return an environment."""
    environment = detail.environment
    shown = wire.Env(
        id=environment.id,
        owner=environment.owner,
        vm_ids=[vm.id for vm in detail.vms],
        created_at=seconds(environment.created_at),
        expires_at=seconds(environment.expires_at),
        state=reference_state(detail.state) if strict else detail.state.value,
    )
    if strict:
        return shown
    shown.on_expiry = environment.on_expiry.value
    shown.labels = dict(environment.labels)
    shown.private_network = environment.private_network
    return shown


def detail_view(detail: EnvDetail, *, strict: bool) -> wire.EnvDetail:
    """Return an environment with its machines."""
    return wire.EnvDetail(
        env=env_view(detail, strict=strict),
        vms=[vm_view(vm, strict=strict) for vm in detail.vms],
        warnings=list(detail.warnings) or UNSET,
        operation_id=UNSET if strict or detail.operation is None else detail.operation.id,
    )


def image_view(image: HostedImage, *, strict: bool) -> wire.Image:
    """Return an image on a host."""
    return wire.Image(name=image.name, host_id=image.host_id, digest=UNSET if strict else some(image.digest))


def status_view(totals: Totals) -> wire.Status:
    """Return the sums."""
    return msgspec.convert(totals, wire.Status, from_attributes=True)


def preview(plan: Plan | NotPlaced) -> wire.Preview:
    """Return what would be done."""
    if isinstance(plan, Plan):
        return wire.Preview(placed=[_placed(each) for each in plan.placed])
    return wire.Preview(
        placed=[], refused=plan.reason, number=plan.number, hosts=dict(plan.hosts), later=sorted(plan.later)
    )


def _placed(placed: Placed) -> wire.PlacedVm:
    spec = placed.spec
    return wire.PlacedVm(
        image=spec.image,
        engine=spec.engine.value,
        host_id=placed.host_id,
        why=placed.why,
        others=dict(placed.others),
    )


def operation_view(operation: Operation) -> wire.Operation:
    """Return an operation."""
    return wire.Operation(
        id=operation.id,
        kind=operation.kind.value,
        subject=operation.subject,
        state=operation.state.value,
        started_at=seconds(operation.started_at),
        total=operation.total,
        done=operation.done,
        errors=dict(operation.errors),
        warnings=list(operation.warnings) or UNSET,
        ended_at=UNSET if operation.ended_at is None else seconds(operation.ended_at),
        doing=UNSET if operation.doing is None else operation.doing,
    )


def event_view(event: Event) -> wire.Event:
    """Return an event."""
    return wire.Event(
        id=event.id, type=event.type, at=rfc3339(event.at), message=event.message, subjects=dict(event.subjects)
    )


def chunk_view(chunk: Chunk) -> guest_wire.Chunk:
    """Return a part of what a command prints."""
    if chunk.stream is Stream.EXIT:
        return guest_wire.Chunk(stream="exit", exit_code=some(chunk.exit_code))
    return guest_wire.Chunk(stream="stdout" if chunk.stream is Stream.STDOUT else "stderr", data=chunk.data)


def file_view(entry: FileEntry) -> guest_wire.FileEntry:
    """Return one name of a folder."""
    return guest_wire.FileEntry(
        name=entry.name, path=entry.path, is_dir=entry.is_dir, size=entry.size, modified=seconds(entry.modified)
    )


def stats_view(stats: MachineStats) -> guest_wire.Stats:
    """Return what a machine uses."""
    return guest_wire.Stats(**{name: some(getattr(stats, name)) for name in guest_wire.Stats.__struct_fields__})


def snapshot_view(snapshot: SnapshotInfo) -> guest_wire.Snapshot:
    """Return a state that can be returned to."""
    return guest_wire.Snapshot(
        name=snapshot.name,
        created_at=seconds(snapshot.created_at),
        size_bytes=snapshot.size_bytes,
        with_memory=snapshot.with_memory,
    )
