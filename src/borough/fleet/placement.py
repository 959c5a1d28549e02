"""Placement: which host takes which machine, as a pure function that can always say why.

Best fit: of the hosts that can take a machine, the one with the least free memory, so that large machines find room
later; with ``spread``, the one that has the fewest of this environment. Every host that was not chosen has its reason.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from borough.core.errors import Invalid
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A machine with its host."""

    spec: VmSpec
    host_id: str
    why: str
    others: Mapping[str, str]
    """Host → why it was not taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotPlaced:
    """The first machine for which there is no host."""

    number: int
    spec: VmSpec
    reason: str
    hosts: Mapping[str, str]
    """Host → why not."""
    later: frozenset[str] = frozenset()
    """Hosts that could take it if they had room; filled in where a plan is only asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A host for every machine, in the order in which they were asked for."""

    placed: tuple[Placed, ...]


def place(
    specs: Sequence[VmSpec],
    hosts: Sequence[Host],
    constraints: Constraints = Constraints(),
    *,
    tenants: Mapping[str, frozenset[str]] | None = None,
    stock: frozenset[str] = frozenset(),
) -> Plan | NotPlaced:
    """Return a host for every machine, or why there is none for the first that has none.

    ``tenants`` tells for each host the environments that have machines on it, ``stock`` the controller's own images.
    ``hosts`` carry what is promised already; the promises of this very plan are counted on the way.
    """
    left = {host.id: host.report.resource for host in hosts}
    there = tenants or {}
    sources: dict[tuple[str, Engine], Sources] = {}
    taken: Counter[str] = Counter()
    placed: list[Placed] = []
    for number, spec in enumerate(specs):
        start = spec.image, spec.engine
        if start not in sources:
            sources[start] = sources_of(*start, hosts, stock)
        wanted = _Wanted(spec=spec, constraints=constraints, tenants=there, sources=sources[start])
        fitting, refused = _sifted(wanted, hosts, left)
        if not fitting:
            furthest = max((rank for rank, _, _ in refused), default=_NOBODY)
            reasons = Reasons(wanted, refused)
            return NotPlaced(number=number, spec=spec, reason=_reason(spec, furthest), hosts=reasons)
        chosen = min(fitting, key=lambda host: _order(host, spec, constraints.spread, left, taken))
        rule = _RULES[constraints.spread] if spec.origin is None else "it has the snapshot"
        why = f"{rule}: {left[chosen.id].mem_free} MiB free{_brought(chosen, wanted)}"
        others = Reasons(wanted, refused, chosen.id, tuple(host.id for host in fitting))
        placed.append(Placed(spec=spec, host_id=chosen.id, why=why, others=others))
        left[chosen.id] = left[chosen.id].with_one_more(spec.size)
        taken[chosen.id] += 1
    return Plan(placed=tuple(placed))


def candidates(
    specs: Sequence[VmSpec],
    hosts: Sequence[Host],
    constraints: Constraints,
    *,
    tenants: Mapping[str, frozenset[str]],
    stock: frozenset[str] = frozenset(),
) -> frozenset[str]:
    """Return the hosts that could take one of the machines if they were empty and at ease."""
    empty = {host.id: replace(host.report.resource, cpu_used=0, mem_used=0, disk_used=0) for host in hosts}
    found: set[str] = set()
    for spec in specs:
        sources = sources_of(spec.image, spec.engine, hosts, stock)
        wanted = _Wanted(spec=spec, constraints=constraints, tenants=tenants, sources=sources)
        fitting, refused = _sifted(wanted, hosts, empty)
        found |= {host.id for host in fitting} | {host.id for rank, host, _ in refused if rank == _STRAINED}
    return frozenset(found)


def unplaceable(failure: NotPlaced) -> Invalid:
    """Return the error for machines that find no host."""
    return Invalid(
        failure.reason,
        code="unschedulable",
        reason="; ".join(f"{host}: {reason}" for host, reason in failure.hosts.items()) or None,
        resolution="add a host, ask for less, or delete environments that are not needed",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
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


_Refused = tuple[int, Host, Resource]
"""Which check a host did not pass, and what was left of it then."""


class Reasons(Mapping[str, str]):
    """Host → why it was not chosen; put into words when somebody reads it, since most plans go well."""

    __slots__ = ("_chosen", "_fitting", "_refused", "_wanted")

    def __init__(
        self, wanted: _Wanted, refused: Sequence[_Refused], chosen: str = "", fitting: Sequence[str] = ()
    ) -> None:
        self._wanted = wanted
        self._refused = {host.id: (rank, host, left) for rank, host, left in refused}
        self._chosen = chosen
        self._fitting = dict.fromkeys(host_id for host_id in fitting if host_id != chosen)

    def __getitem__(self, host_id: str) -> str:
        """Return why a host was not chosen."""
        if host_id not in self._refused:
            if host_id not in self._fitting:
                raise KeyError(host_id)
            return f"it fits, but {self._chosen} fits better"
        rank, host, left = self._refused[host_id]
        told = _CHECKS[rank][0](_asked(self._wanted, host, left))
        if told is None:
            raise RuntimeError(f"{host_id} was refused without a reason")
        return told

    def __iter__(self) -> Iterator[str]:
        """Yield the hosts that were not chosen, the refused first."""
        yield from self._refused
        yield from self._fitting

    def __len__(self) -> int:
        """Return how many hosts were not chosen."""
        return len(self._refused) + len(self._fitting)


def _asked(wanted: _Wanted, host: Host, left: Resource) -> _Question:
    there = wanted.tenants.get(host.id, frozenset())
    return _Question(host=host, spec=wanted.spec, constraints=wanted.constraints, left=left, tenants=there)


def _sifted(wanted: _Wanted, hosts: Sequence[Host], left: Mapping[str, Resource]) -> tuple[list[Host], list[_Refused]]:
    """Return the hosts that can take the machine, and the others with the first check that each did not pass.

    It asks what ``_CHECKS`` ask, in their order, without their words: this is run for every host of every plan.
    """
    spec, size = wanted.spec, wanted.spec.size
    engine, needs = spec.engine, spec.needs
    picky, any_image = wanted.constraints != _ANYWHERE, engine is Engine.DOCKER or spec.origin is not None
    fitting: list[Host] = []
    hosts, refused = _with_snapshot(spec.origin, hosts, left)
    for host in hosts:
        room, report = left[host.id], host.report
        if host.state is not HostState.ONLINE:
            rank = 1
        elif host.draining or host.cordoned or host.kept_for is not None:
            rank = 2
        elif picky and _constrained(_asked(wanted, host, room)) is not None:
            rank = 3
        elif (offer := host.offer(engine)) is None:
            rank = 4
        elif not needs <= offer.capabilities:
            rank = 5
        elif (
            room.mem_total - room.mem_used < size.mem_mib
            or room.cpu_total - room.cpu_used < size.cpu
            or room.disk_total - room.disk_used < size.disk_mib
        ):
            rank = 6
        elif strain(report.pressure, mem_total_mib=room.mem_total) is not None:
            rank = 7
        elif not any_image and (rank := _imaged(report, wanted)):
            pass
        else:
            fitting.append(host)
            continue
        refused.append((rank, host, room))
    return fitting, refused


def _imaged(report: HostReport, wanted: _Wanted) -> int:
    """Return which check of images a host does not pass, 0 when it passes them."""
    spec = wanted.spec
    if spec.image not in report.images and report.storage not in wanted.sources:
        return 8
    return 0 if report.starts(spec.engine, spec.image) else 9


def _with_snapshot(
    origin: Origin | None, hosts: Sequence[Host], left: Mapping[str, Resource]
) -> tuple[Sequence[Host], list[_Refused]]:
    """Return the host that has a snapshot, and the others as refused; without one, all can be asked."""
    if origin is None:
        return hosts, []
    refused: list[_Refused] = [(0, host, left[host.id]) for host in hosts if host.id != origin.host_id]
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


_CHECKS: tuple[tuple[Callable[[_Question], str | None], str], ...] = (
    (_elsewhere, "the host that has the snapshot is not here any more"),
    (_offline, "no online hosts"),
    (_closed, "no online hosts that take anything new: all are cordoned, drained, or waited for"),
    (_constrained, "no host meets the constraints of the environment"),
    (_engineless, "no host has engine={engine}"),
    (_incapable, "no host's engine={engine} can do what was asked for"),
    (_roomless, "no host has enough resources for engine={engine} cpu={cpu} mem={mem} disk={disk}"),
    (_strained, "no host has enough resources to spare for engine={engine} cpu={cpu} mem={mem} disk={disk} just now"),
    (_imageless, "no host that has room has the image {image!r}"),
    (_misformed, "no host's image {image!r} is one that engine={engine} can start from"),
)
"""In this order, with what is told when a check is as far as any host came."""


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


def _lacks(host: Host, spec: VmSpec) -> bool:
    return spec.engine is not Engine.DOCKER and spec.origin is None and spec.image not in host.report.images


def _brought(host: Host, wanted: _Wanted) -> str:
    if not _lacks(host, wanted.spec):
        return ""
    return f"; the image {wanted.spec.image} is brought from {wanted.sources[host.report.storage]}"


def _order(
    host: Host, spec: VmSpec, spread: Spread, left: Mapping[str, Resource], taken: Counter[str]
) -> tuple[int, bool, int]:
    """Return what is least for the host to take; bringing an image costs more than room, and less than crowding."""
    free, lacks = left[host.id].mem_free, _lacks(host, spec)
    return (taken[host.id], lacks, -free) if spread is Spread.SPREAD else (0, lacks, free)


_ANYWHERE = Constraints()
_STRAINED = 7
_NOBODY = 1
"""The check of which is told where there are no hosts at all."""
_RULES = {Spread.SPREAD: "the fewest machines of this environment", Spread.PACK: "the least free memory that fits"}


def _reason(spec: VmSpec, furthest: int) -> str:
    """Return what stands in the way on the hosts that came furthest."""
    size = spec.size
    return _CHECKS[furthest][1].format(
        engine=spec.engine.value, cpu=size.cpu, mem=size.mem_mib, disk=size.disk_mib, image=spec.image
    )
