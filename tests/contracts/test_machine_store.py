"""A host's rows: what every ``MachineStore`` promises."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from borough.adapters.sql.fleet.machines import HostLimits, SqlMachineStore
from borough.core.errors import Conflict, NotFound
from borough.fleet.addresses import PortRange, Subnet
from borough.fleet.ports.machine_store import MachineRow, MachineStep
from borough.fleet.resources import Resource
from borough.fleet.vms import VmState
from tests.contracts.fleet_kit import MOST, ROOM, HostFile, a_row

pytestmark = pytest.mark.anyio
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[HostFile]:
    opened = HostFile(tmp_path / "state" / "agent.db")
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def store(file: HostFile) -> SqlMachineStore:
    return file.store


def leases(row: MachineRow) -> tuple[str, dict[int, int]]:
    return str(row.vm.ip), dict(row.vm.port_map)


async def test_the_lowest_that_is_free_is_lent_and_comes_back(store: SqlMachineStore) -> None:
    first = await store.accept(a_row(), ports=(22, 80))
    second = await store.accept(a_row(), ports=(22,))
    assert leases(first) == ("10.10.0.2", {22: 20_000, 80: 20_001})
    assert leases(second) == ("10.10.0.3", {22: 20_002})
    assert first.vm.host_id == "h1"
    await store.forget(first.vm.id)
    third = await store.accept(a_row(), ports=(22,))
    assert leases(third) == ("10.10.0.2", {22: 20_000})


async def test_the_same_order_is_the_same_row_and_another_is_refused(store: SqlMachineStore) -> None:
    row = a_row()
    accepted = await store.accept(row, ports=(22,))
    moved = await store.update(replace(accepted, step=MachineStep.DONE), revision=accepted.vm.revision)
    assert await store.accept(row, ports=(22,)) == moved
    with pytest.raises(Conflict) as refused:
        await store.accept(a_row(row.vm.id, mem_mib=256), ports=(22,))
    assert refused.value.code == "vm_exists"


async def test_other_ports_are_lent_instead_of_those_that_were_taken(store: SqlMachineStore) -> None:
    row, other = await store.accept(a_row(), ports=(22, 80)), await store.accept(a_row(), ports=(22,))
    taken = frozenset(row.vm.port_map.values())
    spec = replace(row.vm.spec, ports=(22, 80))
    lent = await store.relend(replace(row, vm=replace(row.vm, spec=spec)), but=taken)
    assert set(lent.vm.port_map) == {22, 80}
    assert not set(lent.vm.port_map.values()) & (taken | set(other.vm.port_map.values()))
    assert await store.get(row.vm.id) == lent
    with pytest.raises(Conflict) as refused:
        await store.relend(row, but=frozenset())
    assert refused.value.code == "stale_vm"
    third = await store.accept(a_row(), ports=(22, 80))
    assert set(third.vm.port_map.values()) == taken, "what was given up is lent again"


async def test_a_late_order_does_not_bring_back_what_was_deleted(store: SqlMachineStore) -> None:
    row = a_row()
    await store.bar(row.vm.id)
    with pytest.raises(Conflict) as refused:
        await store.accept(row, ports=(22,))
    assert refused.value.code == "vm_deleted"
    assert await store.all() == []


async def test_what_does_not_fit_is_refused_and_lends_nothing(store: SqlMachineStore) -> None:
    await store.accept(a_row(cpu=7), ports=(22,))
    with pytest.raises(Conflict) as refused:
        await store.accept(a_row(cpu=2), ports=(22,))
    assert refused.value.code == "no_room"
    assert "cpu 1" in str(refused.value.reason)
    assert leases(await store.accept(a_row(cpu=1), ports=(22,))) == ("10.10.0.3", {22: 20_001})


async def test_of_many_orders_at_once_as_many_are_accepted_as_fit(store: SqlMachineStore) -> None:
    orders = (store.accept(a_row(cpu=2), ports=(22, 80, 443)) for _ in range(50))
    outcomes = await asyncio.gather(*orders, return_exceptions=True)
    rows = [each for each in outcomes if isinstance(each, MachineRow)]
    assert len(rows) == 4
    assert len({row.vm.ip for row in rows}) == 4
    assert len({port for row in rows for port in row.vm.port_map.values()}) == 12
    assert (await store.resource()).cpu_used == 8


async def test_a_port_that_something_else_uses_is_not_lent(file: HostFile) -> None:
    file.busy |= {20_000, 20_002}
    row = await file.store.accept(a_row(), ports=(22, 80))
    assert dict(row.vm.port_map) == {22: 20_001, 80: 20_003}


async def test_there_is_an_end_to_addresses_ports_and_machines(tmp_path: Path) -> None:
    subnet = Subnet(network=IPv4Network("10.9.0.0/30"))
    limits = HostLimits(resource=ROOM, most_vms=1, subnet=subnet, ports=PortRange(first=30_000, last=30_001))
    file = HostFile(tmp_path / "agent.db", limits)
    store = await file.open()
    with pytest.raises(Conflict) as refused:
        await store.accept(a_row(), ports=(1, 2, 3))
    assert refused.value.code == "ports_exhausted"
    row = await store.accept(a_row(), ports=(22,))
    assert row.vm.ip == IPv4Address("10.9.0.2")
    with pytest.raises(Conflict) as refused:
        await store.accept(a_row(), ports=(22,))
    assert refused.value.code == "no_room"
    await file.close()


async def test_a_stopped_machine_gives_back_what_it_does_not_need_and_has_to_fit_again(store: SqlMachineStore) -> None:
    row = await store.accept(a_row(cpu=8), ports=(22,))
    stopped = replace(row, vm=replace(row.vm, state=VmState.STOPPED, desired=VmState.STOPPED))
    row = await store.update(stopped, revision=row.vm.revision)
    assert (await store.resource()).cpu_used == 0
    assert (await store.resource()).disk_used == 1000
    other = await store.accept(a_row(cpu=1), ports=(22,))
    with pytest.raises(Conflict) as refused:
        await store.resume(row)
    assert refused.value.code == "no_room"
    await store.forget(other.vm.id)
    resumed = await store.resume(row)
    assert resumed.vm.desired is VmState.RUNNING
    assert (await store.resource()).cpu_used == 8


async def test_changes_keep_what_is_lent_and_are_refused_when_stale(store: SqlMachineStore) -> None:
    row = await store.accept(a_row(), ports=(22,))
    changed = await store.update(replace(row, vm=replace(row.vm, ip=None, port_map={}, error="e")), revision=0)
    assert leases(changed) == leases(row)
    with pytest.raises(Conflict) as refused:
        await store.update(row, revision=0)
    assert refused.value.code == "stale_vm"
    await store.forget(row.vm.id)
    with pytest.raises(NotFound):
        await store.get(row.vm.id)
    with pytest.raises(NotFound):
        await store.update(changed, revision=1)
    await store.forget(row.vm.id)


async def test_everything_is_the_same_when_the_file_is_opened_again(file: HostFile) -> None:
    for number in range(3):
        await file.store.accept(a_row(ports=(80, number + 1)), ports=(22, 80, number + 1))
    before = await file.store.all()
    again = await file.reopen()
    assert await again.all() == before
    assert await again.host_id(None, "other") == "h1"
    assert await again.host_id("wanted", "other") == "wanted"
    assert leases(await again.accept(a_row(), ports=(22,))) == ("10.10.0.5", {22: 20_009})


async def test_another_boot_of_the_host_is_noticed_once(file: HostFile) -> None:
    assert not await file.store.booted("one")
    assert not await file.store.booted("one")
    again = await file.reopen()
    assert await again.booted("two")
    assert not await again.booted("two")


PROGRAM = """
import asyncio, json, os, sys
from pathlib import Path
from borough.adapters.sql.fleet.machines import HostLimits
from borough.fleet.resources import Resource
from tests.contracts.fleet_kit import HostFile, a_row

