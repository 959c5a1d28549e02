"""Runs, put together over an open town, its governance and its fleet."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from borough.adapters.run_files import RunFolders
from borough.adapters.sql.engine import Database
from borough.adapters.sql.private_files import private_folder
from borough.adapters.sql.runs.store import SqlRuns
from borough.adapters.sql.runs.tables import RUNS
from borough.bootstrap.governance import Governance
from borough.bootstrap.pools import TownPools
from borough.bootstrap.running import running
from borough.bootstrap.town import Town
from borough.bootstrap.town_fleet import TownFleet
from borough.controllers.runs import controllers
from borough.http.pages import page_operations
from borough.http.runs.about import ABOUT
from borough.http.runs.runs import OPERATIONS
from borough.http.runs.services import RunServices
from borough.http.surfaces import Authenticate, GrantIsLive, Policies, Surface
from borough.pools.services.warm import WarmMachines
from borough.runs.ports import House, RunFiles, RunStore
from borough.runs.services.agent_kills import AgentKills
from borough.runs.services.agents import Law, LiveKeys, RunAgents
from borough.runs.services.house import OwnHouse
from borough.runs.services.keeping import RunKeeper
from borough.runs.services.kills import KillService
from borough.runs.services.machines import RunMachines
from borough.runs.services.parts import RunParts
from borough.runs.services.ready import ReadyMachines
from borough.runs.services.runs import RunService
from borough.runs.services.tasks import RunTasks
from borough.runs.services.tasks import Town as RunTown

FOLDER = "runs"
STORE = "runs.db"
UNDER = "/runs"
"""Where the runs' document is served beside the town's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRuns:
    """Open runs: what serves them."""

    services: RunServices
    store: RunStore
    files: RunFiles
    keeper: RunKeeper

    def surface(
        self,
        *,
        authenticate: Authenticate,
        grant_is_live: GrantIsLive,
        before_write: Callable[[], None] | None,
        policies: Policies | None = None,
    ) -> Surface:
        """Return their operations, with the town's callers; ``policies`` where they are not the table's."""
        pages = page_operations(OPERATIONS, ABOUT, under=UNDER, others={"the town": "/docs"})
        return Surface(
            operations=(*OPERATIONS, *pages),
            state=self.services,
            authenticate=authenticate,
            grant_is_live=grant_is_live,
            before_write=before_write,
            policies=policies,
        )


@asynccontextmanager
async def open_runs(
    state_folder: Path, town: Town, governance: Governance, machines: RunMachines
) -> AsyncIterator[OpenRuns]:
    """Open the runs of a town, and keep them going until the context is left; ``machines`` run on then.

    Raises:
        Conflict: another process has their file (``store_in_use``).
        Unavailable: it cannot be read or written (``store_unavailable``).
    """
    folder = private_folder(state_folder / FOLDER)
    database = await Database.open(folder / STORE, RUNS)
    try:
        store = await SqlRuns.open(database)
        parts = _parts(store, RunFolders(folder), town, governance, machines)
        keeper = RunKeeper(parts)
        services = _services(parts, keeper, town, governance)
        await keeper.take_up()
        async with running(controllers(keeper)):
            try:
                yield OpenRuns(services=services, store=store, files=parts.files, keeper=keeper)
            finally:
                await asyncio.shield(keeper.close())
    finally:
        await database.close()


def _parts(
    store: RunStore, files: RunFolders, town: Town, governance: Governance, machines: RunMachines
) -> RunParts:  # fmt: skip
    keys = LiveKeys()
    governance.services.tokens.live.append(keys)
    law = Law(
        agents=governance.services.agents,
        register=governance.stores.kept.agents,
        store=governance.stores.kept.agent_store,
        tokens=governance.services.tokens,
        recorder=governance.recorder,
        approvals=governance.stores.kept.approvals,
        homes=governance.homes,
    )
    return RunParts(
        store=store,
        files=files,
        tasks=RunTasks(RunTown(tasks=town.tasks, leases=town.leases, agents=town.agents, retry=town.retry)),
        agents=RunAgents(law, keys),
        machines=machines,
    )


def own_machines(fleet: TownFleet, pools: TownPools | None) -> RunMachines:
    """Return the machines of runs in the fleet of this process."""

    async def house() -> House:
        services = await fleet.services()
        return OwnHouse(
            fleet=services.fleet,
            environments=services.environments,
            waiting=services.waiting,
            operations=services.operations,
            machines=services.machines,
            guests=services.guests,
        )

    return RunMachines(house, ReadyMachines(no_pools if pools is None else pools.ready))


async def no_pools() -> WarmMachines | None:
    """Return what runs are told that have no pools."""
    return None


def _services(parts: RunParts, keeper: RunKeeper, town: Town, opened: Governance) -> RunServices:
    governance = opened.services
    runs = RunService(parts, keeper)
    governance.agents.on_end.append(keeper.agent_ended)
    return RunServices(
        runs=runs,
        kills=KillService(
            parts,
            runs,
            keeper,
            agents=AgentKills(
                agents=governance.agents,
                tokens=governance.tokens,
                recorder=opened.recorder,
                withdraw=governance.tooling.approvals.on_end,
                town=town.services.agents,
                tasks=town.tasks,
            ),
        ),
        audit=governance.audit,
    )
