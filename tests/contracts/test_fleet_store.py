"""The controller's rows: what every ``Fleet`` promises."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from borough.adapters.sql.engine import Database
from borough.adapters.sql.fleet.access import host_trust
from borough.adapters.sql.fleet.controller import SqlFleet
from borough.adapters.sql.fleet.rows import places, rows
from borough.adapters.sql.fleet.tables import CONTROLLER
from borough.adapters.sql.fleet.values import HOST, host_row
from borough.core.errors import Conflict, NotFound
from borough.core.paging import PageRequest
from borough.fleet.environments import OnExpiry
from borough.fleet.hosts import HostState
from borough.fleet.operations import OperationKind, OperationState, concluded
from borough.fleet.placement import NotPlaced, Plan
from borough.fleet.ports.fleet import EnvFilter, View
from borough.fleet.resources import Resource
from borough.fleet.trust import HostTrust
from borough.fleet.vms import Vm, VmState
from tests.contracts.fleet_kit import (
    MOST,
    NOON,
    ControllerFile,
    a_host,
    a_report,
    a_spec,
    an_environment,
    an_operation,
    planned,
)

pytestmark = pytest.mark.anyio
REPOSITORY = Path(__file__).parents[2]
EVERYTHING = PageRequest(limit=1000)


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[ControllerFile]:
    opened = ControllerFile(tmp_path / "state" / "ctl.db")
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def fleet(file: ControllerFile) -> SqlFleet:
    await file.fleet.add_host(a_host("h1"), most=MOST)
    await file.fleet.add_host(a_host("h2"), most=MOST)
    return file.fleet


async def everything(fleet: SqlFleet) -> tuple[object, ...]:
    return (
        await fleet.hosts(),
        (await fleet.environments(EnvFilter(), EVERYTHING)).items,
        (await fleet.vms(EVERYTHING)).items,
        await fleet.view(),
        await fleet.totals(),
    )


async def types_of_events(fleet: SqlFleet) -> list[str]:
    return [event.type for event in await fleet.events(after="", limit=1000)]


async def test_a_plan_promises_its_room_and_writes_everything_at_once(fleet: SqlFleet) -> None:
    plan = await planned(fleet, "e1", [a_spec(), a_spec()])
    assert isinstance(plan, Plan)
    environment, vms = await fleet.environment("e1")
    assert environment.owner == "bob"
    assert [vm.host_id for vm in vms] == ["h1", "h1"]
    used = (await fleet.host("h1")).report.resource
    assert (used.cpu_used, used.mem_used, used.disk_used, used.vm_count) == (2, 1024, 2000, 2)
    told = await types_of_events(fleet)
    assert told[-4:] == ["vm.planned", "vm.planned", "env.created", "operation.started"]


async def test_what_finds_no_host_leaves_nothing(fleet: SqlFleet) -> None:
    before = await everything(fleet)
    told = await types_of_events(fleet)
    plan = await planned(fleet, "e1", [a_spec(), a_spec(cpu=9)])
    assert isinstance(plan, NotPlaced)
    assert plan.number == 1
    assert await everything(fleet) == before
    assert await types_of_events(fleet) == told


async def test_a_decision_that_raises_leaves_nothing(fleet: SqlFleet) -> None:
    before = await everything(fleet)

    def refuse(_view: View) -> Plan:
        raise Conflict("no", code="too_many_vms")

    with pytest.raises(Conflict, match="no"):
        await fleet.plan(an_environment(), refuse, lambda _plan: [], an_operation())
    assert await everything(fleet) == before


async def test_a_name_is_taken_once(fleet: SqlFleet) -> None:
    await planned(fleet, "e1", [a_spec()])
    with pytest.raises(Conflict) as refused:
        await planned(fleet, "e1", [a_spec()])
    assert refused.value.code == "env_exists"
    assert (await fleet.host("h1")).report.resource.vm_count == 1


async def test_fifty_plans_at_once_never_promise_more_than_there_is(fleet: SqlFleet) -> None:
    plans = await asyncio.gather(*(planned(fleet, f"e{number}", [a_spec(cpu=3)]) for number in range(50)))
    placed = [plan for plan in plans if isinstance(plan, Plan)]
    assert len(placed) == 4, "two machines of three processors fit on each host of eight"
    for host in await fleet.hosts():
        assert host.report.resource.cpu_used == 6
        assert host.report.resource.vm_count == 2
    assert (await fleet.totals()).total_vms == 4


async def test_what_is_stopped_gives_back_processor_and_memory_and_keeps_its_disk(fleet: SqlFleet) -> None:
    await planned(fleet, "e1", [a_spec()])
    (vm,) = (await fleet.environment("e1"))[1]
    ended = replace(vm, state=VmState.STOPPED)
    vm = await fleet.change_vm(ended, revision=vm.revision, event="vm.changed")
    assert (await fleet.host("h1")).report.resource.cpu_used == 1, "it is to run again"
    await fleet.change_vm(replace(vm, desired=VmState.STOPPED), revision=vm.revision, event="vm.wanted")
    used = (await fleet.host("h1")).report.resource
    assert (used.cpu_used, used.mem_used, used.disk_used, used.vm_count) == (0, 0, 1000, 1)
    await fleet.remove_vm(vm.id)
    used = (await fleet.host("h1")).report.resource
    assert (used.cpu_used, used.mem_used, used.disk_used, used.vm_count) == (0, 0, 0, 0)
    await fleet.remove_vm(vm.id)


async def test_everything_is_the_same_when_the_file_is_opened_again(file: ControllerFile, fleet: SqlFleet) -> None:
    await planned(fleet, "e1", [a_spec(ports=(80,), env={"A": "b"}), a_spec()])
    (first, second) = (await fleet.environment("e1"))[1]
    running = replace(first, state=VmState.RUNNING, port_map={22: 20_000, 80: 20_001}, error="slow")
    await fleet.change_vm(running, revision=first.revision, event=None)
    await fleet.remove_vm(second.id)
    await fleet.change_host("h2", cordoned=True, draining=None, labels={"disk": "fast"})
    before = await everything(fleet)
    events = await fleet.events(after="", limit=1000)
    again = await file.reopen()
    assert await everything(again) == before
    assert await again.events(after="", limit=1000) == events


async def test_a_change_that_was_prepared_on_something_older_is_refused(fleet: SqlFleet) -> None:
    await planned(fleet, "e1", [a_spec()])
    environment, (vm,) = await fleet.environment("e1")
    await fleet.change_vm(replace(vm, error="a"), revision=vm.revision, event=None)
    with pytest.raises(Conflict) as refused:
        await fleet.change_vm(replace(vm, error="b"), revision=vm.revision, event=None)
    assert refused.value.code == "stale_vm"
    await fleet.change_environment(replace(environment, owner="eve"), revision=0, event="env.changed")
    with pytest.raises(Conflict) as refused:
        await fleet.change_environment(replace(environment, owner="mallory"), revision=0, event="env.changed")
    assert refused.value.code == "stale_env"
    assert (await fleet.environment("e1"))[0].owner == "eve"
    assert (await fleet.vm(vm.id)).error == "a"


async def test_an_operation_that_a_change_ends_is_written_with_it_or_not_at_all(fleet: SqlFleet) -> None:
    await planned(fleet, "e1", [a_spec()])
    (vm,) = (await fleet.environment("e1"))[1]
    begun = an_operation("e1")
    await fleet.save_operation(begun)
    ended = concluded(begun, at=NOON)
    running = replace(vm, state=VmState.RUNNING)
    with pytest.raises(Conflict):
        await fleet.change_vm(running, revision=vm.revision + 1, event="vm.changed", operation=ended)
    assert (await fleet.operation(begun.id)).state is OperationState.RUNNING
    await fleet.change_vm(running, revision=vm.revision, event="vm.changed", operation=ended)
    assert (await fleet.operation(begun.id)).state is OperationState.SUCCEEDED
    assert (await types_of_events(fleet))[-2:] == ["vm.changed", "operation.ended"]


async def test_of_many_who_change_one_machine_one_wins(fleet: SqlFleet) -> None:
    await planned(fleet, "e1", [a_spec()])
    (vm,) = (await fleet.environment("e1"))[1]
    changes = (fleet.change_vm(replace(vm, error=str(n)), revision=vm.revision, event=None) for n in range(20))
    outcomes = await asyncio.gather(*changes, return_exceptions=True)
    assert sorted(type(each).__name__ for each in outcomes) == ["Conflict"] * 19 + ["Vm"]
    won = next(each for each in outcomes if isinstance(each, Vm))
    assert await fleet.vm(vm.id) == won


async def test_a_host_is_registered_again_at_its_address_only(fleet: SqlFleet) -> None:
    await fleet.change_host("h1", cordoned=True, draining=None, labels={"a": "b"})
    again = await fleet.add_host(a_host("h1"), most=2)
    assert again.cordoned
    assert again.labels == {"a": "b"}
    for intruder in (a_host("h1", addr="elsewhere:1"), a_host("h3", addr="h1.example:9100")):
        with pytest.raises(Conflict) as refused:
            await fleet.add_host(intruder, most=MOST)
        assert refused.value.code == "host_bound"
    moved = await fleet.add_host(a_host("h1", addr="elsewhere:1"), most=MOST, moved=True)
    assert (moved.addr, moved.cordoned, moved.labels) == ("elsewhere:1", True, {"a": "b"})
    with pytest.raises(Conflict):
        await fleet.add_host(a_host("h1", addr="h2.example:9100"), most=MOST, moved=True)
    with pytest.raises(Conflict) as refused:
        await fleet.add_host(a_host("h4"), most=2)
    assert refused.value.code == "too_many_hosts"
    assert [host.id for host in await fleet.hosts()] == ["h1", "h2"]


async def test_what_was_agreed_with_a_host_comes_and_goes_with_it(file: ControllerFile, fleet: SqlFleet) -> None:
    first, second = (HostTrust(credential=f"bhc_{word}", fingerprint=word * 64) for word in "ab")
    await fleet.add_host(a_host("h3"), most=MOST, trust=first)
    known = ("h3", a_host("h3").addr)
    assert await host_trust(file.database) == {known: first}
    with pytest.raises(Conflict):
        await fleet.add_host(a_host("h3", addr="elsewhere:1"), most=MOST, trust=second)
    await fleet.add_host(a_host("h3"), most=MOST)
    assert await host_trust(file.database) == {known: first}, (
        "another address, and a registration without, change nothing"
    )
    await fleet.add_host(a_host("h3"), most=MOST, trust=second)
    assert await host_trust(file.database) == {known: second}
    await fleet.remove_host("h3", with_machines=False)
    assert await host_trust(file.database) == {}


async def test_credentials_of_an_older_file_are_kept_for_hosts_that_are_known(tmp_path: Path) -> None:
    folder = tmp_path / "older"
    folder.mkdir(mode=0o700)
    older = await Database.open(folder / "ctl.db", CONTROLLER[:3])
    host = f"INSERT INTO hosts ({HOST}) VALUES ({places(HOST)})"
    await older.write(lambda connection: rows(connection, host, host_row(a_host("h1"))))
    given = "INSERT INTO host_credentials VALUES ('h1', 'bhc_h1'), ('gone', 'bhc_gone')"
    await older.write(lambda connection: rows(connection, given))
    await older.close()
    newer = await Database.open(folder / "ctl.db", CONTROLLER)
    try:
        assert await host_trust(newer) == {("h1", a_host("h1").addr): HostTrust(credential="bhc_h1", fingerprint=None)}
    finally:
        await newer.close()


async def test_a_host_with_machines_is_not_removed_but_detached(fleet: SqlFleet) -> None:
    await planned(fleet, "e1", [a_spec()])
    with pytest.raises(Conflict) as refused:
        await fleet.remove_host("h1", with_machines=False)
    assert refused.value.code == "host_in_use"
    lost = await fleet.remove_host("h1", with_machines=True)
    assert [vm.env_id for vm in lost] == ["e1"]
    assert (await fleet.environment("e1"))[1] == ()
    with pytest.raises(NotFound):
        await fleet.host("h1")
    with pytest.raises(NotFound):
        await fleet.heard("h1", a_report("h1"), at=NOON, error=None)
    assert await fleet.remove_host("h1", with_machines=False) == ()


async def test_what_a_host_says_is_kept_and_its_coming_and_going_told(fleet: SqlFleet) -> None:
    silent = await fleet.heard("h1", None, at=NOON, error="no route")
    assert (silent.state, silent.error, silent.heard_at) == (HostState.ONLINE, "no route", NOON)
    await fleet.set_host_state("h1", HostState.OFFLINE, at=NOON)
    totals = await fleet.totals()
    assert (totals.hosts, totals.hosts_online, totals.cpu_total) == (2, 1, 8)
    larger = a_report("h1", room=Resource(cpu_total=16, mem_total=1, disk_total=1))
    back = await fleet.heard("h1", larger, at=NOON + timedelta(seconds=5), error=None)
    assert (back.state, back.error, back.report.resource.cpu_total) == (HostState.ONLINE, None, 16)
    assert (await types_of_events(fleet))[-2:] == ["host.offline", "host.online"]


async def test_an_environment_goes_when_its_machines_have(fleet: SqlFleet) -> None:
    await planned(fleet, "e1", [a_spec()])
    (vm,) = (await fleet.environment("e1"))[1]
    with pytest.raises(Conflict) as refused:
        await fleet.remove_environment("e1")
    assert refused.value.code == "env_in_use"
    await fleet.remove_vm(vm.id)
    await fleet.remove_environment("e1")
    await fleet.remove_environment("e1")
    with pytest.raises(NotFound):
        await fleet.environment("e1")


async def test_environments_are_found_by_owner_and_label_and_in_pages(fleet: SqlFleet) -> None:
    for number in range(5):
        await planned(fleet, f"e{number}", [])
    (environment, _) = await fleet.environment("e3")
    labelled = replace(environment, labels={"team": "a"}, owner="eve", on_expiry=OnExpiry.STOP)
    await fleet.change_environment(labelled, revision=0, event="env.changed")
    found = await fleet.environments(EnvFilter(owner="eve", labels={"team": "a"}), EVERYTHING)
    assert [each.id for each, _ in found.items] == ["e3"]
    ids: list[str] = []
    page = PageRequest(limit=2)
    while True:
        some = await fleet.environments(EnvFilter(), page)
        ids += [each.id for each, _ in some.items]
        if some.after is None:
            break
        page = PageRequest(limit=2, after=some.after)
    assert ids == ["e0", "e1", "e2", "e3", "e4"]


async def test_the_end_of_an_environment_is_warned_of_once_for_each_end(fleet: SqlFleet) -> None:
    await planned(fleet, "e1", [])
    (environment, _) = await fleet.environment("e1")
    assert await fleet.expiring(before=environment.expires_at - timedelta(seconds=1)) == ()
    assert await fleet.expiring(before=environment.expires_at) == (environment,)
    assert await fleet.warn(environment)
    assert not await fleet.warn(environment)
    later = replace(environment, expires_at=environment.expires_at + timedelta(hours=1))
    later = await fleet.change_environment(later, revision=0, event="env.changed")
    assert await fleet.warn(later)
    assert (await types_of_events(fleet)).count("env.expiring") == 2


async def test_operations_are_listed_newest_first_and_what_is_under_way_oldest_first(fleet: SqlFleet) -> None:
    made = [an_operation(f"e{number}", OperationKind.DELETE) for number in range(3)]
    for each in made:
        await fleet.save_operation(each)
    await fleet.save_operation(concluded(made[1], at=NOON))
    newest = await fleet.operations(running=False, page=PageRequest(limit=2))
    assert [each.subject for each in newest.items] == ["e2", "e1"]
    assert newest.after is not None
    rest = await fleet.operations(running=False, page=PageRequest(limit=2, after=newest.after))
    assert [each.subject for each in rest.items] == ["e0"]
    under_way = await fleet.operations(running=True, page=EVERYTHING)
    assert [each.subject for each in under_way.items] == ["e0", "e2"]
    assert (await fleet.operation(made[1].id)).state is OperationState.SUCCEEDED
    with pytest.raises(NotFound):
        await fleet.operation("none")


async def test_events_can_be_followed_without_missing_any(fleet: SqlFleet) -> None:
    _, newest = await fleet.event_bounds()
    waiting = asyncio.create_task(fleet.event_comes(after=newest))
    await asyncio.sleep(0)
    assert not waiting.done()
    await planned(fleet, "e1", [])
    await asyncio.wait_for(waiting, 60)
    told = await fleet.events(after=newest, limit=10)
    assert [event.type for event in told] == ["env.created", "operation.started"]
    assert [int(event.id) for event in told] == [int(newest) + 1, int(newest) + 2]


async def test_a_thousand_placements_a_second_with_fifty_hosts_and_a_thousand_machines(file: ControllerFile) -> None:
    room = Resource(cpu_total=100, mem_total=100_000, disk_total=1_000_000)
    for number in range(50):
        await file.fleet.add_host(a_host(f"h{number}", room=room), most=MOST)
    for number in range(20):
        await planned(file.fleet, f"full{number}", [a_spec()] * 50)
    began = time.process_time()
    plans = await asyncio.gather(*(planned(file.fleet, f"e{number}", [a_spec()]) for number in range(500)))
    took_s = time.process_time() - began
    assert all(isinstance(plan, Plan) for plan in plans)
    # Others may work on this machine, so that its own time is counted; what must not come is a scan of all machines.
    assert 500 / took_s > 200, f"{500 / took_s:.0f} placements a second of computing"


PROGRAM = """
import asyncio, json, os, sys
from pathlib import Path
from tests.contracts.fleet_kit import ControllerFile, a_host, a_spec, planned

