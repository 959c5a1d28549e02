"""Agents whose workspace is in a machine of the fleet: in which, kept over restarts, and tools that follow them."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeVar

from borough.adapters import beneath
from borough.core.errors import Conflict, Unavailable
from borough.core.ids import AgentId
from borough.fleet.ports.engines import Chunk, ExecOrder
from borough.fleet.ports.engines import FileEntry as GuestEntry
from borough.fleet.vms import VmId, check_vm_id
from borough.governance.ports.outside import Execution, ExecutionResult, Sandbox
from borough.governance.ports.workspaces import FileContent, FileEntry, Files

Done = TypeVar("Done")
_KEPT = "homes.json"
RUNS_WITHIN_S: Final = 15.0
"""How long a tool waits for a machine that is frozen: one whose agent waits for somebody goes on with the decision, and
so does the call that was decided.
"""
_LOOKS_EVERY_S: Final = 0.05
_NOT_RUNNING: Final = frozenset({"not_running", "vm_not_running"})


class Guests(Protocol):
    """The inside of machines, wherever they are; raises what the fleet's services raise."""

    def execute(self, vm_id: VmId, order: ExecOrder, stdin: AsyncIterator[bytes]) -> AsyncGenerator[Chunk, None]:
        """Run a command inside; the last chunk has the exit code. Closing the iterator ends the command."""

    async def listing(self, vm_id: VmId, path: str) -> Sequence[GuestEntry]:
        """Return a folder's names."""


class Homes:
    """Which agents live in which machines. Use it from one event loop."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is a private one that is there."""
        self._folder = folder
        self._guests: Callable[[], Awaitable[Guests]] | None = None
        self._bound = _read(folder / _KEPT)

    def connect(self, guests: Callable[[], Awaitable[Guests]]) -> None:
        """Say how machines are reached; ``guests`` may wait for a fleet that is being opened, and raise."""
        self._guests = guests

    async def guests(self) -> Guests:
        """Return how machines are reached; raises ``Unavailable`` (``no_fleet``, or what the fleet says)."""
        if self._guests is None:
            raise Unavailable(
                "this agent's workspace is in a machine, and there is no fleet here",
                code="no_fleet",
                resolution="serve it with borough up, which governs and houses",
            )
        return await self._guests()

    def machine_of(self, agent_id: AgentId) -> VmId | None:
        """Return the machine that an agent's workspace is in; ``None``: it is on this host."""
        return self._bound.get(agent_id)

    async def bind(self, agent_id: AgentId, vm_id: VmId) -> None:
        """Let an agent's tools work in a machine from now on, on disk when this returns; again changes the machine."""
        self._bound[agent_id] = check_vm_id(vm_id)
        await asyncio.to_thread(self._write, dict(self._bound))

    async def unbind(self, agent_id: AgentId) -> None:
        """Let an agent's tools work on this host again; one that was bound to nothing is no error."""
        if self._bound.pop(agent_id, None) is not None:
            await asyncio.to_thread(self._write, dict(self._bound))

    def bound(self) -> dict[AgentId, VmId]:
        """Return every agent that lives in a machine."""
        return dict(self._bound)

    def _write(self, bound: dict[AgentId, VmId]) -> None:
        directory = beneath.open_directory(self._folder, [])
        try:
            beneath.write_private(directory, _KEPT, json.dumps(bound, indent=1, sort_keys=True).encode())
            os.fsync(directory)
        finally:
            os.close(directory)


class HousedFiles:
    """The port ``Files``: in the agent's machine where it has one, else where ``at_home`` has it."""

    def __init__(self, homes: Homes, *, at_home: Files, inside: Files) -> None:
        self._homes, self._at_home, self._inside = homes, at_home, inside

    def _of(self, agent_id: AgentId) -> Files:
        return self._at_home if self._homes.machine_of(agent_id) is None else self._inside

    async def read(self, agent_id: AgentId, path: str, *, limit: int) -> FileContent:
        """Return at most ``limit`` bytes."""
        return await self._of(agent_id).read(agent_id, path, limit=limit)

    async def write(self, agent_id: AgentId, path: str, content: bytes, *, append: bool) -> int:
        """Write a file whole or not at all (or append)."""
        return await self._of(agent_id).write(agent_id, path, content, append=append)

    async def listing(self, agent_id: AgentId, path: str, *, glob: str | None, limit: int) -> tuple[FileEntry, ...]:
        """Return a folder's names, in order."""
        return await self._of(agent_id).listing(agent_id, path, glob=glob, limit=limit)

    async def delete(self, agent_id: AgentId, path: str) -> bool:
        """Delete a file and tell whether it was there."""
        return await self._of(agent_id).delete(agent_id, path)


class HousedSandbox:
    """The port ``Sandbox``, likewise."""

    def __init__(self, homes: Homes, *, at_home: Sandbox, inside: Sandbox) -> None:
        self._homes, self._at_home, self._inside = homes, at_home, inside

    async def execute(self, execution: Execution) -> ExecutionResult:
        """Run ``execution`` to its end, or to its timeout."""
        housed = self._homes.machine_of(execution.agent_id) is not None
        return await (self._inside if housed else self._at_home).execute(execution)


async def once_it_runs(act: Callable[[], Awaitable[Done]], *, within_s: float = RUNS_WITHIN_S) -> Done:
    """Do what needs a machine that runs, as soon as it does; ``act`` does nothing in one that does not, and says so.

    Raises:
        Conflict: it still does not run after ``within_s`` (``not_running``).
    """
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        try:
            return await act()
        except Conflict as error:
            if error.code not in _NOT_RUNNING or asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(_LOOKS_EVERY_S)


def _read(path: Path) -> dict[AgentId, VmId]:
    try:
        told = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return {AgentId(agent): check_vm_id(vm) for agent, vm in told.items()}