def tell(*what):
    os.write(1, json.dumps(what).encode() + b"\\n")

async def live(store, name):
    for number in range(10**9):
        row = await store.accept(a_row(), ports=(22, 80))
        tell("lent", row.vm.id, str(row.vm.ip), sorted(row.vm.port_map.values()))
        if number % 2:
            await store.forget(row.vm.id)
            tell("forgot", row.vm.id)

async def main():
    room = Resource(cpu_total=10**6, mem_total=10**9, disk_total=10**9)
    file = HostFile(Path(sys.argv[1]), HostLimits(resource=room, most_vms=10**6))
    store = await file.open()
    await asyncio.gather(*(live(store, name) for name in "abcdefgh"))

asyncio.run(main())
"""


async def test_whatever_was_lent_is_lent_after_a_kill_and_to_one_only(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)], stdout=subprocess.PIPE, cwd=REPOSITORY) as daemon:
        assert daemon.stdout is not None
        told = [daemon.stdout.readline() for _ in range(200)]
        os.kill(daemon.pid, signal.SIGKILL)
        told += daemon.stdout.readlines()
    said = [json.loads(line) for line in told if line.endswith(b"\n")]
    forgotten = {what[1] for what in said if what[0] == "forgot"}
    lent = {what[1]: (what[2], what[3]) for what in said if what[0] == "lent"}
    room = Resource(cpu_total=10**6, mem_total=10**9, disk_total=10**9)
    file = HostFile(path, HostLimits(resource=room, most_vms=MOST * 1000))
    store = await file.open()
    rows = {row.vm.id: row for row in await store.all()}
    assert not forgotten & rows.keys()
    # Each of eight lives may have had one end on disk that it had not told.
    assert len(lent.keys() - forgotten - rows.keys()) <= 8
    for vm_id in lent.keys() & rows.keys():
        assert (str(rows[vm_id].vm.ip), sorted(rows[vm_id].vm.port_map.values())) == lent[vm_id]
    ports = [port for row in rows.values() for port in row.vm.port_map.values()]
    assert len(set(ports)) == len(ports)
    assert len({row.vm.ip for row in rows.values()}) == len(rows)
    await file.close()
