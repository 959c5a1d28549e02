"""Engines for the contract suite, each with what it needs on a host of the test's own."""

import asyncio
import io
import shutil
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from uuid import uuid4

from borough.adapters.engines.bubblewrap_machines.driver import BubblewrapMachines
from borough.adapters.engines.bubblewrap_machines.host import machine_settings
from borough.adapters.engines.docker.driver import DockerMachines
from borough.adapters.network.host import LinuxNetwork, NetworkSettings
from borough.adapters.storage.files import FileStore
from borough.fleet.engines import Engine
from borough.fleet.ports.disks import Disk
from borough.fleet.ports.engines import Chunk, EngineDriver, ExecOrder, MachineOrder, Stream
from borough.fleet.vms import Vm, VmId, VmSpec, VmState, vm_id_of, vm_spec
from tests.boxes import short_folder
from tests.conftest import need

SERVICE = 8080
SERVE = ("sh", "-c", f'while true; do echo hello from "$NAME" | nc -l -p {SERVICE}; done')
"""Answers whoever calls, once a call."""
IMAGE = "tiny"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJvcm91Z2gtdGVzdHMtYXJlLWZvci1ldmVyeW9uZQAA nobody"
CLOSED_BRIDGE = "ttd0"


@dataclass
class Bench:
    """An engine on a host, with machines that are removed at the end."""

    driver: EngineDriver
    restarted: Callable[[], EngineDriver]
    """Returns the engine as it is after a restart of the daemon."""
    network: LinuxNetwork
    disks: FileStore | None
    marker: str
    world: str
    """The namespace of a neighbour of the host."""
    bridged: bool = True
    orders: list[MachineOrder] = field(default_factory=list)

    async def order(self, *, command: tuple[str, ...] = (), **asked: Any) -> MachineOrder:
        """Return the order for a machine, whose disk and link are made."""
        last = 2 + len(self.orders)
        spec = vm_spec(
            image=IMAGE, engine=self.driver.engine, ports=(SERVICE,), mem_mib=128, cpu=1, disk_mib=256, command=command,
            **asked,
        )  # fmt: skip
        vm_id, address = vm_id_of(str(uuid4())), IPv4Address(f"10.10.0.{last}")
        if self.disks is None:
            disk, link = None, self.network.unlinked(address)
        else:
            disk = await self._disk(vm_id, spec)
            link = await self.network.attach(vm_id, address, namespace=True)
        order = MachineOrder(
            vm_id=vm_id, env_id="bench", spec=spec, disk=disk, marker=self.marker,
            link=replace(link, port_map={SERVICE: 20_000 + last}),
        )  # fmt: skip
        self.orders.append(order)
        if self.disks is not None:
            await self.network.apply([vm_of(each) for each in self.orders], private=frozenset())
        return order

    async def _disk(self, vm_id: VmId, spec: VmSpec) -> Disk | None:
        if self.disks is None:
            return None
        origin = spec.origin
        if origin is None:
            return await self.disks.clone(IMAGE, vm_id, size_mib=spec.size.disk_mib)
        return await self.disks.fill(
            vm_id, lambda path: self.driver.copy_snapshot(origin.vm_id, origin.snapshot, path)
        )  # fmt: skip

    async def made(self, *, command: tuple[str, ...] = (), **asked: Any) -> MachineOrder:
        """Return the order of a machine that runs."""
        order = await self.order(command=command, **asked)
        await self.driver.create(order)
        return order

    async def clean(self) -> None:
        """End every machine, and prove that nothing is left of any."""
        for order in self.orders:
            await self.driver.destroy(order.vm_id)
            await self.network.detach(order.vm_id)
            if self.disks is not None:
                await self.disks.remove(order.vm_id)
        assert not await self.driver.machines()


def vm_of(order: MachineOrder) -> Vm:
    return Vm(
        id=order.vm_id, env_id=order.env_id, host_id="h", spec=order.spec, state=VmState.RUNNING,
        desired=VmState.RUNNING, created_at=datetime.now(UTC), ip=order.link.address, port_map=order.link.port_map,
    )  # fmt: skip


