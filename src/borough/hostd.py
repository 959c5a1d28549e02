"""The host daemon: settings, folder, port, store, machines, HTTP; then the way back. Machines run on without it."""

import asyncio
import sys

import structlog
import uvloop
from starlette.types import ASGIApp

from borough.adapters.host.signs import reachable_address
from borough.bootstrap.host import OpenHost, Parts, local_parts, open_host
from borough.bootstrap.serving import Opening, application, nobody_is_bound, take, told
from borough.bootstrap.serving import serve as serve_opening
from borough.config.fleet import HostSettings
from borough.core.errors import BoroughError
from borough.http.binding import bound_port
from borough.http.fleet.authentication import KeyAuthenticator
from borough.http.fleet.dialect import fleet_error, strict_host_error
from borough.http.host.document import ABOUT
from borough.http.host.routes import OPERATIONS
from borough.http.pages import page_operations
from borough.http.surfaces import Surface
from borough.observability.logs import configure

log = structlog.get_logger(__name__)


def serve(settings: HostSettings, *, parts: Parts = local_parts) -> int:
    """Serve this host until a signal ends the daemon; return the exit code."""
    configure(verbose=settings.verbose)
    try:
        opening = take(settings.listening, settings.data_dir, how="--listen 127.0.0.1:9101")
        uvloop.run(_serve(settings, opening, parts))
    except BoroughError as error:
        sys.stderr.write(told(error))
        return 1
    return 0


async def _serve(settings: HostSettings, opening: Opening, parts: Parts) -> None:
    stopping, listening = asyncio.Event(), settings.listening
    if listening.api_key is None and not listening.join_only:
        log.warning("start.warning", told="there is no API key: whoever can connect may do anything")
    if not listening.tls and not listening.is_loopback:
        log.warning("start.warning", told="without --tls, what is said to this host can be read and changed on the way")
    async with open_host(settings, parts=parts) as host:
        app = host_application(settings, opening, host, stopping)
        host.door.announce(reachable_address(listening.host, bound_port(opening.sockets)))
        if listening.join_only or listening.tls:
            log.info("host.invites", told=f"tt-agent --invite --data-dir {settings.data_dir} prints how it is joined")
        tls = None if host.certificate is None else host.certificate.context
        await serve_opening(opening, app, stopping, name="tt-agent", loops=host.controllers, tls=tls)


def host_application(settings: HostSettings, opening: Opening, host: OpenHost, stopping: asyncio.Event) -> ASGIApp:
    """Return the whole HTTP application of a host."""
    listening = settings.listening
    dialect = strict_host_error if settings.strict else fleet_error
    surface = Surface(
        operations=(*OPERATIONS, *page_operations(OPERATIONS, ABOUT)),
        state=host.services,
        authenticate=KeyAuthenticator(
            listening.api_key, operator=opening.operator, joined=host.door.knows, closed=listening.join_only
        ),
        grant_is_live=nobody_is_bound,
        dialect=dialect,
        closed_under="/",
    )
    return application(surface, listening, stopping, idempotency=None, dialect=dialect)
