"""How many machines a second can be placed, each with its reasons read, in a fleet that is nearly full."""

import random
import time
from datetime import UTC, datetime

from bench.figures import Figure, Section, median
from borough.fleet.engines import Capability, Engine, Offer
from borough.fleet.hosts import Host, HostReport, HostState
from borough.fleet.placement import Plan, place
from borough.fleet.resources import Resource, Size
from borough.fleet.storage import Storage
from borough.fleet.vms import vm_spec

ROUNDS = 5
FLEETS = ((50, 1_000, 500, 1_000), (1_000, 50_000, 60, 200))
"""Hosts, machines on them, decisions a round, and the goal a second."""


def a_fleet(hosts: int, machines: int, *, seed: int) -> list[Host]:
    """Return hosts of three sizes with so many machines on them, dealt out at random."""
    dice = random.Random(seed)
    each = machines // hosts
    rooms = [
        Resource(cpu_total=2 * each * size, mem_total=1_024 * each * size, disk_total=20_000 * each * size)
        for size in (2, 3, 4)
    ]
    offers = (Offer(engine=Engine.QEMU, version="9", capabilities=frozenset({Capability.EXEC})),)
    used = [0] * hosts
    for _ in range(machines):
        used[dice.randrange(hosts)] += 1
    made = []
    for number, count in enumerate(used):
        room = dice.choice(rooms)
        for _ in range(min(count, room.mem_total // 512)):
            room = room.with_one_more(Size(cpu=1, mem_mib=512, disk_mib=10_000))
        report = HostReport(host_id=f"h{number}", resource=room, offers=offers, storage=Storage.FILE, images=("base",))
        now = datetime.now(UTC)
        made.append(
            Host(
                id=f"h{number}", addr=f"h{number}.example:9100", report=report, state=HostState.ONLINE,
                registered_at=now, heard_at=now,
            )
        )  # fmt: skip
    return made


def decided(hosts: list[Host], count: int) -> float:
    """Return how long ``count`` decisions take, each with its explanation put into words."""
    spec = vm_spec(image="base", engine=Engine.QEMU, cpu=1, mem_mib=512, disk_mib=1_000)
    began = time.perf_counter()
    for _ in range(count):
        plan = place([spec], hosts)
        assert isinstance(plan, Plan)
        assert len(dict(plan.placed[0].others)) == len(hosts) - 1
    return time.perf_counter() - began


async def measure() -> Section:
    figures = []
    for hosts, machines, count, goal in FLEETS:
        rates = [count / decided(a_fleet(hosts, machines, seed=seed), count) for seed in range(ROUNDS)]
        rate = median(rates)
        figures.append(
            Figure(
                what=f"{hosts:,} hosts, {machines:,} machines", value=f"{rate:,.0f}/s", goal=f"≥ {goal:,}/s",
                met=rate >= goal,
            )
        )  # fmt: skip
    return Section(
        name="placement",
        title="Placement",
        how=f"One machine after the other is placed in a simulated fleet, and the reason for every host is read. "
        f"Median of {ROUNDS} fleets.",
        figures=figures,
    )
