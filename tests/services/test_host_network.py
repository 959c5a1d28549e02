"""The host's network as machines, the host itself and the world outside see it; all in namespaces of the test's own."""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from borough.adapters.egress.judging import Judge
from borough.adapters.egress.verdicts import EgressVerdict
from borough.adapters.network.commands import PROXY_PORT
from borough.adapters.network.gateway import GatewayProxy
from borough.adapters.network.host import LinuxNetwork, NetworkSettings
from borough.fleet.addresses import link_name
from borough.fleet.engines import Engine
from borough.fleet.ports.network import Link
from borough.fleet.vms import Vm, VmId, VmState, vm_id_of, vm_spec
from tests.conftest import eventually, need
from tests.services.spaces import Echo, ip, outside, own_network, ping, tcp, udp, within

pytestmark = pytest.mark.anyio
HOST, WORLD = "192.0.2.1", "192.0.2.2"
SERVICE, DNS = 8080, 53


@pytest.fixture(autouse=True)
def _privilege() -> None:
    need(os.geteuid() == 0, "the right to make network namespaces", "run the tests as root")
    need(shutil.which("nft"), "nft", "apt-get install nftables")
    need(shutil.which("ip"), "ip", "apt-get install iproute2")


@pytest.fixture
def world(_privilege: None) -> Iterator[str]:
    """This test is a host with one neighbour; return the neighbour's namespace."""
    with own_network(), outside(HOST, WORLD) as space:
        yield space


@pytest.fixture
async def network(world: str) -> AsyncIterator[LinuxNetwork]:
    made = LinuxNetwork(NetworkSettings(marker=uuid4().hex))
    assert await made.open() is None
    yield made
    await made.close()


def machine(last: int, *, env: str = "one", **asked: Any) -> Vm:
    spec = vm_spec(image="root", engine=Engine.BUBBLEWRAP, ports=(SERVICE,), **asked)
    now = datetime.now(UTC)
    return Vm(
        id=vm_id_of(str(uuid4())), env_id=env, host_id="h", spec=spec, state=VmState.RUNNING, desired=VmState.RUNNING,
        created_at=now, ip=IPv4Address(f"10.10.0.{last}"), port_map={SERVICE: 20_000 + last},
    )  # fmt: skip


async def link(network: LinuxNetwork, vm: Vm) -> str:
    assert vm.ip is not None
    made = await network.attach(vm.id, vm.ip, namespace=True)
    assert made.namespace is not None
    return made.namespace


async def setup(network: LinuxNetwork, vms: Sequence[Vm], *, private: frozenset[str] = frozenset()) -> list[str]:
    spaces = [await link(network, vm) for vm in vms]
    await network.apply(vms, private=private)
    return spaces


async def test_a_published_port_answers_to_the_world_the_host_and_other_machines(
    world: str, network: LinuxNetwork
) -> None:
    one, other = machine(2), machine(3)
    spaces = await setup(network, [one, other])
    with Echo(spaces[0], SERVICE) as echo:
        assert tcp(world, HOST, 20_002)
        assert tcp(None, "127.0.0.1", 20_002)
        assert tcp(None, HOST, 20_002)
        assert tcp(None, "10.10.0.2", SERVICE)
        assert tcp(spaces[1], "10.10.0.2", SERVICE)
        # The machine sees who called from outside.
        assert WORLD in echo.peers
        assert not tcp(world, HOST, 20_003)


async def test_machines_reach_the_world(world: str, network: LinuxNetwork) -> None:
    [space] = await setup(network, [machine(2)])
    with Echo(world, SERVICE) as echo:
        assert tcp(space, WORLD, SERVICE)
        assert udp(space, WORLD, SERVICE)
        assert ping(space, WORLD)
        assert set(echo.peers) == {HOST}


async def test_a_machine_that_may_not_call_out_calls_nobody_and_still_answers(
    world: str, network: LinuxNetwork
) -> None:
    denied, open_one = machine(2, deny_outgoing=True), machine(3)
    closed, free = await setup(network, [denied, open_one])
    for _ in range(2):
        with Echo(world, SERVICE), Echo(world, DNS), Echo(None, DNS), Echo(free, SERVICE):
            # The control: the same calls by another machine succeed.
            for space, succeeds in ((free, True), (closed, False)):
                assert tcp(space, WORLD, SERVICE) is succeeds
                assert udp(space, WORLD, SERVICE) is succeeds
                assert ping(space, WORLD) is succeeds
                assert udp(space, WORLD, DNS) is succeeds, "DNS of the world"
                assert udp(space, "10.10.0.1", DNS) is succeeds, "DNS of the host"
                assert tcp(space, HOST, DNS) is succeeds, "the host by another address"
            assert not tcp(closed, "10.10.0.3", SERVICE), "a neighbour"
            assert not tcp(closed, HOST, 20_003), "a neighbour's published port"
        with Echo(closed, SERVICE):
            assert tcp(world, HOST, 20_002)
            assert tcp(None, "127.0.0.1", 20_002)
            assert tcp(free, "10.10.0.2", SERVICE), "it answers neighbours"
        # And the same once more after the rules were rendered anew, as after a restart.
        again = LinuxNetwork(replace(network._settings))
        assert await again.open() is None
        assert [await link(again, vm) for vm in (denied, open_one)] == [closed, free]
        await again.apply([denied, open_one], private=frozenset())


