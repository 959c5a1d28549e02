"""Workers in machines: who serves there, how it is started, how it is asked to leave, how it is ended."""

import asyncio
import io
import shlex
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from borough.auth.machines import SERVER_NAME
from borough.core.clock import utc_now
from borough.core.errors import Conflict, NotFound, Unavailable
from borough.core.ids import AgentId, derived_id
from borough.fleet.ports.engines import ExecOrder, Stream
from borough.fleet.services.guests import GuestService, only
from borough.fleet.vms import VmId
from borough.pools.pools import Machine, Pool
from borough.pools.ports import PoolStore
from borough.town.agents import TERMINAL, Agent
from borough.town.services.agents import AgentService, Candidate, Registration
from borough.town.services.workers import Worker, WorkerService

FOLDER: Final = "/run/borough"
"""In the machine: what the worker is given."""
CREDENTIAL: Final = "token"
LOG: Final = "/var/log/borough-worker.log"
STARTS_WITHIN_S: Final = 30.0
MOST_NAME: Final = 56
"""Characters of a role in the names of its agents; the rest is for the number."""
_TOLD_BYTES: Final = 500
# A session of its own: it goes on when the command that started it has ended.
_DETACHED: Final = f"""
command -v "$1" >/dev/null || {{ echo "there is no program $1 in it" >&2; exit 127; }}
setsid "$@" </dev/null >>{LOG} 2>&1 &
"""


def free_name(role: str, taken: Iterable[str]) -> str:
    """Return the first name of the row ``role-1``, ``role-2`` … that nobody has."""
    known = frozenset(taken)
    stem, number = role[:MOST_NAME], 1
    while f"{stem}-{number}" in known:
        number += 1
    return f"{stem}-{number}"


class PoolWorkers:
    """The workers of all pools."""

    def __init__(self, store: PoolStore, guests: GuestService, agents: AgentService, workers: WorkerService) -> None:
        self._store = store
        self._guests = guests
        self._agents = agents
        self._workers = workers

    async def start(self, pool: Pool, machine: Machine) -> None:
        """Start the worker of a machine that is on record as starting.

        Raises:
            BoroughError: it could not be started, or is no longer wanted; the machine is used all the same.
        """
        async with asyncio.timeout(STARTS_WITHIN_S):
            registered = await self._registered(machine, cli=shlex.join(pool.settings.command) or None)
            agent = registered.agent
            known = replace(machine, agent_id=agent.id, incarnation=agent.incarnation)
            await self._store.move(known)
            given = _archive({CREDENTIAL: registered.token.encode()})
            await self._guests.write(machine.vm_id, FOLDER, only(given), from_tar=True)
            await self._run(machine.vm_id, _command(agent, pool))
            await self._store.move(replace(known, entered=True))

    async def drain(self, machine: Machine, *, even_busy: bool) -> bool:
        """Let a worker leave: an idle one at once, with ``even_busy`` any when it is done; return whether it will."""
        if machine.agent_id is None or machine.incarnation is None:
            return False
        if even_busy:
            await self._agents.close(machine.agent_id)
            return True
        worker = Worker(agent_id=AgentId(machine.agent_id), incarnation=machine.incarnation)
        return await self._workers.drain_if_idle(worker)

    async def end(self, machine: Machine, agents: Mapping[str, Agent]) -> None:
        """Take all power from whoever serves a machine that goes: its token, and what it has in hand."""
        if machine.agent_name is None:
            return
        if machine.agent_id is None:
            try:
                # Under the id that it has or would have had: what was begun before a crash is found so, and no other.
                agent: Agent | None = (await self._registered(machine, cli=None)).agent
            except Conflict:
                return  # it never came to that
        else:
            agent = agents.get(machine.agent_id)
            if agent is not None and agent.incarnation != machine.incarnation:
                return
        if agent is not None and agent.state not in TERMINAL:
            with suppress(NotFound):  # forgotten meanwhile
                await self._agents.stop(agent, reason=machine.reason or "its machine is gone")

    async def _registered(self, machine: Machine, *, cli: str | None) -> Registration:
        candidate = Candidate(name=machine.agent_name or free_name(machine.role, ()), cli=cli, role_id=machine.role)
        return await self._agents.register(candidate, agent_id=AgentId(derived_id("pool worker", machine.id)))

    async def _run(self, vm_id: VmId, argv: Sequence[str]) -> None:
        order = ExecOrder(argv=("/bin/sh", "-c", _DETACHED, "sh", *argv), timeout_s=STARTS_WITHIN_S)
        said, code = b"", None
        chunks = self._guests.execute(vm_id, order, only(b""))
        async for chunk in chunks:
            if chunk.stream is Stream.EXIT:
                code = chunk.exit_code
            else:
                said = (said + chunk.data)[-_TOLD_BYTES:]
        if code != 0:
            raise Unavailable(
                "the worker could not be started in its machine",
                code="worker_not_started",
                reason=said.decode(errors="replace").strip() or f"exit code {code}",
                resolution="choose an image that has Borough's commands, such as 'host'",
            )


def _command(agent: Agent, pool: Pool) -> tuple[str, ...]:
    return (
        "borough", "worker", "--server", f"http://{SERVER_NAME}", "--token-file", f"{FOLDER}/{CREDENTIAL}",
        "--name", agent.name, "--role", pool.role, "--agent-id", agent.id,
        "--incarnation", str(agent.incarnation), "--stay",
    )  # fmt: skip


def _archive(files: Mapping[str, bytes]) -> bytes:
    """Return a tar archive of files that only their owner may read."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), 0o600, int(utc_now().timestamp())
            archive.addfile(entry, io.BytesIO(content))
    return written.getvalue()
