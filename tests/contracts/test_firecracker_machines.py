"""Firecracker's machines as far as they can be seen where none boots: every request as the published description has
it, and what becomes of processes, folders and states. What answers is a stand-in with Firecracker's socket.
"""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from jsonschema import Draft202012Validator

from borough.adapters import procfs
from borough.adapters.engines.firecracker import bodies, probing
from borough.adapters.engines.firecracker.bodies import Launch, launch_argv, name_in, user_of
from borough.adapters.engines.firecracker.driver import FirecrackerMachines
from borough.adapters.engines.firecracker.running import FirecrackerSettings
from borough.adapters.storage.files import FileStore
from borough.core.errors import BoroughError, Conflict, NotFound
from borough.fleet.addresses import mac_of
from borough.fleet.engines import Capability, Engine, Missing, Offer
from borough.fleet.ports.engines import Finding, Found, MachineOrder
from borough.fleet.ports.network import Link
from borough.fleet.resources import Size
from borough.fleet.vms import vm_id_of, vm_spec
from tests.conftest import eventually, need

pytestmark = pytest.mark.anyio
MACHINES = Path(__file__).parent.parent / "machines"
DESCRIBED: dict[str, Any] = json.loads((MACHINES / "firecracker_api.json").read_text())["requests"]
ADDRESS = IPv4Address("10.10.3.7")
LINK = Link(
    address=ADDRESS, network=IPv4Network("10.10.0.0/16"), gateway=IPv4Address("10.10.0.1"), mac=mac_of(ADDRESS),
    device="tt-0123456789ab", port_map={22: 20_000},
)  # fmt: skip


@dataclass
class Host:
    folder: Path
    program: Path
    marker: str
    order: MachineOrder

    def driver(self) -> FirecrackerMachines:
        settings = FirecrackerSettings(
            state=self.folder / "state", marker=self.marker, program=str(self.program), jailer=None
        )
        return FirecrackerMachines(settings, bridged=True, has_proxy=False)

    @property
    def room(self) -> Path:
        return self.folder / "state" / "machines" / self.order.vm_id / "room"

    def requests(self) -> list[tuple[str, str, dict[str, Any]]]:
        return [tuple(json.loads(line)) for line in (self.room / "requests.jsonl").read_text().splitlines()]

    def process(self) -> procfs.ProcessRef | None:
        found = [ref for ref, argv in procfs.command_lines() if (name_in(argv) or "").endswith(self.order.vm_id)]
        return found[0] if found else None


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    need(shutil.which("mke2fs"), "mke2fs", "apt-get install e2fsprogs")
    program = tmp_path / "firecracker"
    stand_in = MACHINES / "firecracker_stand_in.py"
    program.write_text(f'#!/bin/bash\nexec -a {program} {Path(sys.executable).resolve()} -I -S {stand_in} "$@"\n')
    program.chmod(0o755)
    image = tmp_path / "images" / "small"
    image.mkdir(parents=True)
    (image / "vmlinux").write_bytes(b"a kernel")
    subprocess.run(["mke2fs", "-q", "-t", "ext4", image / "rootfs.ext4", "8m"], check=True, capture_output=True)
    disks = FileStore(images=tmp_path / "images", runtime=tmp_path / "disks")
    vm_id = vm_id_of(str(uuid4()))
    order = MachineOrder(
        vm_id=vm_id, env_id="e", link=LINK, marker="m",
        spec=vm_spec(image="small", engine=Engine.FIRECRACKER, cpu=2, mem_mib=256, disk_mib=32),
        disk=await disks.clone("small", vm_id, size_mib=32),
    )  # fmt: skip
    made = Host(tmp_path, program, uuid4().hex, order)
    try:
        yield made
    finally:
        await made.driver().destroy(vm_id)
        await disks.remove(vm_id)
    assert made.process() is None
    assert not await made.driver().machines()
    assert not [*(tmp_path / "state" / "machines").iterdir()]


