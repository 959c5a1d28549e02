"""The inside of machines, as the port ``EngineDriver`` has it: what all share that are entered by a shell."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from borough.adapters.engines import consoles, inside, shells
from borough.adapters.engines.places import Kept, Places
from borough.adapters.engines.refusals import not_running
from borough.adapters.engines.shells import Entrance
from borough.adapters.engines.ssh import Door, Ssh, entrance
from borough.fleet.addresses import SSH_PORT
from borough.fleet.ports.engines import Chunk, ExecOrder, FileEntry, Finding, Found
from borough.fleet.vms import VmId

_EVERYWHERE = "0.0.0.0"  # noqa: S104 - compared with, not listened at
_LOOPBACK = "127.0.0.1"


class ShellMachines(ABC):
    """Machines in which a shell can be run from here, and that print to a console."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._turns: dict[VmId, asyncio.Lock] = {}

    @abstractmethod
    async def _runs(self, vm_id: VmId) -> bool:
        """Tell whether the machine runs."""

    @abstractmethod
    async def _entrance(self, vm_id: VmId) -> Entrance:
        """Return the way in."""

    async def machines(self) -> Sequence[VmId]:
        """Return every machine that has a folder here, or a process that carries our marker."""
        return await asyncio.to_thread(self._places.all)

    async def execute(self, vm_id: VmId, order: ExecOrder, stdin: AsyncIterator[bytes]) -> AsyncGenerator[Chunk, None]:
        """Run a command inside; the last chunk has the exit code. Closing the iterator ends the command."""
        async with aclosing(shells.execute(await self._entrance(vm_id), order, stdin)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def logs(self, vm_id: VmId, *, offset: int, follow: bool) -> AsyncGenerator[bytes, None]:
        """Yield what the machine printed to its console, from ``offset`` bytes on; what was dropped is passed over."""
        await self._kept(vm_id)

        async def goes_on() -> bool:
            return follow and await self._runs(vm_id)

        async with aclosing(consoles.follow(self._places.console(vm_id), offset, goes_on=goes_on)) as parts:
            async for part in parts:
                yield part

    async def listing(self, vm_id: VmId, path: str) -> Sequence[FileEntry]:
        """Return a folder's names; raises ``NotFound`` (``file_not_found``)."""
        return await inside.listing(await self._inner(vm_id), path)

    async def read(self, vm_id: VmId, path: str, *, as_tar: bool) -> AsyncGenerator[bytes, None]:
        """Yield a file, or a folder as a tar archive."""
        async with aclosing(inside.read(await self._inner(vm_id), path, as_tar=as_tar)) as parts:
            async for part in parts:
                yield part

    async def write(self, vm_id: VmId, path: str, content: AsyncIterator[bytes], *, from_tar: bool) -> int:
        """Write a file, or unpack a tar archive into a folder; return how many bytes came."""
        return await inside.write(await self._inner(vm_id), path, content, from_tar=from_tar)

    async def _kept(self, vm_id: VmId) -> Kept:
        return await asyncio.to_thread(self._places.kept, vm_id)

    async def _inner(self, vm_id: VmId) -> inside.Shell:
        return shells.shell(await self._entrance(vm_id))

    def _turn(self, vm_id: VmId) -> asyncio.Lock:
        """Return what is held while a machine is changed or spoken to."""
        return self._turns.setdefault(vm_id, asyncio.Lock())


class EnteredMachines(ShellMachines):
    """Machines with a kernel of their own, that are entered by SSH."""

    def __init__(self, places: Places, ssh: Ssh, *, reachable_within_s: float, publish_on: str = _EVERYWHERE) -> None:
        """``publish_on``: where published ports listen that the engine serves itself."""
        super().__init__(places)
        self._ssh = ssh
        self._reachable_within_s = reachable_within_s
        self._publish_on = publish_on

    @abstractmethod
    async def find(self, vm_id: VmId) -> Finding:
        """Return what there is of the machine."""

    async def _door(self, vm_id: VmId) -> Door:
        """Return where the machine answers: at its address, or at the port that is published in user mode."""
        kept = await self._kept(vm_id)
        finding = await self.find(vm_id)
        if finding.found is not Found.RUNNING:
            raise not_running(vm_id)
        host, port = str(kept.link.address), SSH_PORT
        if kept.link.device is None:
            everywhere = self._publish_on == _EVERYWHERE
            host, port = (_LOOPBACK if everywhere else self._publish_on), kept.link.port_map[SSH_PORT]
        folder, console = self._places.folder(vm_id), self._places.console(vm_id)
        return Door(vm_id=vm_id, host=host, port=port, folder=folder, console=console)

    async def _entrance(self, vm_id: VmId) -> Entrance:
        """Return the way in."""
        door = await self._door(vm_id)
        return entrance(
            self._ssh, door, within_s=self._reachable_within_s, still_runs=lambda: self._runs(vm_id)
        )  # fmt: skip
