"""Control groups of machines that are processes: made before it is known whose, a machine's then, and never left."""

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from borough.adapters import procfs
from borough.adapters.engines.bubblewrap.cgroups import Trees, find_trees
from borough.adapters.engines.bubblewrap_machines.driver import BubblewrapMachines
from borough.adapters.engines.bubblewrap_machines.host import machine_settings
from borough.adapters.engines.bubblewrap_machines.nursery import UNBORN
from borough.adapters.engines.bubblewrap_machines.plans import ahead_of, group_of, owner_of
from borough.adapters.process import OWNER, Marker
from borough.fleet.ports.engines import MachineOrder
from tests.conftest import eventually, need
from tests.contracts.engine_kit import Bench, bubblewrap, run
from tests.services.spaces import own_network

pytestmark = pytest.mark.anyio

MEMORY = {1: ("memory", "memory.limit_in_bytes"), 2: ("", "memory.max")}


@pytest.fixture
def trees() -> Trees:
    need(os.geteuid() == 0, "the right to make network namespaces", "run the tests as root")
    try:
        return find_trees()
    except OSError as missing:
        need(False, f"control groups ({missing})", "run as root, or in a delegated group of version 2")
        raise


@pytest.fixture
async def bench(tmp_path: Path, trees: Trees) -> AsyncIterator[Bench]:
    with own_network():
        async with bubblewrap(tmp_path, "", bridged=False, use_cgroups=True) as made:
            yield made


def groups_of(trees: Trees, prefix: str) -> set[Path]:
    return {path for parent in set(trees.parents.values()) for path in parent.glob(f"borough-{prefix}*")}


async def stands_ahead(bench: Bench, trees: Trees) -> set[Path]:
    """Return the groups that are joined ahead of an order, as soon as all of them are; none in version 2."""
    found: set[Path] = set()

    async def joined() -> bool:
        found.clear()
        found.update(groups_of(trees, ahead_of(bench.marker)))
        folders = len(set(trees.parents.values())) if trees.version == 1 else 0
        return len(found) == folders and all((group / "cgroup.procs").read_text() for group in found)

    await eventually(joined)
    return found


async def check_limits(bench: Bench, trees: Trees, order: MachineOrder) -> None:
    """Find a machine's processes in its groups, which have its limits."""
    name = group_of(bench.marker, order.vm_id)
    said = (await run(bench.driver, order.vm_id, "sh", "-c", "echo $$; sleep 0.2 & wait")).out
    assert said
    controller, file = MEMORY[trees.version]
    group = trees.parents[controller] / f"borough-{name}"
    assert int((group / file).read_text()) == order.spec.size.mem_mib << 20
    members = (group / "cgroup.procs").read_text().split()
    assert members
    for pid in members:
        belongs = Path(f"/proc/{pid}/cgroup").read_text()
        assert belongs.count(f"/borough-{name}\n") == len(set(trees.parents.values()))


async def test_what_was_joined_ahead_is_the_next_machines_and_nothing_is_left(bench: Bench, trees: Trees) -> None:
    orders = [await bench.made()]
    for _ in range(2):
        before = await stands_ahead(bench, trees)
        pids = {(group / "cgroup.procs").read_text() for group in before}
        orders.append(await bench.made())
        now = trees.parents[MEMORY[trees.version][0]] / f"borough-{group_of(bench.marker, orders[-1].vm_id)}"
        assert pids <= {(now / "cgroup.procs").read_text()}, "it has been in there before it was a machine's"
    for order in orders:
        await check_limits(bench, trees, order)
        await bench.driver.destroy(order.vm_id)
    ahead = await stands_ahead(bench, trees)
    assert groups_of(trees, group_of(bench.marker, "")) == ahead


async def test_groups_of_a_nursery_that_was_killed_are_removed_and_machines_have_theirs(
    bench: Bench, trees: Trees
) -> None:
    first = await bench.made()
    left = await stands_ahead(bench, trees)
    refs = await asyncio.to_thread(procfs.owned, Marker(OWNER, owner_of(bench.marker, "", first=UNBORN)))
    procfs.tell(refs, signal.SIGKILL)
    assert not await asyncio.to_thread(procfs.wait_gone, refs, within_s=60.0)
    second = await bench.made()
    for order in (first, second):
        await check_limits(bench, trees, order)
    assert not left & await stands_ahead(bench, trees)


async def test_a_daemon_that_lets_go_leaves_no_group(bench: Bench, trees: Trees, tmp_path: Path) -> None:
    bench.marker = uuid4().hex
    driver = BubblewrapMachines(machine_settings(tmp_path / "own", marker=bench.marker), bridged=False, has_proxy=False)
    order = await bench.order()
    try:
        await driver.create(order)
        await stands_ahead(bench, trees)
    finally:
        await driver.destroy(order.vm_id)
    del driver
    gc.collect()

    async def nothing_left() -> bool:
        unborn = await asyncio.to_thread(procfs.owned, Marker(OWNER, owner_of(bench.marker, "", first=UNBORN)))
        return not unborn and not groups_of(trees, group_of(bench.marker, ""))

    await eventually(nothing_left)
