"""Limits on machines' disks, on a real file system that keeps them, and what is said where there is none."""

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from uuid import uuid4

import pytest

from borough.adapters.engines.bubblewrap_machines.driver import BubblewrapMachines
from borough.adapters.engines.bubblewrap_machines.host import machine_settings
from borough.adapters.storage.files import FileStore
from borough.adapters.storage.quotas import ProjectQuotas, SubvolumeQuotas, find_quotas
from borough.core.ids import new_id
from borough.fleet.addresses import mac_of
from borough.fleet.engines import Capability, Engine, Offer
from borough.fleet.ports.engines import MachineOrder
from borough.fleet.ports.network import Link
from borough.fleet.vms import vm_id_of, vm_spec
from tests.conftest import need
from tests.contracts.engine_kit import root_folder, run

pytestmark = pytest.mark.anyio
MIB = 1 << 20


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Path]:
    """A file system of this test's own, with quotas."""
    need(os.geteuid() == 0, "root, who may mount", "sudo")
    need(shutil.which("mkfs.btrfs"), "mkfs.btrfs", "apt-get install btrfs-progs")
    image, place = tmp_path / "image", tmp_path / "mounted"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(256 * MIB)
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    try:
        subprocess.run(["btrfs", "quota", "enable", str(place)], check=True, capture_output=True)
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


async def test_a_machine_cannot_write_more_than_its_disk_has(btrfs: Path, tmp_path: Path) -> None:
    quotas = find_quotas(btrfs)
    assert isinstance(quotas, SubvolumeQuotas)
    assert list(btrfs.iterdir()) == []  # nothing is left of finding out
    root_folder(tmp_path / "images" / "tiny")
    disks = FileStore(images=tmp_path / "images", runtime=btrfs, quotas=quotas)
    driver = BubblewrapMachines(
        machine_settings(tmp_path / "state", marker=uuid4().hex, use_cgroups=False),
        bridged=False, has_proxy=False, unlimited=None,
    )  # fmt: skip
    offer = await driver.probe()
    assert isinstance(offer, Offer)
    assert Capability.DISK_LIMIT in offer.capabilities
    vm_id, address = vm_id_of(new_id()), IPv4Address("127.0.0.2")
    disk = await disks.clone("tiny", vm_id, size_mib=8)
    assert disk.enforced
    assert (await disks.disk(vm_id)).enforced  # also for a store that is opened again
    link = Link(address=address, network=IPv4Network("127.0.0.0/8"), gateway=address, mac=mac_of(address), device=None)
    spec = vm_spec(image="tiny", engine=Engine.BUBBLEWRAP, cpu=1, mem_mib=64, disk_mib=8)
    await driver.create(MachineOrder(vm_id=vm_id, env_id="e", spec=spec, disk=disk, link=link, marker=uuid4().hex))
    try:
        said = await run(driver, vm_id, "dd", "if=/dev/urandom", "of=/root/much", "bs=1M", "count=32", "conv=fsync")
        assert said.code != 0
        assert "quota" in said.err.lower() or "no space" in said.err.lower()
        assert (await run(driver, vm_id, "rm", "/root/much")).code == 0
    finally:
        await driver.destroy(vm_id)
        await disks.remove(vm_id)
    assert [path.name for path in btrfs.iterdir()] == []


def test_without_quotas_it_is_said_why(tmp_path: Path) -> None:
    found = find_quotas(tmp_path)
    assert isinstance(found, str), "this machine's own disk keeps quotas: then the other test is not needed"
    assert "root" in found if os.geteuid() else "keeps none" in found
    assert list(tmp_path.iterdir()) == []
    assert not ProjectQuotas().is_limited(tmp_path)


def test_projects_are_told_to_the_kernel_as_it_reads_them() -> None:
    """Not run for want of a kernel with quotas of projects: the sizes are those of its headers."""
    assert ProjectQuotas._DQBLK.size == 72  # struct if_dqblk
    assert ProjectQuotas._XATTR.size == 28  # struct fsxattr
    assert struct.calcsize("6Q") == 48  # struct btrfs_ioctl_qgroup_limit_args
    assert (ProjectQuotas._SET_QUOTA << 8 | ProjectQuotas._PROJECTS) == 0x80000802  # QCMD(Q_SETQUOTA, PRJQUOTA)
