"""Agents' processes in boxes: the port ``AgentRunner``."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from signal import SIGTERM

from borough.adapters import process, procfs
from borough.adapters.engines.bubblewrap import members, plans, skeleton
from borough.adapters.engines.bubblewrap.argv import NONCE_FILE, SOCKET_FOLDER
from borough.adapters.engines.bubblewrap.errors import start_failed
from borough.adapters.engines.bubblewrap.making import BoxMaker, Running, as_exit
from borough.adapters.engines.bubblewrap.plans import BoxOrder, Private
from borough.adapters.engines.bubblewrap.probing import Prober
from borough.adapters.engines.bubblewrap.programs import Started, started
from borough.adapters.engines.bubblewrap.runs import SOCKET, RunFolder, RunRecord, run_folder
from borough.adapters.engines.bubblewrap.watching import Watch
from borough.adapters.process import OWNER, Marker
from borough.adapters.workspaces.mounting import Mounts
from borough.core.errors import Conflict, NotFound
from borough.core.ids import AgentId, canonical_id
from borough.governance.hosts import NetworkPolicy
from borough.governance.lifecycle import Exit
from borough.governance.manifests import Network
from borough.governance.ports.confinement import AgentOrder, AgentProcess, BoxNetwork, Enforcement


@dataclass(slots=True, kw_only=True)
class _Run:
    """The run of an agent that is going on, or was the last."""

    run_id: str
    running: Running
    network: Network
    ended: asyncio.Task[Exit]
    asked_for: bool = False


class BubblewrapRunner:
    """Starts agents in boxes, finds them again after a restart, and ends them with all that descends from them.

    Use it from one event loop; ``close`` it before the loop ends. The agents run on.
    """

    def __init__(
        self, maker: BoxMaker, mounts: Mounts, prober: Prober, *, network: BoxNetwork | None, watch: Watch
    ) -> None:
        self._maker = maker
        self._mounts = mounts
        self._prober = prober
        self._network = network
        self._watch = watch
        self._interpreters = skeleton.interpreters()
        self._runs: dict[AgentId, _Run] = {}
        self._ends: dict[AgentId, Exit] = {}

    async def probe(self) -> Enforcement:
        """Return what this host can enforce."""
        return await self._prober.probe()

    async def start(self, order: AgentOrder) -> AgentProcess | None:
        """Start an agent; ``None`` when its manifest names nothing to start, and it lives in the register only.

        Raises:
            Unavailable: a required layer does not hold here (``enforcement_missing``), or the process could not be
                started (``start_failed``). Nothing is left behind then.
        """
        what = started(order.manifest, self._interpreters, hidden=self._maker.settings.hidden)
        if what is None:
            return None
        agent_id = AgentId(canonical_id(order.agent_id))
        if agent_id in self._runs and not self._runs[agent_id].ended.done():
            raise Conflict(
                f"agent {agent_id} runs already", code="agent_runs", resolution="end it before it is started again"
            )
        enforcement = await self._prober.check(order.manifest, what="the agent")
        folder = run_folder(self._maker.settings.boxes, agent_id, order.run_id)
        folder.make()
        log = folder.open_log()
        try:
            box_order = await self._box_order(order, folder, what)
            async with self._maker.opened(box_order, {"log": log}) as running, self._way_out(order, running):
                program = await self._maker.go(running)
                network = order.manifest.network
                folder.write(
                    RunRecord(
                        box=running.box,
                        inner=running.inner,
                        program=program,
                        network=network,
                        enforcement=enforcement,
                        socket=order.socket,
                    )
                )
        finally:
            os.close(log)
        self._follow(agent_id, order.run_id, running, order.manifest.network)
        return AgentProcess(pid=program.pid, started_ticks=program.started_ticks, enforcement=enforcement)

    async def adopt(self, agent_id: AgentId, run_id: str) -> AgentProcess | None:
        """Return the run's process if it still runs, having proven that it is that one; for the start after a crash.

        The daemon's socket is a new one after a start, and is shown to the agent here: listen on it before. What is
        left of a run whose program has ended is ended, and how it ended can be asked with ``exited``.
        """
        agent_id = AgentId(canonical_id(agent_id))
        folder = run_folder(self._maker.settings.boxes, agent_id, run_id)
        record = folder.read()
        boxes = await self._maker.keeper.boxes()
        if record is None or record.box not in boxes or not procfs.is_alive(record.program):
            await self._bury(agent_id, run_id, folder)
            return None
        running = Running(
            box=record.box, owner=_owner(agent_id, run_id), inner=record.inner,
            groups=self._maker.groups_of(record.box), program=record.program,
        )  # fmt: skip
        self._maker.known(running)
        await asyncio.to_thread(folder.place_socket, record.socket)
        if self._network is not None and record.network.policy is not NetworkPolicy.NONE:
            await self._network.open(agent_id, run_id, record.network, record.inner.pid)
        self._follow(agent_id, run_id, running, record.network)
        return AgentProcess(
            pid=record.program.pid, started_ticks=record.program.started_ticks, enforcement=record.enforcement
        )

    async def pause(self, agent_id: AgentId) -> None:
        """Stop every process of the agent where it is."""
        running = self._run(agent_id).running
        if running.groups is None or not running.groups.freeze(frozen=True):
            await asyncio.to_thread(members.stop, running.inner)

    async def resume(self, agent_id: AgentId) -> None:
        """Let them go on."""
        running = self._run(agent_id).running
        if running.groups is None or not running.groups.freeze(frozen=False):
            await asyncio.to_thread(members.let_go_on, running.inner)

    async def end(self, agent_id: AgentId, *, grace: timedelta) -> Exit:
        """Tell the agent to end, end it by force after ``grace``, and return when nothing of it is left."""
        agent_id = AgentId(canonical_id(agent_id))
        run = self._runs.get(agent_id)
        if run is None:
            return self._last(agent_id)
        if not run.ended.done():
            run.asked_for = True
            await self.resume(agent_id)
            if run.running.program is not None:
                procfs.tell([run.running.program], SIGTERM)
            await asyncio.wait([run.ended], timeout=grace.total_seconds())
            if not run.ended.done():
                await self._maker.kill(run.running)
        return await asyncio.shield(run.ended)

    async def exited(self, agent_id: AgentId) -> Exit:
        """Return how the agent ended, as soon as it has."""
        agent_id = AgentId(canonical_id(agent_id))
        run = self._runs.get(agent_id)
        return self._last(agent_id) if run is None else await asyncio.shield(run.ended)

    async def logs(self, agent_id: AgentId, run_id: str, *, offset: int, limit: int) -> bytes:
        """Return a part of what the agent printed; raises ``NotFound`` (``log_not_found``)."""
        try:
            folder = run_folder(self._maker.settings.boxes, agent_id, run_id)
            return await asyncio.to_thread(folder.read_log, max(0, offset), max(0, limit))
        except (FileNotFoundError, ValueError):
            raise NotFound(
                f"there is no log of run {run_id}",
                code="log_not_found",
                resolution="check the run's id; an agent without a process prints nothing",
            ) from None

    async def close(self) -> None:
        """Stop following the agents. They run on, and are found again by ``adopt``."""
        tasks = [run.ended for run in self._runs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _box_order(self, order: AgentOrder, folder: RunFolder, what: Started) -> BoxOrder:
        agent_id = canonical_id(order.agent_id)
        hello = await self._maker.hello()
        try:
            workspace = await self._mounts.path_for_boxes(order.agent_id)
        except OSError as failure:
            raise start_failed("the box", f"its workspace cannot be mounted: {failure}") from failure
        more = {
            "SCARAB_AGENT_ID": agent_id,
            "SCARAB_SOCKET": f"{SOCKET_FOLDER}/{SOCKET}",
            "SCARAB_NONCE_FILE": NONCE_FILE,
            **({} if order.task is None else {"SCARAB_TASK": order.task}),
            **({} if order.model is None else {"SCARAB_MODEL": order.model}),
        }
        return BoxOrder(
            box=f"{agent_id}-{canonical_id(order.run_id)}",
            owner=_owner(order.agent_id, order.run_id),
            manifest=order.manifest,
            runtime=order.manifest.program.runtime,
            argv=what.argv,
            env=plans.environment(order.manifest, more, sdk=self._maker.settings.sdk is not None),
            workspace=workspace,
            identity=plans.identity_of(agent_id) if hello.rooted else None,
            programs=what.shown,
            extra=await asyncio.to_thread(_shown_socket, folder, order.socket),
            private=[Private(path=NONCE_FILE, mode="0400", content=order.nonce.encode())],
            lasts=True,
            at_once=not plans.has_way_out(order.manifest),
            record=folder.end,
        )

    @contextlib.asynccontextmanager
    async def _way_out(self, order: AgentOrder, running: Running) -> AsyncIterator[None]:
        """Open the box's network before anything runs in it, and close it again if the start then fails."""
        if self._network is None or not plans.has_way_out(order.manifest):
            yield
            return
        await self._network.open(order.agent_id, order.run_id, order.manifest.network, running.inner.pid)
        try:
            yield
        except BaseException:
            await self._network.close(order.agent_id, order.run_id)
            raise

    def _follow(self, agent_id: AgentId, run_id: str, running: Running, network: Network) -> None:
        run = _Run(run_id=run_id, running=running, network=network, ended=None)  # type: ignore[arg-type] # set next
        run.ended = asyncio.get_running_loop().create_task(self._until_end(agent_id, run))
        self._runs[agent_id] = run

    async def _until_end(self, agent_id: AgentId, run: _Run) -> Exit:
        async with self._watch.over(agent_id, lambda: self._maker.kill(run.running)):
            status = await asyncio.shield(run.running.ended)
        await self._maker.clear(run.running)
        if self._network is not None and run.network.policy is not NetworkPolicy.NONE:
            await self._network.close(agent_id, run.run_id)
        return as_exit(status, asked_for=run.asked_for)

    async def _bury(self, agent_id: AgentId, run_id: str, folder: RunFolder) -> None:
        """End what a run left behind, and take in how it ended."""
        await asyncio.to_thread(process.reap, Marker(OWNER, _owner(agent_id, run_id)), grace_s=0.0)
        if groups := self._maker.groups_of(f"{agent_id}-{canonical_id(run_id)}"):
            await asyncio.to_thread(groups.remove)
        try:
            status = folder.read_end()
        except FileNotFoundError:
            status = None
        self._ends[agent_id] = as_exit(status, asked_for=False)

    def _run(self, agent_id: AgentId) -> _Run:
        run = self._runs.get(AgentId(canonical_id(agent_id)))
        if run is None or run.ended.done():
            raise Conflict(
                f"agent {agent_id} has no process that runs",
                code="agent_not_running",
                resolution="read its status; start it again if it is to run",
            )
        return run

    def _last(self, agent_id: AgentId) -> Exit:
        if agent_id in self._ends:
            return self._ends[agent_id]
        raise NotFound(
            f"agent {agent_id} has had no process here",
            code="agent_not_found",
            resolution="check the id; an agent whose manifest names nothing to start has none",
        )


def _owner(agent_id: AgentId, run_id: str) -> str:
    return f"{canonical_id(agent_id)}:{canonical_id(run_id)}"


def _shown_socket(folder: RunFolder, socket: str) -> list[tuple[str, str]]:
    """Return what to show of the host so that the box has the daemon's socket; nothing when there is none."""
    if folder.place_socket(socket):
        return [(str(folder.sockets), SOCKET_FOLDER)]
    return [(socket, f"{SOCKET_FOLDER}/{SOCKET}")] if Path(socket).is_socket() else []