def tell(*what):
    os.write(1, json.dumps(what).encode() + b"\\n")

async def live(fleet, name):
    for number in range(10**9):
        env_id = f"{name}{number}"
        await planned(fleet, env_id, [a_spec(), a_spec()])
        tell("planned", env_id)
        if number % 2:
            for vm in (await fleet.environment(env_id))[1]:
                await fleet.remove_vm(vm.id)
            await fleet.remove_environment(env_id)
            tell("removed", env_id)

async def main():
    file = ControllerFile(Path(sys.argv[1]))
    fleet = await file.open()
    from borough.fleet.resources import Resource
    room = Resource(cpu_total=10**6, mem_total=10**9, disk_total=10**9)
    for number in range(3):
        await fleet.add_host(a_host(f"h{number}", room=room), most=10)
    await asyncio.gather(*(live(fleet, name) for name in "abcdefgh"))

asyncio.run(main())
"""


async def test_whatever_was_acknowledged_survives_a_kill_and_nothing_is_half_there(tmp_path: Path) -> None:
    path = tmp_path / "ctl.db"
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)], stdout=subprocess.PIPE, cwd=REPOSITORY) as daemon:
        assert daemon.stdout is not None
        told = [daemon.stdout.readline() for _ in range(200)]
        os.kill(daemon.pid, signal.SIGKILL)
        told += daemon.stdout.readlines()
    said = [json.loads(line) for line in told if line.endswith(b"\n")]
    planned_ones = {what[1] for what in said if what[0] == "planned"}
    removed = {what[1] for what in said if what[0] == "removed"}
    file = ControllerFile(path)
    fleet = await file.open()
    found = (await fleet.environments(EnvFilter(), PageRequest(limit=100_000))).items
    there = {environment.id: vms for environment, vms in found}
    assert not removed & there.keys()
    # What is kept is kept whole; only an odd one may be on its way out.
    assert all(len(vms) == 2 or int(env_id[1:]) % 2 for env_id, vms in there.items())
    assert {env_id for env_id in planned_ones - removed if int(env_id[1:]) % 2 == 0} <= there.keys()
    assert sum(host.report.resource.vm_count for host in await fleet.hosts()) == sum(map(len, there.values()))
    await file.close()