def check(method: str, path: str, body: dict[str, Any]) -> None:
    parts = path.split("/")
    key = f"{method} {path}" if f"{method} {path}" in DESCRIBED else f"{method} /{parts[1]}/{{"
    schemas = [schema for name, schema in DESCRIBED.items() if name.startswith(key)]
    assert schemas, f"{method} {path} is not described"
    Draft202012Validator(schemas[0]).validate(body)


async def test_a_machine_is_asked_for_as_described_and_in_order(host: Host) -> None:
    driver, vm_id = host.driver(), host.order.vm_id
    await driver.create(host.order)
    await driver.create(host.order)
    asked = host.requests()
    for method, path, body in asked:
        check(method, path, body)
    by_path = {path: body for _, path, body in asked}
    assert [path for _, path, _ in asked][-1] == "/actions"
    assert len(asked) == len(by_path), "each once"
    assert by_path["/machine-config"] == {"vcpu_count": 2, "mem_size_mib": 256}
    assert "ip=10.10.3.7::10.10.0.1:255.255.0.0::eth0:off" in by_path["/boot-source"]["boot_args"]
    assert by_path["/network-interfaces/eth0"]["guest_mac"] == mac_of(ADDRESS)
    assert by_path["/drives/rootfs"]["is_read_only"] is False
    assert by_path["/drives/seed"]["is_read_only"] is True
    assert (await driver.find(vm_id)).found is Found.RUNNING
    assert list(await host.driver().machines()) == [vm_id]
    assert b"".join([part async for part in driver.logs(vm_id, offset=0, follow=False)]) == b"the guest boots\n"


async def test_its_disk_is_as_large_as_asked_for_and_its_own(host: Host) -> None:
    await host.driver().create(host.order)
    assert host.order.disk is not None
    root = host.order.disk.path / "rootfs.ext4"
    assert root.stat().st_size == 32 << 20
    assert (host.room / "rootfs.ext4").samefile(root), "what the guest writes is in the disk"
    told = subprocess.run(["dumpe2fs", "-h", root], check=True, capture_output=True, text=True).stdout
    [blocks, size] = [
        int(line.split()[-1]) for line in told.splitlines() if line.startswith(("Block count", "Block size"))
    ]
    assert blocks * size == 32 << 20, "the file system too"


async def test_it_is_paused_stopped_started_and_found_again(host: Host) -> None:
    driver, vm_id = host.driver(), host.order.vm_id
    await driver.create(host.order)
    await driver.pause(vm_id)
    await driver.pause(vm_id)
    again = host.driver()
    assert (await again.find(vm_id)).found is Found.PAUSED
    await again.start(host.order)
    await again.start(host.order)
    assert (await again.find(vm_id)).found is Found.RUNNING
    await again.pause(vm_id)
    await again.stop(vm_id, grace_s=10.0)
    assert host.requests()[-1][2] == {"action_type": "SendCtrlAltDel"}
    assert (await again.find(vm_id)).found is Found.STOPPED
    assert host.process() is None
    with pytest.raises(Conflict):
        await again.pause(vm_id)
    await again.start(host.order)
    assert (await again.find(vm_id)).found is Found.RUNNING
    for method, path, body in host.requests():
        check(method, path, body)
    stats = await again.stats(vm_id)
    assert stats.memory_bytes is not None
    assert stats.disk_bytes is not None


async def test_one_that_was_killed_is_found_gone(host: Host) -> None:
    driver, vm_id = host.driver(), host.order.vm_id
    await driver.create(host.order)
    process = host.process()
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)

    async def gone() -> bool:
        return await driver.find(vm_id) == Finding(found=Found.GONE, detail="its process was ended by SIGKILL")

    await eventually(gone)
    await driver.start(host.order)
    (host.room / "api.sock").unlink()
    finding = await driver.find(vm_id)
    assert finding.found is Found.RUNNING
    assert "cannot be spoken to" in (finding.detail or "")
    await driver.stop(vm_id, grace_s=0.1)
    assert (await driver.find(vm_id)).found is Found.STOPPED


