"""Fitness: whether a host can take a machine, and why not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from borough.fleet.engines import ISOLATION, Engine
from borough.fleet.environments import Spread
from borough.fleet.hosts import Host, HostReport, HostState, strain
from borough.fleet.resources import Resource
from borough.fleet.storage import Storage
from borough.fleet.vms import Origin, VmSpec

Sources = Mapping[Storage, str]
"""Where an image can be had from: for each way of storing the first that is there and has it."""
OWN_STOCK = "the controller"


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """What the whole environment wants of its hosts."""

    spread: Spread = Spread.PACK
    labels: Mapping[str, str] = field(default_factory=dict)
    """A host must have all of these."""
    near: frozenset[str] = frozenset()
    """Only hosts that already have machines of one of these environments, where there are such."""
    apart: frozenset[str] = frozenset()
    """No host that has machines of one of these environments."""
    isolation: int = 0
    """The least wall (``engines.ISOLATION``)."""


ANYWHERE = Constraints()
"""Any host will do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One machine and what holds for where it goes."""

    spec: VmSpec
    constraints: Constraints
    tenants: Mapping[str, frozenset[str]]
    sources: Sources


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """One host for one machine."""

    host: Host
    spec: VmSpec
    constraints: Constraints
    left: Resource
    tenants: frozenset[str]


class Check(IntEnum):
    """What is asked of a host, in this order."""

    SNAPSHOT = 0
    ONLINE = 1
    OPEN = 2
    CONSTRAINTS = 3
    ENGINE = 4
    ABILITIES = 5
    ROOM = 6
    EASE = 7
    IMAGE = 8
    FORM = 9


Refused = tuple[Check, Host, Resource]
"""Which check a host did not pass, and what was left of it then."""


def _asked(wanted: Wanted, host: Host, left: Resource) -> _Question:
    there = wanted.tenants.get(host.id, frozenset())
    return _Question(host=host, spec=wanted.spec, constraints=wanted.constraints, left=left, tenants=there)


def sifted(wanted: Wanted, hosts: Sequence[Host], left: Mapping[str, Resource]) -> tuple[list[Host], list[Refused]]:
    """Return the hosts that can take the machine, and the others with the first check that each did not pass.

    It asks what ``_CHECKS`` ask, in their order, without their words: this is run for every host of every plan.
    """
    spec, size = wanted.spec, wanted.spec.size
    engine, needs = spec.engine, spec.needs
    picky, any_image = wanted.constraints != ANYWHERE, engine is Engine.DOCKER or spec.origin is not None
    fitting: list[Host] = []
    hosts, refused = _with_snapshot(spec.origin, hosts, left)
    for host in hosts:
        room, report = left[host.id], host.report
        if host.state is not HostState.ONLINE:
            failed = Check.ONLINE
        elif host.draining or host.cordoned or host.kept_for is not None:
            failed = Check.OPEN
        elif picky and _constrained(_asked(wanted, host, room)) is not None:
            failed = Check.CONSTRAINTS
        elif (offer := host.offer(engine)) is None:
            failed = Check.ENGINE
        elif not needs <= offer.capabilities:
            failed = Check.ABILITIES
        elif (
            room.mem_total - room.mem_used < size.mem_mib
            or room.cpu_total - room.cpu_used < size.cpu
            or room.disk_total - room.disk_used < size.disk_mib
        ):
            failed = Check.ROOM
        elif strain(report.pressure, mem_total_mib=room.mem_total) is not None:
            failed = Check.EASE
        elif not any_image and (lack := _imaged(report, wanted)) is not None:
            failed = lack
        else:
            fitting.append(host)
            continue
        refused.append((failed, host, room))
    return fitting, refused


def _imaged(report: HostReport, wanted: Wanted) -> Check | None:
    """Return which check of images a host does not pass."""
    spec = wanted.spec
    if spec.image not in report.images and report.storage not in wanted.sources:
        return Check.IMAGE
    return None if report.starts(spec.engine, spec.image) else Check.FORM


def _with_snapshot(
    origin: Origin | None, hosts: Sequence[Host], left: Mapping[str, Resource]
) -> tuple[Sequence[Host], list[Refused]]:
    """Return the host that has a snapshot, and the others as refused; without one, all can be asked."""
    if origin is None:
        return hosts, []
    refused: list[Refused] = [(Check.SNAPSHOT, host, left[host.id]) for host in hosts if host.id != origin.host_id]
    return [host for host in hosts if host.id == origin.host_id], refused


def _elsewhere(asked: _Question) -> str | None:
    origin = asked.spec.origin
    if origin is None or origin.host_id == asked.host.id:
        return None
    return f"the snapshot {origin.snapshot!r} of {origin.vm_id} is kept on {origin.host_id}"


def _offline(asked: _Question) -> str | None:
    return None if asked.host.state is HostState.ONLINE else "it is offline"


def _closed(asked: _Question) -> str | None:
    if asked.host.draining:
        return "it is being drained"
    if asked.host.kept_for is not None and not asked.host.cordoned:
        return f"its room is waited for by {asked.host.kept_for}, which asked before"
    return "it is cordoned" if asked.host.cordoned else None


def _engineless(asked: _Question) -> str | None:
    return None if asked.host.offer(asked.spec.engine) else f"it has no engine={asked.spec.engine.value}"


def _incapable(asked: _Question) -> str | None:
    offer = asked.host.offer(asked.spec.engine)
    lacking = asked.spec.needs - (offer.capabilities if offer else frozenset())
    if offer is None or not lacking:
        return None
    why = "; ".join(f"{lack.value}: {offer.reasons.get(lack, 'not possible there')}" for lack in sorted(lacking))
    return f"its {asked.spec.engine.value} lacks {why}"


def _roomless(asked: _Question) -> str | None:
    return None if asked.left.fits(asked.spec.size) else _room(asked.left, asked.spec)


def _strained(asked: _Question) -> str | None:
    return strain(asked.host.report.pressure, mem_total_mib=asked.left.mem_total)


def _imageless(asked: _Question) -> str | None:
    spec = asked.spec
    if spec.engine is Engine.DOCKER or spec.origin is not None or spec.image in asked.host.report.images:
        return None
    return f"it has no image {spec.image!r}, nor has another host from which it could come"


def _misformed(asked: _Question) -> str | None:
    spec, report = asked.spec, asked.host.report
    if spec.engine is Engine.DOCKER or spec.origin is not None or report.starts(spec.engine, spec.image):
        return None
    fit = ", ".join(sorted(report.image_engines[spec.image]))
    return f"its image {spec.image!r} is one that {fit} can start from, and {spec.engine.value} cannot"


def _constrained(asked: _Question) -> str | None:
    constraints, tenants = asked.constraints, asked.tenants
    if ISOLATION[asked.spec.engine] < constraints.isolation:
        return f"engine={asked.spec.engine.value} isolates less than what was asked for"
    unlike = [f"{key}={value}" for key, value in constraints.labels.items() if asked.host.labels.get(key) != value]
    if unlike:
        return f"it has no label {', '.join(unlike)}"
    if constraints.near and not tenants & constraints.near:
        return f"it has nothing of {', '.join(sorted(constraints.near))}"
    if tenants & constraints.apart:
        return f"it has machines of {', '.join(sorted(tenants & constraints.apart))}"
    return None


_CHECKS: Mapping[Check, tuple[Callable[[_Question], str | None], str]] = {
    Check.SNAPSHOT: (_elsewhere, "the host that has the snapshot is not here any more"),
    Check.ONLINE: (_offline, "no online hosts"),
    Check.OPEN: (_closed, "no online hosts that take anything new: all are cordoned, drained, or waited for"),
    Check.CONSTRAINTS: (_constrained, "no host meets the constraints of the environment"),
    Check.ENGINE: (_engineless, "no host has engine={engine}"),
    Check.ABILITIES: (_incapable, "no host's engine={engine} can do what was asked for"),
    Check.ROOM: (_roomless, "no host has enough resources for engine={engine} cpu={cpu} mem={mem} disk={disk}"),
    Check.EASE: (
        _strained,
        "no host has enough resources to spare for engine={engine} cpu={cpu} mem={mem} disk={disk} just now",
    ),
    Check.IMAGE: (_imageless, "no host that has room has the image {image!r}"),
    Check.FORM: (_misformed, "no host's image {image!r} is one that engine={engine} can start from"),
}
"""Why a host does not pass, and what is told when that is as far as any host came."""


def _room(left: Resource, spec: VmSpec) -> str:
    size = spec.size
    short = [
        f"{what} {have} of {want} needed"
        for what, have, want in (
            ("cpu", left.cpu_free, size.cpu),
            ("mem", left.mem_free, size.mem_mib),
            ("disk", left.disk_free, size.disk_mib),
        )
        if have < want
    ]
    return f"too little is free: {', '.join(short)}"


def sources_of(image: str, engine: Engine, hosts: Sequence[Host], stock: frozenset[str] = frozenset()) -> Sources:
    """Return where an image for an engine can be had from; it travels to hosts that store images alike, and is proven
    there.
    """
    found: dict[Storage, str] = {Storage.FILE: OWN_STOCK} if image in stock else {}
    for host in hosts:
        report = host.report
        travels = image in report.image_digests and image not in report.own_images
        if host.state is HostState.ONLINE and travels and report.starts(engine, image):
            found.setdefault(report.storage, host.id)
    return found


def why_not(wanted: Wanted, refused: Refused) -> str:
    """Return why a host does not take the machine."""
    check, host, left = refused
    told = _CHECKS[check][0](_asked(wanted, host, left))
    if told is None:
        raise RuntimeError(f"{host.id} was refused without a reason")
    return told


def in_the_way(spec: VmSpec, furthest: Check) -> str:
    """Return what stands in the way on the hosts that came furthest."""
    size = spec.size
    return _CHECKS[furthest][1].format(
        engine=spec.engine.value, cpu=size.cpu, mem=size.mem_mib, disk=size.disk_mib, image=spec.image
    )