async def test_version_6_is_no_way_out(world: str, network: LinuxNetwork) -> None:
    [space] = await setup(network, [machine(2)])
    Path("/proc/sys/net/ipv6/conf/tt0/disable_ipv6").write_text("0")
    ip("addr", "add", "fd00::1/64", "dev", "tt0", "nodad")
    ip("-n", space, "addr", "add", "fd00::2/64", "dev", "eth0", "nodad")
    with Echo(None, SERVICE, family=socket.AF_INET6):
        assert not tcp(space, "fd00::1", SERVICE, family=socket.AF_INET6)
        # The control: it is our rules that keep it in.
        subprocess.run(["nft", "delete", "table", "bridge", "borough_tt0"], check=True)
        await eventually(lambda: asyncio.to_thread(tcp, space, "fd00::1", SERVICE, family=socket.AF_INET6))


async def test_a_link_speaks_for_its_own_address_only(world: str, network: LinuxNetwork) -> None:
    [space, _] = await setup(network, [machine(2, deny_outgoing=True), machine(3)])
    with Echo(world, SERVICE):
        ip("-n", space, "addr", "flush", "dev", "eth0")
        ip("-n", space, "addr", "add", "10.10.0.9/16", "dev", "eth0")
        ip("-n", space, "route", "replace", "default", "via", "10.10.0.1")
        assert not tcp(space, WORLD, SERVICE), "another address"
        subprocess.run(["nft", "delete", "table", "bridge", "borough_tt0"], check=True)
        # The control: without our rules it could.
        await eventually(lambda: asyncio.to_thread(tcp, space, WORLD, SERVICE))


async def test_another_hardware_address_is_not_spoken_for(world: str, network: LinuxNetwork) -> None:
    [space] = await setup(network, [machine(2)])
    with Echo(world, SERVICE):
        assert tcp(space, WORLD, SERVICE)
        ip("-n", space, "link", "set", "eth0", "address", "02:54:0a:0a:00:07")
        ip("-n", space, "route", "replace", "default", "via", "10.10.0.1")
        assert not tcp(space, WORLD, SERVICE)


async def test_a_private_environment_is_closed_to_others_and_open_to_itself(world: str, network: LinuxNetwork) -> None:
    vms = [machine(2, env="closed"), machine(3, env="closed"), machine(4, env="other"), machine(5, env="other")]
    one, two, three, four = await setup(network, vms, private=frozenset({"closed"}))
    with Echo(one, SERVICE), Echo(three, SERVICE):
        assert tcp(two, "10.10.0.2", SERVICE), "its own"
        assert tcp(four, "10.10.0.4", SERVICE), "the control: others among themselves"
        assert not tcp(three, "10.10.0.2", SERVICE)
        assert not ping(three, "10.10.0.2")
        assert not tcp(two, "10.10.0.4", SERVICE)
        assert tcp(world, HOST, 20_002), "what it publishes is published"


async def test_a_machine_with_a_list_reaches_what_is_on_it_by_the_proxy(world: str) -> None:
    told: list[EgressVerdict] = []

    async def on_verdict(vm_id: VmId, verdict: EgressVerdict) -> None:
        told.append(verdict)

    made = LinuxNetwork(NetworkSettings(marker=uuid4().hex), gateway=GatewayProxy(judge=Judge(), on_verdict=on_verdict))
    assert await made.open() is None
    try:
        vms = [machine(2, egress_allowlist=(f"{WORLD}:{SERVICE}",)), machine(3, deny_outgoing=True)]
        listed, denied = await setup(made, vms)
        with Echo(world, SERVICE), Echo(world, DNS):
            assert (await _tunnel(listed, f"{WORLD}:{SERVICE}")).startswith("HTTP/1.1 200")
            assert (await _tunnel(listed, f"{WORLD}:{DNS}")).startswith("HTTP/1.1 403")
            assert not tcp(listed, WORLD, SERVICE), "nothing passes by"
            assert not await _tunnel(denied, f"{WORLD}:{SERVICE}")
        assert [(verdict.port, verdict.allowed) for verdict in told] == [(SERVICE, True), (DNS, False)]
    finally:
        await made.close()


async def _tunnel(space: str, to: str) -> str:
    def ask() -> str:
        with socket.socket() as caller:
            caller.settimeout(2.0)
            try:
                caller.connect(("10.10.0.1", PROXY_PORT))
                caller.sendall(f"CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n".encode())
                return caller.recv(256).decode()
            except OSError:
                return ""

    return await asyncio.to_thread(within, space, ask)