async def test_what_it_refuses_is_told_and_nothing_runs(host: Host) -> None:
    host.room.mkdir(parents=True)
    (host.room / "refuse").write_text("/vsock")
    with pytest.raises(BoroughError) as refused:
        await host.driver().create(host.order)
    assert refused.value.code == "engine_failed"
    assert "as the test wants it" in refused.value.message
    assert host.process() is None


async def test_a_state_has_memory_and_disk_of_one_moment(host: Host) -> None:
    driver, vm_id = host.driver(), host.order.vm_id
    assert host.order.disk is not None
    root = host.order.disk.path / "rootfs.ext4"
    await driver.create(host.order)
    before = root.read_bytes()
    info = await driver.snapshot(vm_id, "first")
    assert (info.name, info.with_memory) == ("first", True)
    assert (await driver.find(vm_id)).found is Found.RUNNING
    with root.open("r+b") as disk:
        disk.write(b"changed by the guest")
    await driver.restore(host.order, "first")
    assert root.read_bytes() == before
    assert (host.room / "rootfs.ext4").samefile(root)
    assert (await driver.find(vm_id)).found is Found.RUNNING
    loaded = [path for _, path, _ in host.requests()]
    assert loaded[-1] == "/snapshot/load"
    for method, path, body in host.requests():
        check(method, path, body)
    await driver.stop(vm_id, grace_s=10.0)
    rest = await driver.snapshot(vm_id, "at-rest")
    assert not rest.with_memory
    assert [each.name for each in await driver.snapshots(vm_id)] == ["first", "at-rest"]
    await driver.restore(host.order, "at-rest")
    assert host.requests()[-1][1] == "/actions"
    with pytest.raises(NotFound):
        await driver.restore(host.order, "none")
    await driver.delete_snapshot(vm_id, "first")
    await driver.delete_snapshot(vm_id, "first")
    assert [each.name for each in await driver.snapshots(vm_id)] == ["at-rest"]


async def test_with_the_jailer_it_sees_one_folder_only(host: Host) -> None:
    need(os.geteuid() == 0, "the right to give files away", "run the tests as root")
    jailer = host.folder / "jailer"
    stand_in = MACHINES / "firecracker_stand_in.py"
    # As the jailer does: the folder by program and id, then Firecracker in it. It stays root: there is no KVM to open.
    jailer.write_text(
        f'#!/bin/bash\nid=$2; shift; while [ "$1" != -- ]; do [ "$1" = --chroot-base-dir ] && base=$2; shift; done\n'
        f"mkdir -p $base/firecracker/$id/root; cd $base/firecracker/$id/root\n"
        f'exec -a ./firecracker {Path(sys.executable).resolve()} -I -S {stand_in} --id $id "${{@:2}}"\n'
    )
    jailer.chmod(0o755)
    settings = replace(host.driver()._settings, jailer=str(jailer))
    driver, vm_id = FirecrackerMachines(settings, bridged=True, has_proxy=False), host.order.vm_id
    await driver.create(host.order)
    [room] = (host.folder / "state" / "jails" / "firecracker").glob("*/root")
    assert {each.name for each in room.iterdir()} == {
        "api.sock", "vmlinux", "rootfs.ext4", "seed.img", "firecracker.log", "requests.jsonl",
    }  # fmt: skip
    assert (room / "rootfs.ext4").stat().st_uid == user_of(ADDRESS)
    assert host.order.disk is not None
    assert (room / "rootfs.ext4").samefile(host.order.disk.path / "rootfs.ext4")
    await driver.snapshot(vm_id, "first")
    await driver.restore(host.order, "first")
    again = FirecrackerMachines(settings, bridged=True, has_proxy=False)
    assert (await again.find(vm_id)).found is Found.RUNNING
    await again.destroy(vm_id)
    assert not [*(host.folder / "state" / "jails" / "firecracker").iterdir()]
    assert host.process() is None


