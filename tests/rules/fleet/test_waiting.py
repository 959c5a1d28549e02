"""Waiting for room: hosts are kept for who asked first, and only such as are of use to it."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from borough.core.errors import Invalid
from borough.fleet.engines import Engine
from borough.fleet.fitness import Constraints
from borough.fleet.hosts import Host, HostState
from borough.fleet.placement import NotPlaced, Plan, place
from borough.fleet.resources import Resource
from borough.fleet.vms import VmSpec
from borough.fleet.waiting import LONGEST_WAIT_S, Waiting, check_wait, reasons, with_claims
from tests.contracts.fleet_kit import NOON, a_host, a_spec


def host(name: str, mem: int, used: int = 0, state: HostState = HostState.ONLINE) -> Host:
    room = Resource(cpu_total=8, mem_total=mem, mem_used=used, disk_total=100_000)
    return a_host(name, room=room, state=state)


def waits(env_id: str, number: int, *specs: VmSpec) -> Waiting:
    return Waiting(
        env_id=env_id, operation_id=env_id, vm_ids=(), specs=specs, constraints=Constraints(), lifetime_s=60,
        until=NOON + timedelta(seconds=60), number=number,
    )  # fmt: skip


def kept(hosts: Sequence[Host]) -> dict[str, str | None]:
    return {each.id: each.kept_for for each in hosts}


def test_hosts_that_could_take_it_when_empty_are_kept_for_who_waits() -> None:
    hosts = [host("full", 4096, 4096), host("small", 1024), host("gone", 8192, state=HostState.OFFLINE)]
    big = waits("big", 1, a_spec(mem_mib=4000))
    assert kept(with_claims(hosts, [big], {})) == {"full": "big", "small": None, "gone": None}
    assert kept(with_claims(hosts, [], {})) == {"full": None, "small": None, "gone": None}


def test_who_asked_first_is_kept_from_nothing_and_keeps_from_the_later() -> None:
    hosts = [host("one", 4096)]
    queue = [waits("first", 1, a_spec(mem_mib=4000)), waits("second", 2, a_spec(mem_mib=100))]
    assert kept(with_claims(hosts, queue, {}, before=1)) == {"one": None}
    assert kept(with_claims(hosts, queue, {}, before=2)) == {"one": "first"}
    assert kept(with_claims(hosts, queue, {})) == {"one": "first"}


def test_a_later_one_is_placed_where_the_earlier_has_no_use_for_the_host() -> None:
    hosts = [host("full", 8192, 8192), host("small", 1024)]
    now = with_claims(hosts, [waits("big", 1, a_spec(mem_mib=8000))], {})
    placed = place([a_spec(mem_mib=100)], now)
    assert isinstance(placed, Plan)
    assert placed.placed[0].host_id == "small"
    assert placed.placed[0].others["full"] == "its room is waited for by big, which asked before"
    refused = place([a_spec(mem_mib=2000)], now)
    assert isinstance(refused, NotPlaced)
    assert refused.hosts["full"].startswith("its room is waited for by big")
    other_engine = waits("other", 1, a_spec(engine=Engine.FIRECRACKER))
    assert kept(with_claims(hosts, [other_engine], {})) == {"full": None, "small": None}


def test_the_reasons_name_every_host() -> None:
    refused = place([a_spec(mem_mib=2000)], [host("full", 4096, 4096), host("small", 1024)])
    assert isinstance(refused, NotPlaced)
    told = reasons(refused)
    assert told[0].startswith("waits for room: no host has enough resources")
    assert [line.partition(":")[0] for line in told[1:]] == ["full", "small"]


@pytest.mark.parametrize("seconds", [0, -1, LONGEST_WAIT_S + 1])
def test_a_wait_has_an_end(seconds: int) -> None:
    assert check_wait(1) == 1
    with pytest.raises(Invalid) as refused:
        check_wait(seconds)
    assert refused.value.code == "invalid_wait"
