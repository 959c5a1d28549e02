"""Machines with an egress list, on a host put together as it is: seen from inside, on a bridge and without one."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from borough.bootstrap.host import OpenHost, open_host
from borough.config.fleet import HostSettings
from borough.fleet.engines import Capability, Engine
from borough.fleet.ports.engines import ExecOrder
from borough.fleet.ports.host_agent import CreateOrder
from borough.fleet.vms import VmId, VmState, vm_spec
from tests.conftest import need
from tests.contracts.engine_kit import IMAGE, root_folder, sent
from tests.contracts.fleet_kit import fresh_vm_id
from tests.services.fleet_house import opened_host, settings_of_host
from tests.services.spaces import Echo, ip, outside, own_network

pytestmark = pytest.mark.anyio
HOST, WORLD = "192.0.2.1", "192.0.2.2"
LISTED, OTHER = 8080, 8081
BY_PROXY = """
at=${http_proxy#http://}
printf 'CONNECT %s HTTP/1.1\\r\\nHost: %s\\r\\n\\r\\nhello' "$0" "$0" | nc -w 3 "${at%:*}" "${at#*:}"
"""


@pytest.fixture
def world() -> Iterator[str]:
    need(os.geteuid() == 0, "the right to make network namespaces", "run the tests as root")
    need(shutil.which("nft"), "nft", "apt-get install nftables")
    with own_network(), outside(HOST, WORLD) as space:
        yield space


@pytest.fixture(params=["bridged", "user-mode"])
def settings(request: pytest.FixtureRequest, world: str, tmp_path: Path) -> Iterator[HostSettings]:
    root_folder(tmp_path / "images" / IMAGE)
    bridged = request.param == "bridged"
    yield replace(settings_of_host(tmp_path), change_network=bridged)
    if bridged:
        ip("link", "del", "tt0")


@asynccontextmanager
async def daemon(settings: HostSettings) -> AsyncIterator[OpenHost]:
    async with open_host(settings) as opened:
        yield opened


async def says(host: OpenHost, vm_id: VmId, *argv: str) -> str:
    chunks = host.daemon.execute(vm_id, ExecOrder(argv=argv, timeout_s=20), sent())
    return b"".join([chunk.data async for chunk in chunks]).decode(errors="replace")


async def by_proxy(host: OpenHost, vm_id: VmId, to: str) -> str:
    return await says(host, vm_id, "sh", "-c", BY_PROXY, to)


async def reaches_what_is_listed(host: OpenHost, vm_id: VmId) -> None:
    passed = await by_proxy(host, vm_id, f"{WORLD}:{LISTED}")
    assert passed.startswith("HTTP/1.1 200"), passed
    assert passed.endswith("hello"), "and the other side is spoken to"
    refused = await by_proxy(host, vm_id, f"{WORLD}:{OTHER}")
    assert refused.startswith("HTTP/1.1 403"), refused
    around = await says(host, vm_id, "sh", "-c", f"echo hello | nc -w 1 {WORLD} {LISTED}")
    assert "hello" not in around, "nothing passes by the proxy"


async def test_a_machine_reaches_what_is_on_its_list_and_nothing_else(world: str, settings: HostSettings) -> None:
    with Echo(world, LISTED), Echo(world, OTHER):
        async with daemon(settings) as host:
            offers = {offer.engine: offer for offer in (await host.daemon.report()).offers}
            assert Capability.EGRESS_ALLOWLIST in offers[Engine.BUBBLEWRAP].capabilities
            spec = vm_spec(
                image=IMAGE, engine=Engine.BUBBLEWRAP, cpu=1, mem_mib=64, disk_mib=256,
                egress_allowlist=(f"{WORLD}:{LISTED}",),
            )  # fmt: skip
            listed = CreateOrder(vm_id=fresh_vm_id(), env_id="e", spec=spec)
            closed = replace(listed, vm_id=fresh_vm_id(), spec=replace(spec, egress_allowlist=(), deny_outgoing=True))
            for order in (listed, closed):
                assert (await host.daemon.create(order)).state is VmState.RUNNING
            await reaches_what_is_listed(host, listed.vm_id)
            proxy = await says(host, listed.vm_id, "sh", "-c", "echo ${http_proxy#http://}")
            at, _, port = proxy.strip().partition(":")
            call = f"printf 'CONNECT {WORLD}:{LISTED} HTTP/1.1\\r\\n\\r\\n' | nc -w 2 {at} {port}"
            assert "200" not in await says(host, closed.vm_id, "sh", "-c", call), "the list is one machine's"
            await host.daemon.stop(listed.vm_id)
            await host.daemon.start(listed.vm_id)
            await reaches_what_is_listed(host, listed.vm_id)
        async with daemon(settings) as again:
            await reaches_what_is_listed(again, listed.vm_id)
            await again.daemon.snapshot(listed.vm_id, "good")
            await again.daemon.restore(listed.vm_id, "good")
            await reaches_what_is_listed(again, listed.vm_id)
            for order in (listed, closed):
                await again.daemon.destroy(order.vm_id)


async def test_what_is_executed_in_a_machine_is_told_its_way_out(tmp_path: Path) -> None:
    async with opened_host(settings_of_host(tmp_path)) as (host, _):
        spec = vm_spec(image="base", engine=Engine.BUBBLEWRAP, cpu=1, mem_mib=64, disk_mib=256)
        free = CreateOrder(vm_id=fresh_vm_id(), env_id="e", spec=spec)
        listed = CreateOrder(
            vm_id=fresh_vm_id(), env_id="e", spec=replace(spec, egress_allowlist=("borough.internal:80",))
        )
        for order, told in ((free, ""), (listed, "http://127.0.0.1:3128")):
            await host.daemon.create(order)
            assert (await says(host, order.vm_id, "sh", "-c", "cat; echo $http_proxy")).strip() == told
            await host.daemon.destroy(order.vm_id)
