"""What holds of QEMU's machines: the suite's promises on one machine, and what only this engine promises.

The machine is made by a daemon that is killed at once, so every test looks at one that was found again. The tests go
from one state of it to the next, as it takes seconds to boot; each would also do alone.
"""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from uuid import uuid4

import pytest

from borough.adapters.egress.judging import Judge
from borough.adapters.egress.verdicts import EgressVerdict
from borough.adapters.engines import children
from borough.adapters.engines.qemu import agent
from borough.adapters.engines.qemu.driver import QemuMachines
from borough.adapters.engines.qemu.running import QemuSettings
from borough.adapters.network.commands import PROXY_PORT
from borough.adapters.network.gateway import GatewayProxy
from borough.adapters.network.host import LinuxNetwork, NetworkSettings
from borough.adapters.storage.files import FileStore
from borough.core.errors import BoroughError, Conflict, NotFound
from borough.fleet.engines import Capability, Engine, Offer
from borough.fleet.images import ImageForm
from borough.fleet.ports.engines import ExecOrder, Finding, Found, MachineOrder
from borough.fleet.vms import Origin, VmId, vm_id_of, vm_spec
from tests.conftest import eventually, need
from tests.contracts import test_engine_driver as suite
from tests.contracts.engine_kit import Bench, run, sent, vm_of
from tests.contracts.qemu_kit import CLONE_AT, DISK_MIB, IMAGE, SSH_AT, Home, bench_of, made_by_a_killed_daemon
from tests.machines import tiny
from tests.services.spaces import Echo, outside, own_network