async def test_what_it_cannot_start_is_refused(host: Host) -> None:
    assert host.order.disk is not None
    for wrong in (
        replace(host.order, link=replace(LINK, device=None)),
        replace(host.order, disk=None),
        replace(host.order, disk=replace(host.order.disk, path=host.folder)),
        replace(host.order, spec=replace(host.order.spec, command=("sh",))),
    ):
        with pytest.raises(Conflict) as refused:
            await host.driver().create(wrong)
        assert refused.value.code == "not_possible"


async def test_it_is_offered_only_where_a_guest_boots(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_DEVICE", Path("/dev/null"))
    offer = await host.driver().probe()
    assert isinstance(offer, Offer)
    assert (offer.engine, offer.version, offer.acceleration) == (Engine.FIRECRACKER, "1.17.0", "kvm")
    assert Capability.SNAPSHOT_MEMORY in offer.capabilities
    unbridged = FirecrackerMachines(host.driver()._settings, bridged=False, has_proxy=False)
    assert "no bridge" in await why_not(unbridged)
    monkeypatch.setattr(probing, "BOOTS_WITHIN_S", 1.0)
    (MACHINES / "hangs").touch()
    try:
        assert isinstance(await host.driver().probe(), Offer), "it is remembered"
        (host.folder / "state" / "boots.json").unlink()
        assert "did not boot" in await why_not(host.driver())
    finally:
        (MACHINES / "hangs").unlink()
    monkeypatch.setattr(probing, "_DEVICE", Path("/dev/none"))
    assert await why_not(host.driver()) == "there is no /dev/none"


async def why_not(driver: FirecrackerMachines) -> str:
    missing = await driver.probe()
    assert isinstance(missing, Missing)
    return missing.reason


def test_the_smallest_kernel_is_an_elf_file_with_one_segment() -> None:
    kernel = probing.tiny_kernel()
    entry, table = struct.unpack_from("<QQ", kernel, 24)
    kind, _, offset, virtual, physical, size, _, _ = struct.unpack_from("<IIQQQQQQ", kernel, table)
    assert (kind, virtual, physical) == (1, entry, entry)
    assert kernel[offset : offset + size] == bytes.fromhex("b0fee664f4ebfd")
    assert len(kernel) == offset + size


def test_the_jailer_is_told_user_folder_and_limits() -> None:
    vm_id = vm_id_of("1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed")
    name = bodies.name_of("m" * 200, vm_id)
    assert len(name) <= 64
    assert name.replace("-", "").isalnum()
    launch = Launch(
        firecracker="/usr/bin/firecracker", name=name, jailer="/usr/bin/jailer", user=user_of(ADDRESS),
        jails=Path("/srv/jails"), group_version=2, size=Size(cpu=2, mem_mib=256, disk_mib=1),
    )  # fmt: skip
    assert launch_argv(launch) == [
        "/usr/bin/jailer", "--id", name, "--exec-file", "/usr/bin/firecracker", "--uid", "100775", "--gid", "100775",
        "--chroot-base-dir", "/srv/jails", "--cgroup-version", "2", "--parent-cgroup", "borough-firecracker",
        "--cgroup", "pids.max=68", "--cgroup", f"memory.max={384 << 20}", "--cgroup", "memory.swap.max=0",
        "--cgroup", "cpu.max=200000 100000", "--", "--api-sock", "api.sock",
    ]  # fmt: skip
    assert name_in(["./firecracker", "--id", name, "--start-time-us", "1"]) == name
    assert name_in(["/x/firecracker", f"--id={name}"]) == name
    assert name_in(["/usr/bin/jailer", "--id", name]) is None
    assert user_of(ADDRESS) != user_of(ADDRESS + 1)
