"""The services around agents' lives, put together; and the runs that may connect to the sockets."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from borough.adapters.agent_folders import AgentFolders
from borough.bootstrap.governance_outside import AGENTS_FOLDER, Outside
from borough.bootstrap.governance_stores import Stores
from borough.config.governance import GovernanceSettings
from borough.core.ids import AgentId
from borough.governance.services.agent_store import AgentStoreService
from borough.governance.services.agents import AgentService
from borough.governance.services.endings import Endings, Processes
from borough.governance.services.hierarchy import HierarchyService
from borough.governance.services.preparing import Preparer
from borough.governance.services.results import ResultService
from borough.governance.services.schedule import ScheduleService
from borough.governance.services.starting import Starter
from borough.governance.services.supervision import Supervision
from borough.governance.services.tooling import Foundation
from borough.governance.services.workspaces import WorkspaceService
from borough.ipc.announcing import AnnouncingRunner
from borough.ipc.identity import NonceRegistry


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentServices:
    """What there is around agents' lives."""

    agents: AgentService
    agent_store: AgentStoreService
    hierarchy: HierarchyService
    results: ResultService
    schedule: ScheduleService
    workspaces: WorkspaceService
    supervision: Supervision
    runs: NonceRegistry


def agent_services(settings: GovernanceSettings, stores: Stores, outside: Outside, shared: Foundation) -> AgentServices:
    """Return the services over their ports."""
    kept, runs, processes = stores.kept, NonceRegistry(), Processes()
    runner = AnnouncingRunner(
        outside.engine.runner, runs, nonce_of=_nonces(stores), readmit=_readmission(settings, outside)
    )
    workspaces, folders = outside.engine.workspaces, AgentFolders(settings.data_folder / AGENTS_FOLDER)
    gate, recorder = shared.gate, shared.recorder
    endings = Endings(agents=kept.agents, courses=kept.courses, runner=runner, recorder=recorder, processes=processes)
    starter = Starter(
        agents=kept.agents,
        courses=kept.courses,
        runner=runner,
        workspaces=workspaces,
        recorder=recorder,
        processes=processes,
        on_end=endings.on_end,
        socket=str(settings.agents_socket),
    )
    supervision = Supervision(
        agents=kept.agents,
        courses=kept.courses,
        runner=runner,
        workspaces=workspaces,
        recorder=recorder,
        standings=shared.standings,
        processes=processes,
        endings=endings,
        starter=starter,
    )
    agents = AgentService(
        gate=gate,
        agents=kept.agents,
        courses=kept.courses,
        recorder=recorder,
        runner=runner,
        preparer=Preparer(kept.agents, kept.agent_store, folders, most_depth=settings.max_depth),
        starter=starter,
        endings=endings,
        supervision=supervision,
        processes=processes,
    )
    runs.on_session(agents.session_opened)
    return AgentServices(
        agents=agents,
        agent_store=AgentStoreService(gate=gate, store=kept.agent_store, folders=folders, recorder=recorder),
        hierarchy=HierarchyService(gate=gate, agents=kept.agents, standings=shared.standings, recorder=recorder),
        results=ResultService(
            gate=gate,
            agents=kept.agents,
            courses=kept.courses,
            runner=runner,
            recorder=recorder,
            scrubber=shared.scrubber,
        ),
        schedule=ScheduleService(gate=gate, agents=kept.agents, courses=kept.courses, recorder=recorder),
        workspaces=WorkspaceService(
            gate=gate,
            agents=kept.agents,
            workspaces=workspaces,
            runner=runner,
            recorder=recorder,
            processes=processes,
        ),
        supervision=supervision,
        runs=runs,
    )


def _nonces(stores: Stores) -> Callable[[AgentId, str], Awaitable[str | None]]:
    async def nonce_of(agent_id: AgentId, run_id: str) -> str | None:
        course = await stores.kept.courses.get(agent_id)
        return course.nonce_sha256 if course.run_id == run_id else None

    return nonce_of


def _readmission(settings: GovernanceSettings, outside: Outside) -> Callable[[AgentId, str], Awaitable[object]]:
    async def readmit(agent_id: AgentId, run_id: str) -> object:
        return await outside.engine.runner.readmit(agent_id, run_id, str(settings.agents_socket))

    return readmit
