"""The inside of machines, wherever they are: commands, files, logs, snapshots, what they use."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final, TypeVar

from borough.core.acting import actor
from borough.core.errors import BoroughError
from borough.fleet.ports.engines import Chunk, ExecOrder, FileEntry, MachineStats, SnapshotInfo
from borough.fleet.ports.fleet import Fleet
from borough.fleet.ports.host_agent import HostAgent
from borough.fleet.services.machines import MachineService, named
from borough.fleet.vms import Vm, VmId

Answer = TypeVar("Answer")
Part = TypeVar("Part")
_SHOWN: Final = 200
_NOT_RUNNING: Final = "vm_not_running"


class GuestService:
    """Passes on to a machine's host what is asked of its inside; what goes wrong names the machine and its host.

    All raise ``NotFound`` (``vm_not_found``), ``Conflict`` where the engine cannot (``not_possible``) or the machine
    does not run (``vm_not_running``), and ``Unavailable`` where the host does not answer (``host_unreachable``).
    What is done inside is an event, which is written while it is done and before anything of it is answered.
    """

    def __init__(self, machines: MachineService, fleet: Fleet) -> None:
        self._machines = machines
        self._fleet = fleet

    def execute(self, vm_id: VmId, order: ExecOrder, stdin: AsyncIterator[bytes]) -> AsyncGenerator[Chunk, None]:
        """Run a command inside; the last chunk has the exit code. Closing the iterator ends the command."""
        told = {"command": order.argv[0][:_SHOWN], "argv_sha256": sha256("\0".join(order.argv).encode()).hexdigest()}
        act = _Act("vm.exec", f"{told['command']} is run", told)
        return self._stream(vm_id, lambda agent: agent.execute(vm_id, order, stdin), act)

    def logs(self, vm_id: VmId, *, offset: int, follow: bool) -> AsyncGenerator[bytes, None]:
        """Yield what the machine printed, from ``offset`` bytes on."""
        return self._stream(vm_id, lambda agent: agent.logs(vm_id, offset=offset, follow=follow))

    def console(self, vm_id: VmId, keys: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Yield what the machine prints from now on, ``b""`` as soon as its console is open; ``keys`` are typed."""
        act = _Act("vm.console", "somebody sits down at the console", {})
        return self._stream(vm_id, lambda agent: agent.console(vm_id, keys), act)

    def read(self, vm_id: VmId, path: str, *, as_tar: bool) -> AsyncGenerator[bytes, None]:
        """Yield a file, or a folder as a tar archive; raises ``NotFound`` (``file_not_found``)."""
        return self._stream(vm_id, lambda agent: agent.read(vm_id, path, as_tar=as_tar))

    async def write(self, vm_id: VmId, path: str, content: AsyncIterator[bytes], *, from_tar: bool) -> int:
        """Write a file, or unpack a tar archive into a folder; return how many bytes came."""
        act = _Act("vm.file_written", f"{path[:_SHOWN]} is written", {"path": path[:_SHOWN]})
        return await self._ask(vm_id, lambda agent: agent.write(vm_id, path, content, from_tar=from_tar), act)

    async def listing(self, vm_id: VmId, path: str) -> Sequence[FileEntry]:
        """Return a folder's names; raises ``NotFound`` (``file_not_found``)."""
        return await self._ask(vm_id, lambda agent: agent.listing(vm_id, path))

    async def stats(self, vm_id: VmId) -> MachineStats:
        """Return what the machine uses now."""
        return await self._ask(vm_id, lambda agent: agent.stats(vm_id))

    async def snapshot(self, vm_id: VmId, name: str) -> SnapshotInfo:
        """Keep the present state under a name; idempotent."""
        act = _Act("vm.snapshot", f"its state is kept as {name}", {"snapshot": name})
        return await self._ask(vm_id, lambda agent: agent.snapshot(vm_id, name), act)

    async def snapshots(self, vm_id: VmId) -> Sequence[SnapshotInfo]:
        """Return them, oldest first."""
        return await self._ask(vm_id, lambda agent: agent.snapshots(vm_id))

    async def restore(self, vm_id: VmId, name: str) -> Vm:
        """Return to a snapshot; raises ``NotFound`` (``snapshot_not_found``)."""
        act = _Act("vm.restored", f"it returns to {name}", {"snapshot": name})
        said = await self._ask(vm_id, lambda agent: agent.restore(vm_id, name), act)
        vm = await self._machines.get(vm_id)
        return await self._machines.found(vm_id, replace(said, host_id=vm.host_id))

    async def delete_snapshot(self, vm_id: VmId, name: str) -> None:
        """Forget one; one that is unknown is gone already."""
        act = _Act("vm.snapshot_forgotten", f"{name} is forgotten", {"snapshot": name})
        await self._ask(vm_id, lambda agent: agent.delete_snapshot(vm_id, name), act)

    async def _ask(
        self, vm_id: VmId, call: Callable[[HostAgent], Awaitable[Answer]], act: "_Act | None" = None
    ) -> Answer:
        vm, agent = await self._machines.host_of(vm_id)
        noted = self._note(vm, act)
        try:
            return await call(agent)
        except BoroughError as error:
            await self._hear(vm, agent, error)
            raise named(error, vm) from error
        finally:
            await noted

    async def _stream(
        self, vm_id: VmId, call: Callable[[HostAgent], AsyncIterator[Part]], act: "_Act | None" = None
    ) -> AsyncGenerator[Part, None]:
        vm, agent = await self._machines.host_of(vm_id)
        noted = self._note(vm, act)
        parts = call(agent)
        try:
            async for part in parts:
                await noted
                yield part
        except BoroughError as error:
            await self._hear(vm, agent, error)
            raise named(error, vm) from error
        finally:
            if isinstance(parts, AsyncGenerator):
                await parts.aclose()
            await noted

    async def _hear(self, vm: Vm, agent: HostAgent, error: BoroughError) -> None:
        """Write down at once what a host says of a machine that does not run as was thought."""
        if error.code == _NOT_RUNNING:
            with suppress(BoroughError):  # the host is asked again by itself; what is told is ``error``
                said = await agent.machine(vm.id)
                await self._machines.found(vm.id, replace(said, host_id=vm.host_id), known=vm)

    def _note(self, vm: Vm, act: "_Act | None") -> "asyncio.Future[None]":
        """Begin to write what is done; it goes on beside it, since neither waits for the other."""
        if act is None:
            nothing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            nothing.set_result(None)
            return nothing
        about = {"vm_id": vm.id, "env_id": vm.env_id, "host_id": vm.host_id, **act.facts}
        about |= {"by": act.by} if act.by else {}
        return asyncio.ensure_future(self._fleet.append_event(act.event, f"{vm.id}: {act.told}", about))


@dataclass(frozen=True, slots=True)
class _Act:
    """What is done inside a machine. Arguments of commands are not in it: there may be secrets among them."""

    event: str
    told: str
    facts: Mapping[str, str]
    by: str = field(default_factory=actor)


async def only(content: bytes) -> AsyncIterator[bytes]:
    """Yield ``content``, if there is some: the input of a command."""
    if content:
        yield content
