"""What the gateway's handlers may call."""

from dataclasses import dataclass, field

from borough.governance.services.agent_store import AgentStoreService
from borough.governance.services.agents import AgentService
from borough.governance.services.audit import AuditService
from borough.governance.services.blackboard import BlackboardService
from borough.governance.services.bus import BusService
from borough.governance.services.events import EventService
from borough.governance.services.gate import Gate
from borough.governance.services.hierarchy import HierarchyService
from borough.governance.services.memory import MemoryService
from borough.governance.services.observations import ObservationService
from borough.governance.services.proofs import ProofService
from borough.governance.services.reads import ReadService
from borough.governance.services.results import ResultService
from borough.governance.services.schedule import ScheduleService
from borough.governance.services.secrets import SecretService
from borough.governance.services.tokens import TokenService
from borough.governance.services.tooling import Tooling
from borough.governance.services.workspaces import WorkspaceService
from borough.http.beside import Beside
from borough.http.governance.health import DaemonFacts
from borough.http.governance.messages import MessageDoor


@dataclass(frozen=True, slots=True, kw_only=True)
class GovernanceServices:
    """One daemon's services: the ``state`` of every ``Call`` to the gateway."""

    facts: DaemonFacts
    gate: Gate
    reads: ReadService
    audit: AuditService
    proofs: ProofService
    events: EventService
    memory: MemoryService
    observations: ObservationService
    blackboard: BlackboardService
    bus: BusService
    secrets: SecretService
    tokens: TokenService
    agents: AgentService
    agent_store: AgentStoreService
    hierarchy: HierarchyService
    results: ResultService
    schedule: ScheduleService
    workspaces: WorkspaceService
    tooling: Tooling
    ledger: Beside | None = None
    """How the ledger stands, where other programs share it."""
    messages: MessageDoor = field(default_factory=MessageDoor)
