"""A town and a fleet in this process, for pools beside them: machines are processes that sleep, workers are what
``serve`` says.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from borough.adapters.sql.pools import SqlPools
from borough.auth.tokens import KEY_BYTES, SignedTokens
from borough.bootstrap.fleet import FleetController, open_fleet
from borough.bootstrap.store import open_store
from borough.bootstrap.town import Town, open_town
from borough.config.town import load_town
from borough.config.town_file import create_town, prepare_state_folder
from borough.core.ids import AgentId, TaskId, new_id
from borough.core.paging import PageRequest
from borough.fleet.ports.engines import Chunk, ExecOrder, Stream
from borough.fleet.ports.fleet import EnvFilter
from borough.fleet.vms import VmId
from borough.pools.pools import PoolSettings
from borough.pools.services.autoscaler import Autoscaler, Seen
from borough.pools.services.machines import PoolMachines
from borough.pools.services.pools import PoolService
from borough.pools.services.telling import Telling
from borough.pools.services.watching import Watch
from borough.pools.services.workers import PoolWorkers
from borough.town.agents import TERMINAL, Agent, AgentState, Directive, WorkerProcess
from borough.town.services.tasks import Ending, Wanted
from borough.town.services.workers import Worker
from borough.town.tasks import Task
from tests.services.fleet_house import opened_host, settings_of_controller, settings_of_host
from tests.services.plain_engine import PlainEngine

ROLE = "coder"
LEASE = timedelta(seconds=30)
PASSES = 300
SMALL = PoolSettings(image="base", maximum=2, quiet_s=0, memory_mib=64, disk_mib=100)


@dataclass
class House:
    """A town and a fleet that outlive the pools beside them, and what was started in machines."""

    town: Town
    fleet: FleetController
    engine: PlainEngine
    started: list[VmId] = field(default_factory=list)

    def autoscaler(self, store: Any, *, max_agents: int = 10) -> Autoscaler:
        town, homes = self.town.services, self.fleet.services
        return Autoscaler(
            store,
            watch=Watch(homes.environments, homes.operations),
            machines=PoolMachines(store, homes.environments),
            workers=PoolWorkers(store, homes.guests, town.agents, town.workers),
            telling=Telling(store, self.town.events),
            agents=town.agents,
            readings=town.readings,
            max_agents=max_agents,
        )

    async def put(self, store: SqlPools, settings: PoolSettings, *, role: str = ROLE) -> None:
        """Set a pool."""
        await PoolService(store, Telling(store, self.town.events), seen=Seen).put(role, settings, by="me")

    async def submit(self, role: str | None = ROLE) -> TaskId:
        """Put a task into the backlog."""
        task_id = TaskId(new_id())
        await self.town.services.tasks.add_to_backlog(
            Wanted(description="do it", role=role, pointer="/description"), task_id=task_id
        )
        return task_id

    async def task(self, task_id: TaskId) -> Task:
        return (await self.town.services.tasks.get(task_id))[0]

    async def serve(self, store: SqlPools) -> None:
        """Say what the workers in machines would: they report, take, complete, and leave when they are told to."""
        agents = {agent.id: agent for agent in await self.town.agents.all()}
        for machine in await store.machines():
            agent = agents.get(AgentId(machine.agent_id or ""))
            if agent is not None and machine.vm_id in self.started and agent.incarnation == machine.incarnation:
                await self._serve(agent)

    async def _serve(self, agent: Agent) -> None:
        worker = Worker(agent_id=agent.id, incarnation=agent.incarnation)
        if agent.state in TERMINAL:
            return
        if agent.state is AgentState.STARTING:
            process = WorkerProcess(host="inside", pid=1, started_ticks=1)
            await self.town.leases.start(agent.id, incarnation=agent.incarnation, process=process, lease=LEASE)
        beat = await self.town.leases.beat(
            agent.id, incarnation=agent.incarnation, task_id=None, epoch=None, lease=LEASE
        )  # fmt: skip
        if beat.directive is Directive.DRAIN:
            await self.town.services.workers.leave(worker, reason="drained", failed=False)
            return
        lease, _ = await self.town.leases.take(agent.id, incarnation=agent.incarnation, lease=LEASE)
        if lease is not None:
            await self.town.services.tasks.complete(
                lease.task.id, result="done", ending=Ending(by=agent.name, epoch=lease.task.epoch)
            )

    async def until(
        self, store: SqlPools, scaler: Autoscaler, holds: Callable[[], Awaitable[bool]], *, serve: bool = True
    ) -> None:
        """Let pass after pass go over the pools until something holds; ``serve``: workers do their part."""
        for _ in range(PASSES):
            if await holds():
                return
            await scaler.act()
            await asyncio.sleep(0.005)
            if serve:
                await self.serve(store)
        pytest.fail(f"did not hold after {PASSES} passes: {await store.machines()}")

    async def environments(self) -> list[str]:
        page = await self.fleet.services.environments.find(EnvFilter(), PageRequest(limit=1000))
        return [each.environment.id for each in page.items]


@asynccontextmanager
async def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    (tmp_path / "town").mkdir()
    created = create_town(tmp_path / "town")
    settings = load_town(created.root, {})
    prepare_state_folder(settings.root)
    async with AsyncExitStack() as undo:
        store = await undo.enter_async_context(open_store(settings))
        tokens = SignedTokens(b"k" * KEY_BYTES)
        town = await undo.enter_async_context(open_town(settings, store, tokens=tokens, server_url="http://nowhere"))
        host, engine = await undo.enter_async_context(opened_host(settings_of_host(tmp_path / "host")))
        local = {"127.0.0.1:9": host.daemon}
        fleet = await undo.enter_async_context(open_fleet(settings_of_controller(tmp_path), local=local))
        await fleet.services.hosts.adopt("127.0.0.1:9")
        house = House(town, fleet, engine)

        async def execute(
            _engine: PlainEngine, vm_id: VmId, _order: ExecOrder, _stdin: AsyncIterator[bytes]
        ) -> AsyncIterator[Chunk]:
            house.started.append(vm_id)
            yield Chunk(stream=Stream.EXIT, exit_code=0)

        monkeypatch.setattr(PlainEngine, "execute", execute)
        yield house
