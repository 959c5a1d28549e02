"""Environments that wait for room: who is next, and whose room is whose.

Who asked first is first. Every host that could take a machine of a waiting environment, if it were empty, is kept for
it: neither environments that asked later nor such that do not wait are placed there. So what frees is gathered until
the large one fits, and small ones cannot pass it by; on hosts that are of no use to it they are placed as ever. An
environment stops waiting when it is placed or deleted, or when its time is over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from borough.core.errors import Invalid
from borough.fleet.fitness import Constraints
from borough.fleet.hosts import Host
from borough.fleet.placement import NotPlaced, candidates
from borough.fleet.vms import VmId, VmSpec

MOST_WAITING = 100
"""Environments at the same time."""
LONGEST_WAIT_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An environment without machines, and what is to be made of it when there is room."""

    env_id: str
    operation_id: str
    vm_ids: tuple[VmId, ...]
    specs: tuple[VmSpec, ...]
    constraints: Constraints
    lifetime_s: int
    """Counts from when it is placed."""
    until: datetime
    number: int = 0
    """Its place in the order of asking."""


def check_wait(seconds: int) -> int:
    """Return how long to wait; raises ``Invalid`` (``invalid_wait``)."""
    if not 0 < seconds <= LONGEST_WAIT_S:
        raise Invalid(
            f"{seconds} s cannot be waited",
            code="invalid_wait",
            resolution=f"give seconds from 1 to {LONGEST_WAIT_S}, or leave it out to be refused at once",
        )
    return seconds


def with_claims(
    hosts: Sequence[Host],
    waiting: Sequence[Waiting],
    tenants: Mapping[str, frozenset[str]],
    *,
    before: int | None = None,
    stock: frozenset[str] = frozenset(),
) -> Sequence[Host]:
    """Return ``hosts`` as they are for whoever asked as number ``before`` (``None``: asks now): kept where somebody
    who asked earlier waits for them.
    """
    kept: dict[str, str] = {}
    for each in waiting:
        if before is None or each.number < before:
            for host_id in candidates(each.specs, hosts, each.constraints, tenants=tenants, stock=stock):
                kept.setdefault(host_id, each.env_id)
    return [replace(host, kept_for=kept.get(host.id)) for host in hosts] if kept else hosts


def reasons(failure: NotPlaced) -> tuple[str, ...]:
    """Return what is told of an environment that waits: what it waits for, and what each host says."""
    return (f"waits for room: {failure.reason}", *(f"{host}: {why}" for host, why in failure.hosts.items()))
