"""Where governed tools work: on this host, and in machines that agents live in; the same suites hold for both."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from borough.adapters.engines.bubblewrap.engine import Bubblewrap
from borough.adapters.engines.bubblewrap.limits import BoxLimits
from borough.adapters.engines.bubblewrap_machines.driver import BubblewrapMachines
from borough.adapters.engines.bubblewrap_machines.host import machine_settings
from borough.adapters.images.host_root import HostRoot
from borough.adapters.storage.files import FileStore
from borough.adapters.workspaces.homes import Homes, HousedFiles, HousedSandbox
from borough.adapters.workspaces.machine_files import MachineFiles
from borough.adapters.workspaces.machine_sandbox import MARK, MachineSandbox
from borough.core.ids import AgentId
from borough.fleet.addresses import mac_of
from borough.fleet.engines import Engine
from borough.fleet.host_image import HOST_IMAGE
from borough.fleet.ports.engines import Chunk, ExecOrder, FileEntry, MachineOrder
from borough.fleet.ports.network import Link
from borough.fleet.vms import VmId, vm_id_of, vm_spec
from borough.governance.manifests import Manifest
from borough.governance.ports.outside import Sandbox
from borough.governance.ports.workspaces import Files
from tests import boxes
from tests.contracts.engine_kit import run


class Tools(Protocol):
    """What the suites need of either place."""

    @property
    def files(self) -> Files: ...

    @property
    def sandbox(self) -> Sandbox: ...

    async def create(self, agent_id: AgentId, manifest: Manifest) -> None: ...

    async def left_of(self, agent_id: AgentId) -> int:
        """How many processes of code that an agent ran there still are."""


@dataclass(frozen=True)
class OnThisHost:
    made: Bubblewrap

    @property
    def files(self) -> Files:
        return self.made.files

    @property
    def sandbox(self) -> Sandbox:
        return self.made.sandbox

    async def create(self, agent_id: AgentId, manifest: Manifest) -> None:
        await self.made.workspaces.create(agent_id, manifest)

    async def left_of(self, agent_id: AgentId) -> int:
        return len(boxes.left_of(agent_id)) + len(await self.made.keeper.boxes())


@dataclass(frozen=True)
class Directly:
    """Machines of one driver, as the fleet's services would reach them."""

    driver: BubblewrapMachines

    async def execute(
        self, vm_id: VmId, order: ExecOrder, stdin: AsyncIterator[bytes]
    ) -> AsyncGenerator[Chunk, None]:  # fmt: skip
        chunks = self.driver.execute(vm_id, order, stdin)
        assert isinstance(chunks, AsyncGenerator)
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()

    async def listing(self, vm_id: VmId, path: str) -> Sequence[FileEntry]:
        return await self.driver.listing(vm_id, path)


@dataclass
class InMachines:
    """Each agent in a machine of this host's own programs."""

    driver: BubblewrapMachines
    disks: FileStore
    homes: Homes
    files: Files
    sandbox: Sandbox
    made: list[VmId] = field(default_factory=list)
    orders: dict[VmId, MachineOrder] = field(default_factory=dict)

    async def create(self, agent_id: AgentId, manifest: Manifest) -> None:
        del manifest
        vm_id, address = vm_id_of(str(uuid4())), IPv4Address("127.0.0.2")
        spec = vm_spec(image=HOST_IMAGE, engine=Engine.BUBBLEWRAP, cpu=1, mem_mib=1024, disk_mib=256)
        link = Link(
            address=address, network=IPv4Network("127.0.0.0/8"), gateway=address, mac=mac_of(address), device=None
        )
        disk = await self.disks.clone(HOST_IMAGE, vm_id, size_mib=256)
        self.made.append(vm_id)
        order = MachineOrder(vm_id=vm_id, env_id="e", spec=spec, disk=disk, link=link, marker=uuid4().hex)
        self.orders[vm_id] = order
        await self.driver.create(order)
        await self.homes.bind(agent_id, vm_id)

    async def left_of(self, agent_id: AgentId) -> int:
        vm_id = self.homes.machine_of(agent_id)
        assert vm_id is not None
        said = await run(
            self.driver,
            vm_id,
            "sh",
            "-c",
            f"grep -lz '^{MARK}=' /proc/[0-9]*/environ 2>/dev/null; ls -d /tmp/.borough-* 2>/dev/null; true",
        )
        return len(said.out.split())


@asynccontextmanager
async def on_this_host(folder: Path, *, largest_bytes: int = boxes.MIB) -> AsyncIterator[Tools]:
    async with boxes.engine(folder, limits=BoxLimits(file_bytes=largest_bytes)) as made:
        yield OnThisHost(made)


@asynccontextmanager
async def in_machines(folder: Path, *, largest_bytes: int = boxes.MIB) -> AsyncIterator[InMachines]:
    own, marker = HostRoot(folder / "own"), uuid4().hex
    own.make()
    disks = FileStore(images=folder / "images", runtime=folder / "runtime", own=own)
    made = machine_settings(folder / "state", marker=marker, own_roots=folder / "own")
    driver = BubblewrapMachines(made, bridged=False, has_proxy=False)
    (folder / "homes").mkdir(mode=0o700)
    homes = Homes(folder / "homes")

    async def guests() -> Directly:
        return Directly(driver)

    homes.connect(guests)
    async with boxes.engine(folder / "boxes") as here:
        inside = MachineFiles(homes, largest_bytes=largest_bytes)
        tools = InMachines(
            driver=driver, disks=disks, homes=homes,
            files=HousedFiles(homes, at_home=here.files, inside=inside),
            sandbox=HousedSandbox(homes, at_home=here.sandbox, inside=MachineSandbox(homes)),
        )  # fmt: skip
        try:
            yield tools
        finally:
            for vm_id in tools.made:
                await driver.destroy(vm_id)
                await disks.remove(vm_id)


PLACES = {"host": on_this_host, "machine": in_machines}
