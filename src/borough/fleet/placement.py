"""Placement: which host takes which machine, as a pure function that can always say why.

Best fit: of the hosts that can take a machine, the one with the least free memory, so that large machines find room
later; with ``spread``, the one that has the fewest of this environment. Every host that was not chosen has its reason.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from borough.core.errors import Invalid
from borough.fleet.engines import Engine
from borough.fleet.environments import Spread
from borough.fleet.fitness import (
    ANYWHERE,
    Check,
    Constraints,
    Refused,
    Sources,
    Wanted,
    in_the_way,
    sifted,
    sources_of,
    why_not,
)
from borough.fleet.hosts import Host
from borough.fleet.resources import Resource
from borough.fleet.vms import VmSpec


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
    constraints: Constraints = ANYWHERE,
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
        wanted = Wanted(spec=spec, constraints=constraints, tenants=there, sources=sources[start])
        fitting, refused = sifted(wanted, hosts, left)
        if not fitting:
            furthest = max((check for check, _, _ in refused), default=Check.ONLINE)
            reasons = Reasons(wanted, refused)
            return NotPlaced(number=number, spec=spec, reason=in_the_way(spec, furthest), hosts=reasons)
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
        wanted = Wanted(spec=spec, constraints=constraints, tenants=tenants, sources=sources)
        fitting, refused = sifted(wanted, hosts, empty)
        found |= {host.id for host in fitting} | {host.id for check, host, _ in refused if check is Check.EASE}
    return frozenset(found)


def unplaceable(failure: NotPlaced) -> Invalid:
    """Return the error for machines that find no host."""
    return Invalid(
        failure.reason,
        code="unschedulable",
        reason="; ".join(f"{host}: {reason}" for host, reason in failure.hosts.items()) or None,
        resolution="add a host, ask for less, or delete environments that are not needed",
    )


class Reasons(Mapping[str, str]):
    """Host → why it was not chosen; put into words when somebody reads it, since most plans go well."""

    __slots__ = ("_chosen", "_fitting", "_refused", "_wanted")

    def __init__(
        self, wanted: Wanted, refused: Sequence[Refused], chosen: str = "", fitting: Sequence[str] = ()
    ) -> None:
        self._wanted = wanted
        self._refused = {each[1].id: each for each in refused}
        self._chosen = chosen
        self._fitting = dict.fromkeys(host_id for host_id in fitting if host_id != chosen)

    def __getitem__(self, host_id: str) -> str:
        """Return why a host was not chosen."""
        if host_id not in self._refused:
            if host_id not in self._fitting:
                raise KeyError(host_id)
            return f"it fits, but {self._chosen} fits better"
        return why_not(self._wanted, self._refused[host_id])

    def __iter__(self) -> Iterator[str]:
        """Yield the hosts that were not chosen, the refused first."""
        yield from self._refused
        yield from self._fitting

    def __len__(self) -> int:
        """Return how many hosts were not chosen."""
        return len(self._refused) + len(self._fitting)


def _lacks(host: Host, spec: VmSpec) -> bool:
    return spec.engine is not Engine.DOCKER and spec.origin is None and spec.image not in host.report.images


def _brought(host: Host, wanted: Wanted) -> str:
    if not _lacks(host, wanted.spec):
        return ""
    return f"; the image {wanted.spec.image} is brought from {wanted.sources[host.report.storage]}"


def _order(
    host: Host, spec: VmSpec, spread: Spread, left: Mapping[str, Resource], taken: Counter[str]
) -> tuple[int, bool, int]:
    """Return what is least for the host to take; bringing an image costs more than room, and less than crowding."""
    free, lacks = left[host.id].mem_free, _lacks(host, spec)
    return (taken[host.id], lacks, -free) if spread is Spread.SPREAD else (0, lacks, free)


_RULES = {Spread.SPREAD: "the fewest machines of this environment", Spread.PACK: "the least free memory that fits"}
