"""A published port that somebody else has taken is the trouble of one machine, on a host without a bridge."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from borough.bootstrap.host import OpenHost, open_host
from borough.config.fleet import HostSettings
from borough.core.errors import Unavailable
from borough.fleet.engines import Engine
from borough.fleet.ports.host_agent import CreateOrder
from borough.fleet.vms import VmState, vm_spec
from tests.contracts.engine_kit import IMAGE, root_folder
from tests.contracts.fleet_kit import fresh_vm_id
from tests.services.fleet_house import settings_of_host
from tests.services.spaces import own_network

pytestmark = pytest.mark.anyio
SERVICE = 8080


@pytest.fixture
async def settings(tmp_path: Path) -> AsyncIterator[HostSettings]:
    root_folder(tmp_path / "images" / IMAGE)
    with own_network() if os.geteuid() == 0 else nullcontext():
        yield replace(settings_of_host(tmp_path), change_network=False)


@asynccontextmanager
async def daemon(settings: HostSettings) -> AsyncIterator[OpenHost]:
    async with open_host(settings) as opened:
        yield opened


def an_order() -> CreateOrder:
    spec = vm_spec(
        image=IMAGE, engine=Engine.BUBBLEWRAP, cpu=1, mem_mib=64, disk_mib=100, ports=(SERVICE,),
        command=("sh", "-c", "sleep 1000"),
    )  # fmt: skip
    return CreateOrder(vm_id=fresh_vm_id(), env_id="e", spec=spec)


async def test_a_port_that_others_took_while_the_daemon_was_away_is_one_machines_trouble(
    settings: HostSettings,
) -> None:
    first, second = an_order(), an_order()
    async with daemon(settings) as host:
        port = (await host.daemon.create(first)).port_map[SERVICE]
    with socket.create_server(("127.0.0.1", port)):
        async with daemon(settings) as host:
            assert (await host.daemon.create(second)).state is VmState.RUNNING
            await host.daemon.reconcile()
            lacking = await host.daemon.machine(first.vm_id)
            assert lacking.state is VmState.RUNNING
            assert str(port) in (lacking.error or ""), "and it is told which port it lacks"
            assert (await host.daemon.machine(second.vm_id)).error is None
            await host.daemon.destroy(second.vm_id)
    async with daemon(settings) as host:
        await host.daemon.reconcile()
        assert (await host.daemon.machine(first.vm_id)).error is None
        with socket.create_connection(("127.0.0.1", port), 5.0):
            pass  # it listens there again
        await host.daemon.destroy(first.vm_id)
        assert await host.daemon.machines() == []


async def test_a_port_that_is_taken_between_lease_and_listening_is_told_and_leaves_nothing(
    settings: HostSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[socket.socket] = []

    def grabbed(port: int) -> bool:
        """Say that a port is free, and take it: somebody else was faster."""
        taken.append(socket.create_server(("127.0.0.1", port)))
        return True

    monkeypatch.setattr("borough.bootstrap.host.port_is_free", grabbed)
    async with daemon(settings) as host:
        with pytest.raises(Unavailable) as refused:
            await host.daemon.create(an_order())
        assert refused.value.code == "create_failed"
        assert "cannot be published" in refused.value.message
        assert await host.daemon.machines() == []
    for each in taken:
        each.close()


async def test_a_port_that_is_taken_between_lease_and_listening_is_given_up_for_another(
    settings: HostSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[socket.socket] = []

    def grabbed_twice(port: int) -> bool:
        """Say that a port is free, and take the first two: somebody else was faster, and once more."""
        if len(taken) < 2:
            taken.append(socket.create_server(("127.0.0.1", port)))
        return True

    monkeypatch.setattr("borough.bootstrap.host.port_is_free", grabbed_twice)
    order = an_order()
    async with daemon(settings) as host:
        made = await host.daemon.create(order)
        assert (made.state, made.error) == (VmState.RUNNING, None)
        assert made.port_map[SERVICE] not in {each.getsockname()[1] for each in taken}
        with socket.create_connection(("127.0.0.1", made.port_map[SERVICE]), 5.0):
            pass
        assert await host.daemon.create(order) == made, "the same order is the same machine"
    for each in taken:
        each.close()
    async with daemon(settings) as host:
        assert (await host.daemon.machine(order.vm_id)).port_map == made.port_map, "what was lent last is kept"
        await host.daemon.destroy(order.vm_id)


async def test_two_daemons_that_share_a_range_of_ports_both_get_theirs(
    settings: HostSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("borough.bootstrap.host.port_is_free", lambda _port: True)  # both look before either listens
    (tmp_path / "other").mkdir()
    root_folder(tmp_path / "other" / "images" / IMAGE)
    others = replace(settings_of_host(tmp_path / "other"), change_network=False, ports=settings.ports)
    orders = an_order(), an_order()
    async with daemon(settings) as one, daemon(others) as other:
        made = await asyncio.gather(one.daemon.create(orders[0]), other.daemon.create(orders[1]))
        assert {vm.state for vm in made} == {VmState.RUNNING}
        assert len({vm.port_map[SERVICE] for vm in made}) == 2
        await asyncio.gather(one.daemon.destroy(orders[0].vm_id), other.daemon.destroy(orders[1].vm_id))
