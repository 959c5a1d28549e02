"""What the gateway's handlers may call."""

from dataclasses import dataclass

from borough.governance.services.agent_store import AgentStoreService
from borough.governance.services.agents import AgentService
from borough.governance.services.gate import Gate
from borough.governance.services.hierarchy import HierarchyService
from borough.governance.services.results import ResultService
from borough.governance.services.schedule import ScheduleService
from borough.governance.services.workspaces import WorkspaceService


@dataclass(frozen=True, slots=True, kw_only=True)
class GovernanceServices:
    """One daemon's services: the ``state`` of every ``Call`` to the gateway."""

    gate: Gate
    agents: AgentService
    agent_store: AgentStoreService
    hierarchy: HierarchyService
    results: ResultService
    schedule: ScheduleService
    workspaces: WorkspaceService
