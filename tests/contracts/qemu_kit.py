"""One machine of QEMU that many tests look at, made by a daemon that was killed at once."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path
from uuid import uuid4

from borough.adapters import procfs
from borough.adapters.engines.qemu.argv import name_in
from borough.adapters.engines.qemu.driver import QemuMachines
from borough.adapters.engines.qemu.running import QemuSettings
from borough.adapters.network.host import LinuxNetwork, NetworkSettings
from borough.adapters.process import ProcessRef
from borough.adapters.storage.files import FileStore
from borough.fleet.engines import Engine
from borough.fleet.ports.engines import MachineOrder
from borough.fleet.vms import vm_id_of, vm_spec
from tests.contracts.engine_kit import Bench
from tests.services.spaces import own_network

IMAGE = "tiny"
DISK_MIB = 200
SSH_AT, OTHER_AT, CLONE_AT = 20_022, 20_023, 20_024


@dataclass
class Home:
    """A host of the test's own with one machine, in user-mode networking."""

    folder: Path
    marker: str
    order: MachineOrder
    key: Path
    """Of a person who may enter the machine."""

    def driver(self) -> QemuMachines:
        """Return the engine as a daemon that starts now has it."""
        settings = QemuSettings(state=self.folder / "qemu", marker=self.marker, publish_on="127.0.0.1")
        return QemuMachines(settings, bridged=False, has_proxy=False)

    def disks(self) -> FileStore:
        return FileStore(images=self.folder / "images", runtime=self.folder / "disks")

    def opened(self) -> MachineOrder:
        """Return the order with the way out open."""
        return replace(self.order, spec=replace(self.order.spec, deny_outgoing=False))

    def process(self) -> ProcessRef | None:
        """Return QEMU's process, found without the driver."""
        found = [ref for ref, argv in procfs.command_lines() if self.order.vm_id in (name_in(argv) or "")]
        assert len(found) < 2, "one machine is one process"
        return found[0] if found else None


@dataclass
class OneMachine(Bench):
    """The bench of the suite, where every machine that is nothing special is the same one."""

    async def made(self, *, command: tuple[str, ...] = (), **asked: object) -> MachineOrder:
        assert not command, "a machine of this engine runs what its image starts"
        assert not asked, "this machine is nothing special"
        [order] = self.orders
        await self.driver.create(order)
        return order


def bench_of(home: Home) -> Bench:
    network = LinuxNetwork(NetworkSettings(marker=home.marker, privileged=False))
    return OneMachine(
        home.driver(), home.driver, network, home.disks(), home.marker, "", bridged=False, orders=[home.order]
    )


@contextmanager
def made_by_a_killed_daemon(image: Path, folder: Path) -> Iterator[Home]:
    with own_network() if os.geteuid() == 0 else nullcontext():
        (folder / "images").mkdir()
        (folder / "images" / IMAGE).symlink_to(image)
        home = asyncio.run(_home(folder))
        try:
            _make_and_kill(home)
            yield home
        finally:
            asyncio.run(_clean(home))
        assert home.process() is None


async def _home(folder: Path) -> Home:
    key = folder / "key"
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "person", "-f", str(key)]
    subprocess.run(argv, check=True, capture_output=True)
    marker, vm_id, address = uuid4().hex, vm_id_of(str(uuid4())), IPv4Address("10.10.0.2")
    spec = vm_spec(
        image=IMAGE, engine=Engine.QEMU, cpu=1, mem_mib=160, disk_mib=DISK_MIB, deny_outgoing=True,
        ssh_keys=(key.with_suffix(".pub").read_text(), "ssh-ed25519 AAAA... alice@laptop"),
    )  # fmt: skip
    disk = await FileStore(images=folder / "images", runtime=folder / "disks").clone(IMAGE, vm_id, size_mib=DISK_MIB)
    link = LinuxNetwork(NetworkSettings(marker=marker, privileged=False)).unlinked(address)
    order = MachineOrder(
        vm_id=vm_id, env_id="bench", spec=spec, disk=disk, marker=marker,
        link=replace(link, port_map={22: SSH_AT, 8080: OTHER_AT}),
    )  # fmt: skip
    return Home(folder, marker, order, key)


_DAEMON = """
import asyncio, pickle, sys
home = pickle.loads(sys.stdin.buffer.read())
async def main():
    await home.driver().create(home.order)
    print("made", flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""


def _make_and_kill(home: Home) -> None:
    import pickle  # noqa: PLC0415 - to a process of this test's own, and nowhere else

    daemon = subprocess.Popen([sys.executable, "-c", _DAEMON], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with daemon:
        assert daemon.stdin is not None
        assert daemon.stdout is not None
        daemon.stdin.write(pickle.dumps(home))
        daemon.stdin.close()
        assert daemon.stdout.readline() == b"made\n"
        daemon.send_signal(signal.SIGKILL)


async def _clean(home: Home) -> None:
    driver = home.driver()
    await driver.destroy(home.order.vm_id)
    await home.disks().remove(home.order.vm_id)
    assert not await driver.machines()
    assert not [*(home.folder / "disks").iterdir()]
