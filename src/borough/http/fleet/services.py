"""What the controller's handlers may call."""

from dataclasses import dataclass, field

from borough.fleet.ports.fleet import Fleet
from borough.fleet.services.clones import CloneService
from borough.fleet.services.drains import DrainService
from borough.fleet.services.environments import EnvironmentService
from borough.fleet.services.events import EventService
from borough.fleet.services.guests import GuestService
from borough.fleet.services.hosts import HostService
from borough.fleet.services.images import ImageService
from borough.fleet.services.machines import MachineService
from borough.fleet.services.operations import OperationService
from borough.fleet.services.waiting import WaitingService
from borough.http.beside import Beside
from borough.http.fleet.terminals import Terminals
from borough.http.fleet.tickets import Tickets


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetServices:
    """One controller's services: the ``state`` of every ``Call``."""

    strict: bool
    """Answers have nothing that the reference does not have."""
    started_monotonic: float
    fleet: Fleet
    """For what is only read."""
    hosts: HostService
    drains: DrainService
    environments: EnvironmentService
    waiting: WaitingService
    machines: MachineService
    operations: OperationService
    guests: GuestService
    clones: CloneService
    images: ImageService
    events: EventService
    ledger: Beside | None = None
    """A ledger that this program shares with others."""
    terminals: Terminals = field(default_factory=Terminals)
    tickets: Tickets = field(default_factory=Tickets)
