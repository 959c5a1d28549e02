"""Placement: which host takes which machine, as a pure function that can always say why.

Best fit: of the hosts that can take a machine, the one with the least free memory, so that large machines find room
later; with ``spread``, the one that has the fewest of this environment. Every host that was not chosen has its reason.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from borough.core.errors import Invalid
from borough.fleet.engines import ISOLATION, Engine
from borough.fleet.environments import Spread
from borough.fleet.hosts import Host, HostState, strain
from borough.fleet.resources import Resource
from borough.fleet.vms import VmSpec


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
class Refusal:
    """Why a host was not chosen. ``rank`` orders reasons from the first check to the last."""

    rank: int
    reason: str


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
) -> Plan | NotPlaced:
    """Return a host for every machine, or why there is none for the first that has none.

    ``tenants`` tells for each host the environments that have machines on it. ``hosts`` carry what is promised
    already; the promises of this very plan are counted on the way.
    """
    left = {host.id: host.report.resource for host in hosts}
    taken: Counter[str] = Counter()
    placed: list[Placed] = []
    for number, spec in enumerate(specs):
        refusals: dict[str, Refusal] = {}
        fitting: list[Host] = []
        for host in hosts:
            there = (tenants or {}).get(host.id, frozenset())
            asked = _Question(host=host, spec=spec, constraints=constraints, left=left[host.id], tenants=there)
            refusal = _refusal(asked)
            if refusal is None:
                fitting.append(host)
            else:
                refusals[host.id] = refusal
        if not fitting:
            told = {host: refusal.reason for host, refusal in refusals.items()}
            return NotPlaced(number=number, spec=spec, reason=_reason(spec, refusals), hosts=told)
        chosen = min(fitting, key=lambda host: _order(host, constraints.spread, left, taken))
        why, others = _explained(chosen, fitting, refusals, constraints.spread, left)
        placed.append(Placed(spec=spec, host_id=chosen.id, why=why, others=others))
        left[chosen.id] = left[chosen.id].with_one_more(spec.size)
        taken[chosen.id] += 1
    return Plan(placed=tuple(placed))


def unplaceable(failure: NotPlaced) -> Invalid:
    """Return the error for machines that find no host."""
    return Invalid(
        failure.reason,
        code="unschedulable",
        reason="; ".join(f"{host}: {reason}" for host, reason in failure.hosts.items()) or None,
        resolution="add a host, ask for less, or delete environments that are not needed",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """One host for one machine."""

    host: Host
    spec: VmSpec
    constraints: Constraints
    left: Resource
    tenants: frozenset[str]


def _offline(asked: _Question) -> str | None:
    return None if asked.host.state is HostState.ONLINE else "it is offline"


def _closed(asked: _Question) -> str | None:
    if asked.host.draining:
        return "it is being drained"
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
    if asked.spec.engine is Engine.DOCKER or asked.spec.image in asked.host.report.images:
        return None
    return f"it has no image {asked.spec.image!r}"


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
    (_offline, "no online hosts"),
    (_closed, "no online hosts that take anything new: all are cordoned or being drained"),
    (_constrained, "no host meets the constraints of the environment"),
    (_engineless, "no host has engine={engine}"),
    (_incapable, "no host's engine={engine} can do what was asked for"),
    (_roomless, "no host has enough resources for engine={engine} cpu={cpu} mem={mem} disk={disk}"),
    (_strained, "no host has enough resources to spare for engine={engine} cpu={cpu} mem={mem} disk={disk} just now"),
    (_imageless, "no host that has room has the image {image!r}"),
)
"""In this order, with what is told when a check is as far as any host came."""


def _refusal(asked: _Question) -> Refusal | None:
    for rank, (check, _) in enumerate(_CHECKS):
        reason = check(asked)
        if reason is not None:
            return Refusal(rank=rank, reason=reason)
    return None


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


def _order(host: Host, spread: Spread, left: Mapping[str, Resource], taken: Counter[str]) -> tuple[int, int]:
    free = left[host.id].mem_free
    return (taken[host.id], -free) if spread is Spread.SPREAD else (free, 0)


def _explained(
    chosen: Host, fitting: Sequence[Host], refusals: Mapping[str, Refusal], spread: Spread, left: Mapping[str, Resource]
) -> tuple[str, dict[str, str]]:
    rule = "the fewest machines of this environment" if spread is Spread.SPREAD else "the least free memory that fits"
    why = f"{rule}: {left[chosen.id].mem_free} MiB free"
    others = {host: refusal.reason for host, refusal in refusals.items()}
    others.update({host.id: f"it fits, but {chosen.id} fits better" for host in fitting if host.id != chosen.id})
    return why, others


def _reason(spec: VmSpec, refusals: Mapping[str, Refusal]) -> str:
    """Return what stands in the way on the hosts that came furthest."""
    furthest = max((refusal.rank for refusal in refusals.values()), default=0)
    size = spec.size
    return _CHECKS[furthest][1].format(
        engine=spec.engine.value, cpu=size.cpu, mem=size.mem_mib, disk=size.disk_mib, image=spec.image
    )