pytestmark = pytest.mark.anyio
HOST, WORLD = "192.0.2.1", "192.0.2.2"
SHARED: list[Callable[[Bench], Awaitable[None]]] = [
    suite.test_a_command_may_say_much,
    suite.test_a_command_ends_with_whoever_listens_and_with_its_time,
    suite.test_a_command_may_have_a_terminal,
    suite.test_a_terminal_is_typed_at_and_resized,
    suite.test_a_terminal_that_is_left_ends_its_command,
    suite.test_files_go_in_and_come_out,
    suite.test_a_machine_is_made_once,
    suite.test_another_hosts_machine_is_not_ours,
]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need(shutil.which("qemu-system-x86_64"), "QEMU", "apt-get install qemu-system-x86 qemu-utils")
    need(tiny.missing() is None, tiny.missing() or "", "apt-get install e2fsprogs qemu-utils cpio")
    return tiny.build(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def home(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with made_by_a_killed_daemon(image, tmp_path_factory.mktemp("home")) as made:
        yield made


@pytest.fixture
async def machine(home: Home) -> tuple[QemuMachines, VmId]:
    driver = home.driver()
    await driver.create(home.order)
    return driver, home.order.vm_id


Machine = tuple[QemuMachines, VmId]


def entered(host: str, port: int, key: Path, *command: str) -> str:
    """Return what a command says to a person who enters by key."""
    argv = ["ssh", "-F", "none", "-i", str(key), "-p", str(port), "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    finished = subprocess.run([*argv, *options, f"root@{host}", *command], check=False, capture_output=True, text=True)
    return finished.stdout + finished.stderr


async def test_it_is_found_after_the_daemon_was_killed_and_entered_through_its_published_port(
    home: Home, machine: Machine
) -> None:
    driver, vm_id = machine
    assert (await driver.find(vm_id)).found is Found.RUNNING
    assert list(await driver.machines()) == [vm_id]
    assert (await run(driver, vm_id, "hostname")).out == f"{vm_id}\n"
    assert await asyncio.to_thread(entered, "127.0.0.1", SSH_AT, home.key, "hostname") == f"{vm_id}\n"
    stranger = home.folder / "stranger"
    if not stranger.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", stranger], check=True)
    assert "Permission denied" in await asyncio.to_thread(entered, "127.0.0.1", SSH_AT, stranger, "hostname")


@pytest.mark.parametrize("promise", SHARED, ids=lambda promise: promise.__name__.removeprefix("test_"))
async def test_as_of_every_engine(promise: Callable[[Bench], Awaitable[None]], home: Home) -> None:
    await promise(bench_of(home))


async def test_it_says_what_guests_boot_on_and_remembers(home: Home) -> None:
    offer = await home.driver().probe()
    assert isinstance(offer, Offer)
    assert offer.engine is Engine.QEMU
    assert offer.acceleration in ("kvm", "tcg")
    assert {Capability.KERNEL, Capability.EXEC, Capability.SNAPSHOT_MEMORY} <= offer.capabilities
    assert not {Capability.PRIVATE_NETWORK, Capability.EGRESS_ALLOWLIST} & offer.capabilities
    assert {Capability.PRIVATE_NETWORK, Capability.EGRESS_ALLOWLIST} <= offer.reasons.keys()
    assert (home.folder / "qemu" / "acceleration.json").exists()


async def test_its_command_has_input_output_errors_and_an_end(machine: Machine) -> None:
    driver, vm_id = machine
    said = await run(driver, vm_id, "sh", "-c", "cat; echo $MORE; echo oh >&2; exit 3",
                     stdin=(b"one ", b"two\n"), env={"MORE": "it's \"quoted\" $HOME\nand long"})  # fmt: skip
    assert (said.code, said.out, said.err) == (3, 'one two\nit\'s "quoted" $HOME and long\n', "oh\n")
    assert (await run(driver, vm_id, "pwd", cwd="/tmp")).out == "/tmp\n"
    assert (await run(driver, vm_id, "id", "-un", user="guest")).out == "guest\n"
    assert (await run(driver, vm_id, "no-such-program")).code == 127
    assert (await run(driver, vm_id, "sh", "-c", "exit 255")).code == 255
    assert (await run(driver, vm_id, "sh", "-c", "kill -9 $$")).code == 128 + signal.SIGKILL
    with pytest.raises(BoroughError) as late:
        await run(driver, vm_id, "sh", "-c", "setsid sleep 2000 & sleep 1000", timeout_s=2.0)
    assert late.value.code == "exec_timeout"

    async def is_gone() -> bool:
        return "sleep 2000" not in (await run(driver, vm_id, "ps")).out

    await eventually(is_gone)


async def test_nothing_of_a_command_is_on_the_hosts_command_lines(machine: Machine) -> None:
    driver, vm_id = machine
    secret = uuid4().hex

    async def listed() -> AsyncIterator[bytes]:
        shown = await asyncio.to_thread(lambda: subprocess.run(["ps", "axww"], capture_output=True, check=True).stdout)
        assert vm_id.encode() in shown, "the control: the command's own process is there"
        assert secret.encode() not in shown
        yield b"looked"

    order = ExecOrder(argv=("cat",), env={"SECRET": secret})
    said = b"".join([chunk.data async for chunk in driver.execute(vm_id, order, listed())])
    assert said == b"looked"


async def test_its_disk_memory_processor_and_card_are_what_was_asked_for(home: Home, machine: Machine) -> None:
    driver, vm_id = machine
    sectors = int((await run(driver, vm_id, "cat", "/sys/block/vda/size")).out)
    assert sectors * 512 == DISK_MIB << 20
    memory = (await run(driver, vm_id, "grep", "MemTotal", "/proc/meminfo")).out.split()
    assert 100_000 < int(memory[1]) <= 160 << 10
    assert (await run(driver, vm_id, "grep", "-c", "^processor", "/proc/cpuinfo")).out == "1\n"
    assert home.order.link.mac in (await run(driver, vm_id, "cat", "/sys/class/net/eth0/address")).out
    keys = (await run(driver, vm_id, "cat", "/root/.ssh/authorized_keys")).out
    assert home.key.with_suffix(".pub").read_text().strip() in keys
    assert len(keys.splitlines()) == 2, "and the host's own, and none that no server could read"


async def test_its_host_key_is_the_one_that_it_printed(home: Home, machine: Machine) -> None:
    driver, vm_id = machine
    await run(driver, vm_id, "true")
    printed = b"".join([part async for part in driver.logs(vm_id, offset=0, follow=False)]).decode()
    [known] = (home.folder / "qemu" / "machines" / vm_id / "known_hosts").read_text().splitlines()
    assert known.split()[0] == vm_id
    assert " ".join(known.split()[1:3]) in printed


async def test_what_it_prints_is_followed_and_old_parts_are_given_back(home: Home, machine: Machine) -> None:
    driver, vm_id = machine
    begun = len(b"".join([part async for part in driver.logs(vm_id, offset=0, follow=False)]))
    seen = b""
    async with asyncio.timeout(60):
        await run(driver, vm_id, "sh", "-c", "echo first >/dev/ttyS0")
        async for part in driver.logs(vm_id, offset=begun, follow=True):
            seen += part
            if seen == b"first\r\n":
                await run(driver, vm_id, "sh", "-c", "echo second >/dev/ttyS0")
            if b"second" in seen:
                break
    assert seen.startswith(b"first\r\nsecond")
    await run(driver, vm_id, "sh", "-c", "head -c 60000 /dev/zero | tr '\\0' x >/dev/ttyS0; echo last >/dev/ttyS0")
    settings = QemuSettings(state=home.folder / "qemu", marker=home.marker, publish_on="127.0.0.1", log_bytes=8192)
    frugal = QemuMachines(settings, bridged=False, has_proxy=False)
    await frugal.find(vm_id)
    kept = b"".join([part async for part in frugal.logs(vm_id, offset=0, follow=False)])
    assert len(kept) < 8192 + 4096 + 1
    assert kept.endswith(b"last\r\n")
    console = home.folder / "qemu" / "machines" / vm_id / "console.log"
    assert console.stat().st_size > 60_000, "places stay the same"
    again = b"".join([part async for part in frugal.logs(vm_id, offset=console.stat().st_size - 6, follow=False)])
    assert again == b"last\r\n"


async def test_its_console_is_typed_at_by_one_at_a_time(machine: Machine) -> None:
    driver, vm_id = machine

    async def keys() -> AsyncIterator[bytes]:
        yield b"first line\r"
        await asyncio.Event().wait()

    hearing = asyncio.create_task(run(driver, vm_id, "sh", "-c", "read line </dev/ttyS0; echo heard $line >/dev/ttyS0"))
    try:
        async with asyncio.timeout(60), aclosing(driver.console(vm_id, keys())) as parts:
            assert await anext(parts) == b""
            with pytest.raises(Conflict) as taken:
                await anext(driver.console(vm_id, keys()))
            assert taken.value.code == "console_in_use"
            printed = b""
            while b"heard first line" not in printed:
                printed += await anext(parts)
    finally:
        assert (await hearing).code == 0
    async with asyncio.timeout(60), aclosing(driver.console(vm_id, keys())) as again:
        assert await anext(again) == b""


async def test_without_ssh_its_guest_agent_is_asked(home: Home, machine: Machine) -> None:
    driver, vm_id = machine
    await run(driver, vm_id, "true")
    asked = await agent.greeted(home.folder / "qemu" / "machines" / vm_id)
    assert asked is not None
    stop = ExecOrder(argv=("killall", "-STOP", "dropbear"))
    assert [chunk.exit_code async for chunk in agent.execute(asked, stop, sent())] == [0]
    asked.close()
    assert (await run(driver, vm_id, "sh", "-c", "echo $SSH_CONNECTION")).out == "\n", "it did not come by SSH"
    said = await run(driver, vm_id, "sh", "-c", "cat; echo $MORE; echo oh >&2; exit 3",
                     stdin=(b"in\n",), env={"MORE": "it's"})  # fmt: skip
    assert (said.code, said.out, said.err) == (3, "in\nit's\n", "oh\n")
    with pytest.raises(BoroughError) as late:
        await run(driver, vm_id, "sleep", "4000", timeout_s=0.5)
    assert late.value.code == "exec_timeout"

    async def is_gone() -> bool:
        return "sleep 4000" not in (await run(driver, vm_id, "ps")).out

    await eventually(is_gone)
    with pytest.raises(Conflict) as refused:
        await run(driver, vm_id, "true", tty=(1, 1))
    assert refused.value.code == "not_possible"
    assert (await run(driver, vm_id, "killall", "-CONT", "dropbear")).code == 0


async def test_qemu_itself_is_held_to_a_size(home: Home, machine: Machine) -> None:
    need(os.geteuid() == 0, "the right to make control groups", "run the tests as root")
    process = home.process()
    assert process is not None
    groups = Path(f"/proc/{process.pid}/cgroup").read_text()
    assert f"borough-qemu-{home.marker[:8]}-{machine[1]}" in groups


async def test_a_machine_that_may_not_call_out_does_not(home: Home, machine: Machine) -> None:
    driver, vm_id = machine
    gateway = home.order.link.gateway
    with Echo(None, 5353):
        said = await run(driver, vm_id, "sh", "-c", f"echo hello | nc -w 2 {gateway} 5353", timeout_s=30.0)
        assert "hello" not in said.out
        said = await run(driver, vm_id, "sh", "-c", f"echo hello | nc -u -w 2 {gateway} 5353", timeout_s=30.0)
        assert "hello" not in said.out


async def test_it_tells_what_it_uses(machine: Machine) -> None:
    driver, vm_id = machine
    stats = await driver.stats(vm_id)
    assert stats.cpu_seconds is not None
    assert stats.cpu_seconds > 0.1
    assert stats.memory_bytes is not None
    assert stats.memory_bytes > 50 << 20
    assert stats.disk_bytes is not None
    assert 0 < stats.disk_bytes < DISK_MIB << 20


async def test_pause_freezes_and_start_lets_go_on(home: Home, machine: Machine) -> None:
    driver, vm_id = machine
    await driver.pause(vm_id)
    await driver.pause(vm_id)
    assert (await driver.find(vm_id)).found is Found.PAUSED
    assert (await home.driver().find(vm_id)).found is Found.PAUSED
    with pytest.raises(Conflict) as refused:
        await run(driver, vm_id, "true")
    assert refused.value.code == "vm_not_running"
    await driver.start(home.order)
    assert (await run(driver, vm_id, "echo", "on")).out == "on\n"


async def test_a_snapshot_of_what_runs_keeps_memory(home: Home, machine: Machine) -> None:
    driver, vm_id = machine
    await run(
        driver, vm_id, "sh", "-c", "echo before >/root/file; echo memory >/run/only; sleep 3000 >/dev/null 2>&1 &"
    )
    info = await driver.snapshot(vm_id, "1")
    assert (info.name, info.with_memory) == ("1", True)
    assert info.size_bytes > 10 << 20
    await run(driver, vm_id, "sh", "-c", "echo after >/root/file; rm /run/only; killall sleep; true")
    assert await driver.snapshot(vm_id, "1") == info, "one that is there stays"
    assert [each.name for each in await driver.snapshots(vm_id)] == ["1"]
    await driver.restore(home.order, "1")
    assert (await driver.find(vm_id)).found is Found.RUNNING
    assert (await run(driver, vm_id, "cat", "/root/file", "/run/only")).out == "before\nmemory\n"
    assert "sleep 3000" in (await run(driver, vm_id, "ps")).out
    with pytest.raises(NotFound) as refused:
        await driver.restore(home.order, "2")
    assert refused.value.code == "snapshot_not_found"
    await driver.delete_snapshot(vm_id, "1")
    await driver.delete_snapshot(vm_id, "1")
    assert not await driver.snapshots(vm_id)


async def test_another_machine_is_made_from_a_snapshot_of_one_that_runs(home: Home, machine: Machine) -> None:
    driver, vm_id = machine
    disks = home.disks()
    await run(driver, vm_id, "sh", "-c", "echo kept >/root/file; sync; echo memory >/run/only")
    await driver.snapshot(vm_id, "for-clones")
    await run(driver, vm_id, "sh", "-c", "echo later >/root/file; sync")
    clone_id = vm_id_of(str(uuid4()))
    try:
        disk = await disks.fill(clone_id, lambda path: driver.copy_snapshot(vm_id, "for-clones", path))
        assert disk.form is ImageForm.QCOW2
        assert disk.path.stat().st_size < 40 << 20, "it stands on the same base, and has no memory in it"
        spec = replace(home.order.spec, origin=Origin(vm_id=vm_id, snapshot="for-clones"))
        link = replace(home.order.link, port_map={22: CLONE_AT})
        clone = replace(home.order, vm_id=clone_id, disk=disk, link=link, spec=spec)
        await driver.create(clone)
        said = await run(driver, clone_id, "sh", "-c", "hostname; cat /root/file; ls /run/only")
        assert said.out.split() == [clone_id, "kept"]
        key = "cat /etc/dropbear/dropbear_ed25519_host_key | md5sum"
        first, second = [(await run(driver, each, "sh", "-c", key)).out for each in (vm_id, clone_id)]
        assert first != second, "it is somebody else by SSH"
        assert not await driver.snapshots(clone_id)
        assert (await run(driver, vm_id, "cat", "/root/file")).out == "later\n"
        with pytest.raises(NotFound) as refused:
            await disks.fill(vm_id_of(str(uuid4())), lambda path: driver.copy_snapshot(vm_id, "none", path))
        assert refused.value.code == "snapshot_not_found"
    finally:
        await driver.destroy(clone_id)
        await disks.remove(clone_id)
        await driver.delete_snapshot(vm_id, "for-clones")


async def test_stop_is_a_shutdown_and_start_goes_on_from_the_disk(home: Home, machine: Machine) -> None:
    driver, vm_id = machine
    await run(driver, vm_id, "sh", "-c", "echo kept >/root/file")
    await driver.stop(vm_id, grace_s=30.0)
    await driver.stop(vm_id, grace_s=30.0)
    assert (await driver.find(vm_id)).found is Found.STOPPED
    assert home.process() is None
    printed = b"".join([part async for part in driver.logs(vm_id, offset=0, follow=True)])
    assert b"Power down" in printed, "it was asked, not killed"
    with pytest.raises(Conflict):
        await run(driver, vm_id, "true")

    info = await driver.snapshot(vm_id, "at-rest")
    assert (info.name, info.with_memory) == ("at-rest", False)
    await driver.start(home.opened())
    await driver.start(home.opened())
    assert (await run(driver, vm_id, "cat", "/root/file")).out == "kept\n"
    await run(driver, vm_id, "sh", "-c", "echo changed >/root/file; sync")


async def test_the_control_a_machine_that_may_call_out_does(home: Home, machine: Machine) -> None:
    driver, vm_id = machine
    if (await driver.find(vm_id)).found is Found.STOPPED:
        await driver.start(home.opened())
    with Echo(None, 5353):
        said = await run(driver, vm_id, "sh", "-c", f"echo hello | nc -w 5 {home.order.link.gateway} 5353")
        assert "hello" in said.out


async def test_without_its_socket_it_still_runs_and_can_be_ended(home: Home, machine: Machine) -> None:
    driver, vm_id = machine
    (home.folder / "qemu" / "machines" / vm_id / "qmp.sock").unlink()
    finding = await driver.find(vm_id)
    assert finding.found is Found.RUNNING
    assert "cannot be spoken to" in (finding.detail or "")
    assert (await run(driver, vm_id, "echo", "here")).out == "here\n"
    with pytest.raises(BoroughError):
        await driver.pause(vm_id)
    await driver.stop(vm_id, grace_s=0.1)
    assert (await driver.find(vm_id)).found is Found.STOPPED


async def test_one_that_was_killed_is_found_gone_and_returns_to_a_snapshot(home: Home, machine: Machine) -> None:
    driver, vm_id = machine
    if not await driver.snapshots(vm_id):
        await driver.stop(vm_id, grace_s=30.0)
        await driver.snapshot(vm_id, "at-rest")
    await driver.start(home.order)
    process = home.process()
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)

    async def gone() -> bool:
        return await driver.find(vm_id) == Finding(found=Found.GONE, detail="its process was ended by SIGKILL")

    await eventually(gone)
    children.let_go(vm_id)
    later = await home.driver().find(vm_id)
    assert later == Finding(found=Found.GONE, detail="its process was killed"), "a later daemon is nobody's parent"
    await driver.restore(home.order, "at-rest")
    assert (await run(driver, vm_id, "cat", "/root/file")).out == "kept\n"
    await driver.delete_snapshot(vm_id, "at-rest")
    assert not await driver.snapshots(vm_id)


async def test_what_cannot_be_started_is_refused_with_a_reason(home: Home) -> None:
    driver = home.driver()
    assert home.order.disk is not None
    vm_id = vm_id_of(str(uuid4()))
    broken = home.folder / "broken"
    broken.write_bytes(b"no disk at all")
    order = replace(home.order, vm_id=vm_id, disk=replace(home.order.disk, path=broken))
    with pytest.raises(BoroughError) as failed:
        await driver.create(order)
    assert failed.value.code == "engine_failed"
    assert "qcow2" in failed.value.message
    for wrong in (
        replace(order, disk=None),
        replace(order, disk=replace(home.order.disk, form=ImageForm.FOLDER)),
        replace(order, spec=replace(order.spec, command=("sh",))),
    ):
        with pytest.raises(Conflict) as refused:
            await driver.create(wrong)
        assert refused.value.code == "not_possible"
    await driver.destroy(vm_id)
    assert (await driver.find(vm_id)).found is Found.ABSENT
    with pytest.raises(NotFound):
        await driver.stats(vm_id)


async def test_on_the_bridge_it_is_reached_from_outside_and_reaches_outside(image: Path, tmp_path: Path) -> None:
    need(os.geteuid() == 0, "the right to make network devices", "run the tests as root")
    need(shutil.which("nft"), "nft", "apt-get install nftables")
    with own_network(), outside(HOST, WORLD) as world:
        marker = uuid4().hex
        network = LinuxNetwork(
            NetworkSettings(marker=marker), gateway=GatewayProxy(judge=Judge(), on_verdict=_noted)
        )  # fmt: skip
        assert await network.open() is None
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / IMAGE).symlink_to(image)
        disks = FileStore(images=tmp_path / "images", runtime=tmp_path / "disks")
        driver = QemuMachines(QemuSettings(state=tmp_path / "qemu", marker=marker), bridged=True, has_proxy=True)
        offer = await driver.probe()
        assert isinstance(offer, Offer)
        assert Capability.EGRESS_ALLOWLIST in offer.capabilities
        vm_id, address = vm_id_of(str(uuid4())), IPv4Address("10.10.0.7")
        link = replace(await network.attach(vm_id, address, namespace=False), port_map={22: SSH_AT})
        order = MachineOrder(
            vm_id=vm_id, env_id="bench", link=link, marker=marker,
            spec=vm_spec(image=IMAGE, engine=Engine.QEMU, cpu=1, mem_mib=160, disk_mib=DISK_MIB),
            disk=await disks.clone(IMAGE, vm_id, size_mib=DISK_MIB),
        )  # fmt: skip
        try:
            await network.apply([vm_of(order)], private=frozenset())
            await driver.create(order)
            assert (await run(driver, vm_id, "hostname")).out == f"{vm_id}\n"
            greeting = await suite.answers(world, HOST, SSH_AT)
            assert greeting.startswith("SSH-2.0-")
            with Echo(world, 5353):
                said = await run(driver, vm_id, "sh", "-c", f"echo hello | nc -w 5 {WORLD} 5353")
                assert "hello" in said.out
            stats = await driver.stats(vm_id)
            assert stats.received_bytes is not None
            assert stats.received_bytes > 1000
            await driver.write(vm_id, "/root/file", sent(b"content"), from_tar=False)
            assert stats.sent_bytes is not None
            assert stats.sent_bytes > 1000
            await reaches_what_is_listed(driver, order, network, world)
        finally:
            await driver.destroy(vm_id)
            await disks.remove(vm_id)
            await network.close()


async def reaches_what_is_listed(driver: QemuMachines, order: MachineOrder, network: LinuxNetwork, world: str) -> None:
    """With a list the same guest reaches what is on it, by the gateway's proxy, and nothing else."""
    listed = replace(order, spec=replace(order.spec, egress_allowlist=(f"{WORLD}:5353",)))
    await network.apply([vm_of(listed)], private=frozenset())

    async def by_proxy(to: str) -> str:
        asked = f"printf 'CONNECT {to} HTTP/1.1\\r\\nHost: {to}\\r\\n\\r\\nhello'"
        return (await run(driver, order.vm_id, "sh", "-c", f"{asked} | nc -w 5 {order.link.gateway} {PROXY_PORT}")).out

    with Echo(world, 5353), Echo(world, 5354):
        passed = await by_proxy(f"{WORLD}:5353")
        assert passed.startswith("HTTP/1.1 200"), passed
        assert passed.endswith("hello"), "and the other side is spoken to"
        assert (await by_proxy(f"{WORLD}:5354")).startswith("HTTP/1.1 403")
        around = await run(driver, order.vm_id, "sh", "-c", f"echo hello | nc -w 2 {WORLD} 5353")
        assert "hello" not in around.out, "nothing passes by the proxy"


async def _noted(_vm_id: VmId, _verdict: EgressVerdict) -> None:
    """Verdicts are looked at where they are told, in tests of the proxy."""
