"""The services around agents' lives, put together; and the runs that may connect to the sockets."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypedDict

from borough.adapters.agent_folders import AgentFolders
from borough.adapters.sql.governance.agents import SqlAgents
from borough.adapters.sql.governance.courses import SqlCourses
from borough.bootstrap.governance_outside import AGENTS_FOLDER, Outside
from borough.bootstrap.governance_stores import Stores
from borough.config.governance import GovernanceSettings
from borough.core.ids import AgentId
from borough.governance.services.agent_store import AgentStoreService
from borough.governance.services.agents import AgentService
from borough.governance.services.endings import Endings, Processes
from borough.governance.services.hierarchy import HierarchyService
from borough.governance.services.preparing import Preparer
from borough.governance.services.recording import Recorder
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
    runs = NonceRegistry()
    runner = AnnouncingRunner(outside.engine.runner, runs, nonce_of=_nonces(stores))
    parts = _Parts(settings=settings, stores=stores, outside=outside, shared=shared, runner=runner)
    endings, starter, supervision = parts.lives()
    folders = AgentFolders(settings.data_folder / AGENTS_FOLDER)
    gate, recorder, kept = shared.gate, shared.recorder, stores.kept
    agents = AgentService(
        preparer=Preparer(kept.agents, kept.agent_store, folders, most_depth=settings.max_depth),
        starter=starter,
        endings=endings,
        supervision=supervision,
        gate=gate,
        processes=parts.processes,
        runner=runner,
        **parts.common(),
    )
    runs.on_session(agents.session_opened)
    return AgentServices(
        agents=agents,
        agent_store=AgentStoreService(gate=gate, store=kept.agent_store, folders=folders, recorder=recorder),
        hierarchy=HierarchyService(gate=gate, agents=kept.agents, standings=shared.standings, recorder=recorder),
        results=ResultService(gate=gate, runner=runner, scrubber=shared.scrubber, **parts.common()),
        schedule=ScheduleService(gate=gate, **parts.common()),
        workspaces=parts.workspaces(),
        supervision=supervision,
        runs=runs,
    )


class _Common(TypedDict):
    """What nearly all of these services take."""

    agents: SqlAgents
    courses: SqlCourses
    recorder: Recorder


@dataclass(slots=True, kw_only=True)
class _Parts:
    """What the services are made of."""

    settings: GovernanceSettings
    stores: Stores
    outside: Outside
    shared: Foundation
    runner: AnnouncingRunner
    processes: Processes = field(default_factory=Processes)

    def common(self) -> _Common:
        kept = self.stores.kept
        return {"agents": kept.agents, "courses": kept.courses, "recorder": self.shared.recorder}

    def lives(self) -> tuple[Endings, Starter, Supervision]:
        workspaces = self.outside.engine.workspaces
        endings = Endings(runner=self.runner, processes=self.processes, **self.common())
        starter = Starter(
            runner=self.runner,
            workspaces=workspaces,
            processes=self.processes,
            on_end=endings.on_end,
            socket=str(self.settings.agents_socket),
            **self.common(),
        )
        supervision = Supervision(
            runner=self.runner,
            workspaces=workspaces,
            standings=self.shared.standings,
            processes=self.processes,
            endings=endings,
            starter=starter,
            **self.common(),
        )
        return endings, starter, supervision

    def workspaces(self) -> WorkspaceService:
        return WorkspaceService(
            gate=self.shared.gate,
            agents=self.stores.kept.agents,
            workspaces=self.outside.engine.workspaces,
            runner=self.runner,
            recorder=self.shared.recorder,
            processes=self.processes,
        )


def _nonces(stores: Stores) -> Callable[[AgentId, str], Awaitable[str | None]]:
    async def nonce_of(agent_id: AgentId, run_id: str) -> str | None:
        course = await stores.kept.courses.get(agent_id)
        return course.nonce_sha256 if course.run_id == run_id else None

    return nonce_of