async def test_what_is_made_is_found_again_mended_and_removed(world: str, network: LinuxNetwork) -> None:
    vm = machine(2)
    [space] = await setup(network, [vm])
    before = _rules()
    assert vm.ip is not None

    again = LinuxNetwork(network._settings)
    assert await again.open() is None
    assert await again.attach(vm.id, vm.ip, namespace=True) == await network.attach(vm.id, vm.ip, namespace=True)
    await again.apply([vm], private=frozenset())
    assert _rules() == before, "identical after a restart"

    ip("link", "del", "tt0")
    assert await again.open() is None
    await again.attach(vm.id, vm.ip, namespace=True)
    await again.apply([vm], private=frozenset())
    with Echo(space, SERVICE):
        assert tcp(world, HOST, 20_002), "mended"

    ip("link", "del", link_name(vm.id))
    await again.attach(vm.id, vm.ip, namespace=True)
    with Echo(space, SERVICE):
        assert tcp(world, HOST, 20_002), "mended again"

    await again.sweep(frozenset({vm.id}))
    assert Path("/run/netns", space).exists()
    await again.sweep(frozenset())
    assert not Path("/run/netns", space).exists()
    await again.close()
    assert _rules() == ""
    assert "tt" not in _devices()


async def test_a_tap_is_made_once_and_removed(world: str, network: LinuxNetwork) -> None:
    vm = machine(2)
    assert vm.ip is not None
    first: Link = await network.attach(vm.id, vm.ip, namespace=False)
    assert await network.attach(vm.id, vm.ip, namespace=False) == first
    assert first.device == link_name(vm.id)
    assert first.device in _devices()
    await network.detach(vm.id)
    await network.detach(vm.id)
    assert first.device not in _devices()


async def test_what_is_anothers_is_not_touched(world: str, network: LinuxNetwork) -> None:
    vm = machine(2)
    await setup(network, [vm])
    stranger = LinuxNetwork(NetworkSettings(marker="another"))
    reason = await stranger.open()
    assert reason is not None
    assert "tt0" in reason
    neighbour = LinuxNetwork(NetworkSettings(marker="another", bridge="tt1"))
    assert await neighbour.open() is None
    await neighbour.sweep(frozenset())
    await neighbour.detach(vm.id)
    await neighbour.close()
    assert link_name(vm.id) in _devices()
    assert "tt0" in _devices()
    assert "borough_tt0" in _rules()


async def test_dockers_drop_is_mended_told_and_put_back(world: str, network: LinuxNetwork) -> None:
    docker = (
        "table ip filter {\n chain DOCKER-USER {\n counter return\n }\n"
        " chain FORWARD {\n type filter hook forward priority 0; policy drop;\n counter jump DOCKER-USER\n }\n}\n"
    )
    subprocess.run(["nft", "-f", "-"], input=docker.encode(), check=True)
    vm = machine(2)
    [space] = await setup(network, [vm])
    with Echo(space, SERVICE), Echo(world, SERVICE):
        assert tcp(world, HOST, 20_002)
        assert tcp(space, WORLD, SERVICE)
        assert any("DOCKER-USER" in warning for warning in network.warnings)
        await network.apply([vm], private=frozenset())
        assert _rules().count("comment") == 2, "once, not again each time"
    await network.close()
    assert "comment" not in _rules()
    assert "policy drop" in _rules()


async def test_a_port_in_use_is_not_free(world: str, network: LinuxNetwork) -> None:
    assert await network.is_free(SERVICE)
    with Echo(None, SERVICE):
        assert not await network.is_free(SERVICE)
    assert await network.is_free(SERVICE)
    with socket.socket(socket.AF_INET6) as six:
        six.bind(("::1", SERVICE))
        six.listen()
        assert not await network.is_free(SERVICE)


async def test_without_privilege_ports_are_forwarded_and_that_is_told(world: str) -> None:
    vm = machine(2)

    async def connect(vm_id: VmId, port: int) -> socket.socket:
        assert vm_id == vm.id
        inner = within(world, lambda: socket.create_connection(("127.0.0.1", port), 2.0))
        inner.setblocking(False)
        return inner

    made = LinuxNetwork(NetworkSettings(marker="m", privileged=False), connect=connect)
    reason = await made.open()
    assert reason is not None
    assert any(reason in warning for warning in made.warnings)
    assert vm.ip is not None
    assert (await made.attach(vm.id, vm.ip, namespace=True)).device is None
    await made.apply([vm], private=frozenset())
    with Echo(world, SERVICE):
        assert await asyncio.to_thread(tcp, None, "127.0.0.1", 20_002)
    assert not await asyncio.to_thread(tcp, None, "127.0.0.1", 20_002), "nobody answers inside"
    await made.apply([], private=frozenset())
    assert await made.is_free(20_002)
    await made.close()


def _rules() -> str:
    return subprocess.run(["nft", "-s", "list", "ruleset"], check=True, capture_output=True, text=True).stdout


def _devices() -> str:
    return subprocess.run(["ip", "link", "show"], check=True, capture_output=True, text=True).stdout
