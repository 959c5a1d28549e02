"""What the town's handlers may call."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

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


class FleetBeside(Protocol):
    """A fleet that is served beside the town, as the town's open routes tell of it."""

    async def told(self) -> str:
        """Return how it stands: ``ready``, or another word and why."""

    async def metrics(self) -> str:
        """Return its sums as Prometheus reads them; nothing while there are none."""


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
    fleet: FleetBeside | None = None
