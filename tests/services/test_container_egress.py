"""Containers with an egress list, on a host put together as it is: out by the list, and in no other way."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from borough.adapters.engines.docker.ways import subnets_for
from borough.bootstrap.host import OpenHost, open_host
from borough.config.fleet import HostSettings
from borough.core.errors import BoroughError
from borough.fleet.engines import Capability, Engine
from borough.fleet.ports.engines import ExecOrder
from borough.fleet.ports.host_agent import CreateOrder
from borough.fleet.vms import VmId, VmState, vm_spec
from tests.conftest import eventually, need
from tests.contracts.engine_kit import IMAGE, dockerd, import_image, sent
from tests.contracts.fleet_kit import fresh_vm_id
from tests.services.fleet_house import settings_of_host
from tests.services.spaces import Echo, ip, outside, own_network, tcp, udp

pytestmark = pytest.mark.anyio
HOST, WORLD = "192.0.2.1", "192.0.2.2"
LISTED, OTHER, ON_HOST = 8080, 8081, 8082
BY_PROXY = """
at=${http_proxy#http://}
printf 'CONNECT %s HTTP/1.1\\r\\nHost: %s\\r\\n\\r\\nhello' "$0" "$0" | nc -w 3 "${1:-${at%:*}}" "${at#*:}"
"""


@pytest.fixture
def world() -> Iterator[str]:
    need(os.geteuid() == 0, "the right to make network namespaces", "run the tests as root")
    need(shutil.which("nft"), "nft", "apt-get install nftables")
    need(shutil.which("dockerd"), "dockerd", "apt-get install docker.io")
    with own_network(), outside(HOST, WORLD) as space:
        yield space


@pytest.fixture
def settings(world: str, tmp_path: Path) -> Iterator[HostSettings]:
    folder = tmp_path / "d"
    with dockerd(folder, folder / "docker.sock"):
        import_image(folder, folder / "docker.sock")
        yield replace(settings_of_host(tmp_path), docker_socket=folder / "docker.sock")
    ip("link", "del", "tt0")


@asynccontextmanager
async def daemon(settings: HostSettings) -> AsyncIterator[OpenHost]:
    async with open_host(settings) as opened:
        yield opened


def order(*listed: str) -> CreateOrder:
    spec = vm_spec(
        image=IMAGE, engine=Engine.DOCKER, cpu=1, mem_mib=64, disk_mib=256, command=("sleep", "1000"),
        egress_allowlist=listed,
    )  # fmt: skip
    return CreateOrder(vm_id=fresh_vm_id(), env_id="e", spec=spec)


async def says(host: OpenHost, vm_id: VmId, *argv: str) -> str:
    chunks = host.daemon.execute(vm_id, ExecOrder(argv=argv, timeout_s=20), sent())
    return b"".join([chunk.data async for chunk in chunks]).decode(errors="replace")


async def by_proxy(host: OpenHost, vm_id: VmId, *to: str) -> str:
    return await says(host, vm_id, "sh", "-c", BY_PROXY, *to)


async def reaches_what_is_listed(host: OpenHost, vm_id: VmId) -> None:
    passed = await by_proxy(host, vm_id, f"{WORLD}:{LISTED}")
    assert passed.startswith("HTTP/1.1 200"), passed
    assert passed.endswith("hello"), "and the other side is spoken to"
    refused = await by_proxy(host, vm_id, f"{WORLD}:{OTHER}")
    assert refused.startswith("HTTP/1.1 403"), refused


async def reaches_nothing_else(host: OpenHost, vm_id: VmId) -> None:
    gateway = (await says(host, vm_id, "sh", "-c", "ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p'")).strip()
    assert gateway
    calls = {
        "tcp": f"echo hello | nc -w 1 {WORLD} {LISTED}",
        "udp": f"echo hello | nc -u -w 1 {WORLD} {LISTED}",
        "the host": f"echo hello | nc -w 1 {HOST} {ON_HOST}",
        "the host at its gateway": f"echo hello | nc -w 1 {gateway} {ON_HOST}",
        "the host, udp": f"echo hello | nc -u -w 1 {gateway} {ON_HOST}",
        "dns": f"timeout 3 nslookup example.org {WORLD}",
        "dns of the runtime": "timeout 3 nslookup example.org",
        "dns of the host": f"timeout 3 nslookup example.org {gateway}",
        "ping": f"ping -c 1 -W 1 {WORLD}",
        "ping the host": f"ping -c 1 -W 1 {gateway}",
        "ipv6": f"echo hello | nc -w 1 2001:db8::2 {LISTED}",
        "ipv6 to whoever is near": "ping -6 -c 1 -W 1 ff02::1%eth0",
    }

    async def refused(what: str) -> None:
        said = await says(host, vm_id, "sh", "-c", calls[what])
        for word in ("hello", "bytes from", "Address 1", "Name:"):
            assert word not in said, (what, said)

    await asyncio.gather(*map(refused, calls))


async def test_a_container_reaches_what_is_on_its_list_and_nothing_else_also_after_a_restart(
    world: str, settings: HostSettings
) -> None:
    with Echo(world, LISTED), Echo(world, OTHER), Echo(world, 53), Echo(None, ON_HOST):
        assert await asyncio.to_thread(tcp, None, WORLD, LISTED), "the control: the world is there"
        assert await asyncio.to_thread(udp, None, WORLD, LISTED)
        listed, other = order(f"{WORLD}:{LISTED}"), order("192.0.2.99:1")
        async with daemon(settings) as host:
            [offer] = [each for each in (await host.daemon.report()).offers if each.engine is Engine.DOCKER]
            assert Capability.EGRESS_ALLOWLIST in offer.capabilities, offer.reasons
            for each in (listed, other):
                assert (await host.daemon.create(each)).state is VmState.RUNNING
            await reaches_what_is_listed(host, listed.vm_id)
            await reaches_nothing_else(host, listed.vm_id)
            gateway = str(next(subnets_for(listed.vm_id))[1])
            assert "403" in await by_proxy(host, other.vm_id, f"{WORLD}:{LISTED}"), "the list is one machine's"
            assert "HTTP" not in await by_proxy(host, other.vm_id, f"{WORLD}:{LISTED}", gateway), "and so is the way"
            await host.daemon.stop(listed.vm_id)
            await host.daemon.start(listed.vm_id)
            await reaches_what_is_listed(host, listed.vm_id)
        async with daemon(settings) as again:

            async def reached() -> bool:
                return (await by_proxy(again, listed.vm_id, f"{WORLD}:{LISTED}")).endswith("hello")

            await eventually(reached)
            await reaches_what_is_listed(again, listed.vm_id)
            await reaches_nothing_else(again, listed.vm_id)
            await again.daemon.snapshot(listed.vm_id, "good")
            await again.daemon.restore(listed.vm_id, "good")
            await reaches_what_is_listed(again, listed.vm_id)
            for each in (listed, other):
                await again.daemon.destroy(each.vm_id)
            left = subprocess.run(
                ["docker", "-H", f"unix://{settings.docker_socket}", "network", "ls", "--format", "{{.Name}}"],
                check=True, capture_output=True, text=True,
            ).stdout  # fmt: skip
            assert "borough-way" not in left
            devices = subprocess.run(["ip", "-br", "link"], check=True, capture_output=True, text=True).stdout
            assert "ttd-" not in devices


async def test_without_the_firewall_it_is_not_offered_and_says_why(settings: HostSettings) -> None:
    async with daemon(replace(settings, change_network=False)) as host:
        [offer] = [each for each in (await host.daemon.report()).offers if each.engine is Engine.DOCKER]
        assert Capability.EGRESS_ALLOWLIST not in offer.capabilities
        assert "firewall" in offer.reasons[Capability.EGRESS_ALLOWLIST]
        refused = await asyncio.gather(host.daemon.create(order(f"{WORLD}:{LISTED}")), return_exceptions=True)
        assert isinstance(refused[0], BoroughError)
    ip("link", "add", "tt0", "type", "bridge")


def test_each_machine_tries_networks_of_its_own_in_the_same_order() -> None:
    one, other = (list(subnets_for(VmId(f"1b9d6bcd-bb{n}"))) for n in range(2))
    assert one == list(subnets_for(VmId("1b9d6bcd-bb0")))
    assert not set(one) & set(other)
    assert len(set(one)) == len(one)
    assert all(str(each).startswith("198.1") and each.prefixlen == 29 for each in one)
