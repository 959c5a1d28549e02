"""The fleet's controller, put together."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from borough.adapters.host.directory import HostDirectory
from borough.adapters.sql.engine import Database
from borough.adapters.sql.fleet.access import SqlReplies, host_trust
from borough.adapters.sql.fleet.controller import SqlFleet
from borough.adapters.sql.fleet.outgoing import OutgoingEvents
from borough.adapters.sql.fleet.tables import CONTROLLER
from borough.adapters.storage.files import FileStore
from borough.bootstrap.images import MAKING
from borough.config.fleet import ControllerSettings
from borough.controllers.fleet import controllers
from borough.controllers.loops import Controller
from borough.fleet.ports.host_agent import HostAgent
from borough.fleet.services.clones import CloneService
from borough.fleet.services.drains import DrainService
from borough.fleet.services.environments import EnvironmentService
from borough.fleet.services.events import EventService
from borough.fleet.services.guests import GuestService
from borough.fleet.services.hosts import HostService
from borough.fleet.services.images import ImageService
from borough.fleet.services.listening import ListeningService
from borough.fleet.services.machines import MachineService
from borough.fleet.services.operations import OperationService
from borough.fleet.services.waiting import WaitingService
from borough.http.fleet.services import FleetServices
from borough.town.ports.replies import Replies

STORE = "ctl.db"
STOCK = "images"
"""The controller's own images, in its data folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetController:
    """An open controller: what serves it and what keeps it."""

    services: FleetServices
    listening: ListeningService
    controllers: tuple[Controller, ...]
    replies: Replies
    outgoing: OutgoingEvents
    store_id: str
    """What tells its file from every other."""


@asynccontextmanager
async def open_fleet(
    settings: ControllerSettings, *, local: Mapping[str, HostAgent] | None = None, recorded: bool = False
) -> AsyncIterator[FleetController]:
    """Open the controller's file, put its services together over it, and go on with what was under way.

    ``local`` are hosts in this very process, by address. Where it is ``recorded``, events are kept until they
    were read.

    Raises:
        Conflict: another process has the file (``store_in_use``).
        Unavailable: it cannot be read or written (``store_unavailable``).
    """
    database = await Database.open(settings.data_dir / STORE, CONTROLLER)
    try:
        fleet = await SqlFleet.open(database)
        if recorded:
            fleet.keep_events_until_read()
        trusted = await host_trust(database)
        directory = HostDirectory(trusted, fleet_key=settings.listening.api_key, local=local)
        services = _services(settings, fleet, directory)
        listening = ListeningService(fleet, directory, services.machines)
        try:
            await services.environments.take_up()
            await services.drains.take_up()
            yield FleetController(
                services=services,
                listening=listening,
                controllers=controllers(fleet, services.hosts, services.environments, services.machines, listening),
                replies=SqlReplies(database),
                outgoing=OutgoingEvents(fleet),
                store_id=await fleet.store_id(),
            )
        finally:
            await listening.close()
            await services.operations.close()
            await directory.close()
    finally:
        await database.close()


def _services(settings: ControllerSettings, fleet: SqlFleet, directory: HostDirectory) -> FleetServices:
    stock = settings.data_dir.absolute() / STOCK
    images = ImageService(fleet, directory, FileStore(images=stock, runtime=stock / MAKING))
    machines = MachineService(fleet, directory, images)
    operations = OperationService(fleet)
    environments = EnvironmentService(
        fleet, machines, operations, images, most_vms=settings.most_vms, most_lifetime=settings.most_lifetime
    )
    guests = GuestService(machines, fleet)
    return FleetServices(
        strict=settings.strict,
        started_monotonic=time.monotonic(),
        fleet=fleet,
        hosts=HostService(fleet, directory, machines, most_hosts=settings.most_hosts),
        drains=DrainService(fleet, machines, operations),
        environments=environments,
        waiting=WaitingService(environments, operations),
        machines=machines,
        operations=operations,
        guests=guests,
        clones=CloneService(fleet, guests),
        images=images,
        events=EventService(fleet),
    )
