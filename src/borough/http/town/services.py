"""What the town's handlers may call."""

from collections.abc import Callable
from dataclasses import dataclass

from borough.http.beside import Beside
from borough.town.clis import AgentCli
from borough.town.services.administration import AdministrationService
from borough.town.services.agents import AgentService
from borough.town.services.events import EventService
from borough.town.services.logs import LogService
from borough.town.services.messages import MessageService
from borough.town.services.readings import ReadingService
from borough.town.services.recovery import RecoveryService
from borough.town.services.tasks import TaskService
from borough.town.services.workers import WorkerService


@dataclass(frozen=True, slots=True, kw_only=True)
class TownFacts:
    """What does not change while the server runs."""

    name: str
    root: str
    redis_url: str
    """Password redacted."""
    max_agents: int
    lease_ms: int
    idle_timeout_s: int
    started_monotonic: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TownServices:
    """One application's services: the ``state`` of every ``Call``."""

    facts: TownFacts
    tasks: TaskService
    messages: MessageService
    agents: AgentService
    workers: WorkerService
    recovery: RecoveryService
    readings: ReadingService
    events: EventService
    logs: LogService
    administration: AdministrationService
    resolve_cli: Callable[[str], AgentCli]
    fleet: Beside | None = None
    ledger: Beside | None = None
    """A ledger that this program shares with others."""
