"""The fleet's controller: settings, folder, port, store, services, HTTP; then the way back."""

import asyncio
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import uvloop
from starlette.types import ASGIApp

from borough.bootstrap.fleet import FleetController, open_fleet
from borough.bootstrap.serving import Opening, application, nobody_is_bound, take, told
from borough.bootstrap.serving import serve as serve_opening
from borough.config.fleet import ControllerSettings
from borough.core.errors import BoroughError
from borough.governance.ledger import Via
from borough.http.auth import LoginFailure
from borough.http.fleet.authentication import KeyAuthenticator
from borough.http.fleet.dialect import fleet_error, strict_fleet_error
from borough.http.fleet.document import ABOUT
from borough.http.fleet.routes import OPERATIONS
from borough.http.idempotency import Idempotency
from borough.http.pages import page_operations
from borough.http.surfaces import Surface
from borough.observability.logs import configure

if TYPE_CHECKING:
    from borough.bootstrap.fleet_record import FleetRecord
    from borough.bootstrap.shared_ledger import SharedLedger

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
    async with AsyncExitStack() as undo:
        fleet = await undo.enter_async_context(open_fleet(settings, recorded=settings.ledger is not None))
        record = None if settings.ledger is None else await _record(undo, settings.ledger, fleet)
        app = fleet_application(settings, opening, fleet, stopping, record=record)
        await serve_opening(opening, app, stopping, name="tt-ctl", loops=fleet.controllers)


async def _record(undo: AsyncExitStack, folder: Path, fleet: FleetController) -> "Recorded":
    """Hand in what the fleet does for the ledger that it shares."""
    from borough.bootstrap.fleet_record import FleetRecord  # noqa: PLC0415 - a fleet alone starts without it
    from borough.bootstrap.shared_ledger import shared_ledger  # noqa: PLC0415 - see above

    async def opened() -> FleetController:
        return fleet

    ledger = await undo.enter_async_context(shared_ledger(folder, program="tt-ctl"))
    record = FleetRecord(ledger.intake(Via.FLEET), opened)
    await record.begin(fleet, undo)
    return Recorded(record=record, ledger=ledger)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A fleet's way into a ledger that it shares."""

    record: "FleetRecord"
    ledger: "SharedLedger"


def _not_noted(_failure: LoginFailure) -> None:
    """Let a refused login be: it is logged, and there is no ledger."""


def fleet_application(
    settings: ControllerSettings,
    opening: Opening,
    fleet: FleetController,
    stopping: asyncio.Event,
    *,
    record: Recorded | None = None,
) -> ASGIApp:
    """Return the whole HTTP application of a controller."""
    dialect = strict_fleet_error if settings.strict else fleet_error
    surface = Surface(
        operations=(*OPERATIONS, *page_operations(OPERATIONS, ABOUT)),
        state=fleet.services if record is None else replace(fleet.services, ledger=record.ledger),
        authenticate=KeyAuthenticator(
            settings.listening.api_key,
            operator=opening.operator,
            on_failure=_not_noted if record is None else record.record.refused_login,
        ),
        before_write=None if record is None else record.record.check,
        note_refusal=None if record is None else record.record.refused,
        grant_is_live=nobody_is_bound,
        dialect=dialect,
        by_ticket=fleet.services.tickets.take,
        closed_under="/",
    )
    replies = Idempotency(fleet.replies)
    return application(surface, settings.listening, stopping, idempotency=replies, dialect=dialect)
