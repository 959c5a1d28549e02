"""The inside of machines, wherever they are: commands, files, logs, snapshots, what they use."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from borough.core.errors import BoroughError
from borough.fleet.ports.host_agent import HostAgent
from borough.fleet.ports.machines import Chunk, ExecOrder, FileEntry, MachineStats, SnapshotInfo
from borough.fleet.services.machines import MachineService, named
from borough.fleet.vms import Vm, VmId

Answer = TypeVar("Answer")
Part = TypeVar("Part")


class GuestService:
    """Passes on to a machine's host what is asked of its inside; what goes wrong names the machine and its host.

    All raise ``NotFound`` (``vm_not_found``), ``Conflict`` where the engine cannot (``not_possible``) or the machine
    does not run (``vm_not_running``), and ``Unavailable`` where the host does not answer (``host_unreachable``).
    """

    def __init__(self, machines: MachineService) -> None:
        self._machines = machines

    def execute(self, vm_id: VmId, order: ExecOrder, stdin: AsyncIterator[bytes]) -> AsyncGenerator[Chunk, None]:
        """Run a command inside; the last chunk has the exit code. Closing the iterator ends the command."""
        return self._stream(vm_id, lambda agent: agent.execute(vm_id, order, stdin))

    def logs(self, vm_id: VmId, *, offset: int, follow: bool) -> AsyncGenerator[bytes, None]:
        """Yield what the machine printed, from ``offset`` bytes on."""
        return self._stream(vm_id, lambda agent: agent.logs(vm_id, offset=offset, follow=follow))

    def console(self, vm_id: VmId, keys: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Yield what the machine prints from now on, ``b""`` as soon as its console is open; ``keys`` are typed."""
        return self._stream(vm_id, lambda agent: agent.console(vm_id, keys))

    def read(self, vm_id: VmId, path: str, *, as_tar: bool) -> AsyncGenerator[bytes, None]:
        """Yield a file, or a folder as a tar archive; raises ``NotFound`` (``file_not_found``)."""
        return self._stream(vm_id, lambda agent: agent.read(vm_id, path, as_tar=as_tar))

    async def write(self, vm_id: VmId, path: str, content: AsyncIterator[bytes], *, from_tar: bool) -> int:
        """Write a file, or unpack a tar archive into a folder; return how many bytes came."""
        return await self._ask(vm_id, lambda agent: agent.write(vm_id, path, content, from_tar=from_tar))

    async def listing(self, vm_id: VmId, path: str) -> Sequence[FileEntry]:
        """Return a folder's names; raises ``NotFound`` (``file_not_found``)."""
        return await self._ask(vm_id, lambda agent: agent.listing(vm_id, path))

    async def stats(self, vm_id: VmId) -> MachineStats:
        """Return what the machine uses now."""
        return await self._ask(vm_id, lambda agent: agent.stats(vm_id))

    async def snapshot(self, vm_id: VmId, name: str) -> SnapshotInfo:
        """Keep the present state under a name; idempotent."""
        return await self._ask(vm_id, lambda agent: agent.snapshot(vm_id, name))

    async def snapshots(self, vm_id: VmId) -> Sequence[SnapshotInfo]:
        """Return them, oldest first."""
        return await self._ask(vm_id, lambda agent: agent.snapshots(vm_id))

    async def restore(self, vm_id: VmId, name: str) -> Vm:
        """Return to a snapshot; raises ``NotFound`` (``snapshot_not_found``)."""
        said = await self._ask(vm_id, lambda agent: agent.restore(vm_id, name))
        vm = await self._machines.get(vm_id)
        return await self._machines.found(vm_id, replace(said, host_id=vm.host_id))

    async def delete_snapshot(self, vm_id: VmId, name: str) -> None:
        """Forget one; one that is unknown is gone already."""
        await self._ask(vm_id, lambda agent: agent.delete_snapshot(vm_id, name))

    async def _ask(self, vm_id: VmId, call: Callable[[HostAgent], Awaitable[Answer]]) -> Answer:
        vm, agent = await self._machines.host_of(vm_id)
        try:
            return await call(agent)
        except BoroughError as error:
            raise named(error, vm) from error

    async def _stream(
        self, vm_id: VmId, call: Callable[[HostAgent], AsyncIterator[Part]]
    ) -> AsyncGenerator[Part, None]:
        vm, agent = await self._machines.host_of(vm_id)
        parts = call(agent)
        try:
            async for part in parts:
                yield part
        except BoroughError as error:
            raise named(error, vm) from error
        finally:
            if isinstance(parts, AsyncGenerator):
                await parts.aclose()


async def only(content: bytes) -> AsyncIterator[bytes]:
    """Yield ``content``, if there is some: the input of a command."""
    if content:
        yield content