async def sent(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@dataclass(frozen=True)
class Said:
    code: int | None
    out: str
    err: str


async def run(driver: EngineDriver, vm_id: VmId, *argv: str, stdin: Sequence[bytes] = (), **how: Any) -> Said:
    """Run a command in a machine to its end."""
    order = ExecOrder(argv=argv, **how)
    chunks: list[Chunk] = [chunk async for chunk in driver.execute(vm_id, order, sent(*stdin))]
    out, err = (
        b"".join(chunk.data for chunk in chunks if chunk.stream is stream).decode()
        for stream in (Stream.STDOUT, Stream.STDERR)
    )
    return Said(chunks[-1].exit_code, out, err)


def root_folder(path: Path) -> Path:
    """Make a root folder of busybox and nothing else."""
    need(shutil.which("busybox"), "busybox", "apt-get install busybox-static")
    for name in ("bin", "etc", "root", "tmp"):
        (path / name).mkdir(parents=True)
    (path / "tmp").chmod(0o1777)
    shutil.copy(shutil.which("busybox") or "", path / "bin" / "busybox")
    listed = subprocess.run(["busybox", "--list"], check=True, capture_output=True, text=True).stdout
    for name in listed.split():
        if name != "busybox":
            (path / "bin" / name).symlink_to("busybox")
    (path / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (path / "etc" / "group").write_text("root:x:0:\n")
    return path


@asynccontextmanager
async def bubblewrap(
    folder: Path, world: str, *, bridged: bool, use_cgroups: bool | None = None
) -> AsyncIterator[Bench]:
    grouped = bridged if use_cgroups is None else use_cgroups
    marker = uuid4().hex
    drivers: list[BubblewrapMachines] = []

    def driver() -> BubblewrapMachines:
        made = BubblewrapMachines(
            machine_settings(folder / "state", marker=marker, use_cgroups=grouped), bridged=bridged, has_proxy=False
        )
        drivers.append(made)
        return made

    first = driver()
    network = LinuxNetwork(NetworkSettings(marker=marker, privileged=bridged), connect=first.connect)
    reason = await network.open()
    assert (reason is None) is bridged
    root_folder(folder / "images" / IMAGE)
    disks = FileStore(images=folder / "images", runtime=folder / "run")
    bench = Bench(first, driver, network, disks, marker, world, bridged=bridged)
    try:
        yield bench
        await bench.clean()
    finally:
        await network.close()


@asynccontextmanager
async def docker(folder: Path, world: str) -> AsyncIterator[Bench]:
    marker = uuid4().hex
    path = folder / "docker.sock"
    with dockerd(folder, path):
        network = LinuxNetwork(NetworkSettings(marker=marker, closed_bridges=(CLOSED_BRIDGE,)))
        assert await network.open() is None
        await network.apply([], private=frozenset())
        drivers: list[DockerMachines] = []

        def driver() -> DockerMachines:
            made = DockerMachines(str(path), marker=marker, closes=network.closes, closed_bridge=CLOSED_BRIDGE)
            drivers.append(made)
            return made

        await asyncio.to_thread(import_image, folder, path)
        bench = Bench(driver(), driver, network, None, marker, world)
        try:
            yield bench
            await bench.clean()
        finally:
            for each in drivers:
                await each.close()
            await network.close()


@contextmanager
def dockerd(folder: Path, path: Path) -> Iterator[None]:
    """Run a dockerd of the test's own, in the network namespace that the test is in and with folders of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    execution = short_folder()  # containerd's socket is below it
    with (folder / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(
            [
                "dockerd", "-H", f"unix://{path}", "--data-root", folder / "data", "--exec-root", execution,
                "--pidfile", folder / "pid", "--bip", "10.231.78.1/24",
                "--containerd-namespace", marker_of(folder),
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 30.0
        while not (path.exists() and _pings(path)):
            assert daemon.poll() is None, (folder / "dockerd.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "dockerd does not answer"
            time.sleep(0.05)
        yield
    finally:
        daemon.terminate()
        daemon.wait(30.0)
        shutil.rmtree(execution)


def marker_of(folder: Path) -> str:
    return f"borough-{abs(hash(folder)):x}"


def _pings(path: Path) -> bool:
    asked = subprocess.run(["docker", "-H", f"unix://{path}", "version"], check=False, capture_output=True)
    return asked.returncode == 0


def import_image(folder: Path, path: Path) -> None:
    """Give a dockerd an image of busybox."""
    root = root_folder(folder / "root")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(root, arcname=".")
    subprocess.run(
        ["docker", "-H", f"unix://{path}", "import", "--change", 'CMD ["sh"]', "-", IMAGE],
        input=packed.getvalue(), check=True, capture_output=True,
    )  # fmt: skip


ENGINES: dict[str, Engine] = {
    "bubblewrap": Engine.BUBBLEWRAP,
    "bubblewrap-unprivileged": Engine.BUBBLEWRAP,
    "docker": Engine.DOCKER,
}


@asynccontextmanager
async def bench_of(name: str, folder: Path, world: str) -> AsyncIterator[Bench]:
    """Return the bench of that name."""
    if name == "docker":
        need(shutil.which("dockerd"), "dockerd", "apt-get install docker.io")
        async with docker(folder, world) as bench:
            yield bench
    else:
        async with bubblewrap(folder, world, bridged=name == "bubblewrap") as bench:
            yield bench
