"""The fleet's controller: settings, folder, port, store, services, HTTP; then the way back."""

import asyncio
import sys

import structlog
import uvloop
from starlette.types import ASGIApp

from borough.bootstrap.fleet import FleetController, open_fleet
from borough.bootstrap.serving import Opening, application, nobody_is_bound, take, told
from borough.bootstrap.serving import serve as serve_opening
from borough.config.fleet import ControllerSettings
from borough.core.errors import BoroughError
from borough.http.fleet.authentication import KeyAuthenticator
from borough.http.fleet.dialect import fleet_error, strict_fleet_error
from borough.http.fleet.document import ABOUT
from borough.http.fleet.routes import OPERATIONS
from borough.http.idempotency import Idempotency
from borough.http.pages import page_operations
from borough.http.table import Surface
from borough.observability.logs import configure

log = structlog.get_logger(__name__)


def serve(settings: ControllerSettings) -> int:
    """Serve the fleet's controller until a signal ends it; return the exit code."""
    configure(verbose=settings.verbose)
    try:
        opening = take(settings.listening, settings.data_dir, how="--listen 127.0.0.1:9201")
        uvloop.run(_serve(settings, opening))
    except BoroughError as error:
        sys.stderr.write(told(error))
        return 1
    return 0


async def _serve(settings: ControllerSettings, opening: Opening) -> None:
    stopping = asyncio.Event()
    if settings.listening.api_key is None:
        log.warning("start.warning", told="there is no API key: whoever can connect may do anything")
    async with open_fleet(settings) as fleet:
        app = fleet_application(settings, opening, fleet, stopping)
        await serve_opening(opening, app, stopping, name="tt-ctl", loops=fleet.controllers)


def fleet_application(
    settings: ControllerSettings, opening: Opening, fleet: FleetController, stopping: asyncio.Event
) -> ASGIApp:
    """Return the whole HTTP application of a controller."""
    dialect = strict_fleet_error if settings.strict else fleet_error
    surface = Surface(
        operations=(*OPERATIONS, *page_operations(OPERATIONS, ABOUT)),
        state=fleet.services,
        authenticate=KeyAuthenticator(settings.listening.api_key, operator=opening.operator),
        grant_is_live=nobody_is_bound,
        dialect=dialect,
        by_ticket=fleet.services.tickets.take,
        closed_under="/",
    )
    replies = Idempotency(fleet.replies)
    return application(surface, settings.listening, stopping, idempotency=replies, dialect=dialect)
