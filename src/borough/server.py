"""The server: settings, safety, port, store, town, HTTP; then the way back.

``townhall`` serves a town; ``borough up`` serves governance and the fleet on the same port too.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import uvloop

from borough.adapters.credentials.operator import announce_server, withdraw_server
from borough.bootstrap.contexts import open_contexts
from borough.bootstrap.running import refusal, running
from borough.bootstrap.town import Town
from borough.bootstrap.town_application import application
from borough.bootstrap.town_opening import TownOpening, open_port
from borough.core.errors import BoroughError
from borough.http.server import serve as serve_http
from borough.observability.logs import configure

if TYPE_CHECKING:
    from borough.config.fleet import Housing
    from borough.config.sections import BoxMode

log = structlog.get_logger(__name__)

END_WORKERS_S = 15.0
Greet = Callable[[str, Callable[[], str]], None]


def serve(
    root: Path,
    *,
    bind: str | None,
    port: int | None,
    verbose: bool,
    housing: "Housing | None" = None,
    worker_box: "BoxMode | None" = None,
    greet: Greet | None = None,
) -> int:
    """Serve the town at ``root`` until a signal ends it; return the exit code. ``housing``: govern and house too.
    ``worker_box`` wins over what the town's settings say of boxes.

    ``greet`` is called when the dashboard answers, with where it is and what makes an address that signs its reader in.

    What is wrong with settings, files or port is said in one line on stderr before anything is started.
    """
    configure(verbose=verbose)
    try:
        opening = open_port(root, bind, port, os.environ, housing, worker_box=worker_box)
        try:
            uvloop.run(_serve(opening, greet))
        finally:
            opening.close()
    except BoroughError as error:
        sys.stderr.write(refusal(error))
        return 1
    return 0


async def _serve(opening: TownOpening, greet: Greet | None) -> None:
    stopping = asyncio.Event()
    async with AsyncExitStack() as undo:
        contexts = await open_contexts(undo, opening, stopping)
        town, governed, fleet, pools = contexts.town, contexts.governed, contexts.fleet, contexts.pools
        overview = contexts.overview
        controllers = town.controllers if overview is None else (*town.controllers, overview.controller)
        loops = await undo.enter_async_context(running(controllers))

        def ready() -> None:
            # Told only now: from here on a signal is a wish to stop in order, and requests are answered.
            door = None if opening.law is None else opening.law.doors.operators.path
            images = None if opening.fleet is None else Path(opening.fleet.host.image_dir)
            told = announce_server(opening.settings.state_folder, opening.url, socket=door, images=images)
            undo.callback(withdraw_server, opening.settings.state_folder, told)
            log.info(
                "server.ready", address=opening.url, town=opening.settings.name, socket=str(door) if door else None
            )
            loops.append(asyncio.create_task(town.start_again(), name="start again"))
            if fleet is not None:
                fleet.begin()
            if pools is not None:
                pools.begin()
            if greet is not None and opening.dashboard is not None:
                greet(opening.url, partial(opening.dashboard.address, opening.url))

        async def end_agents() -> None:
            ending = [_end_workers(town)] if governed is None else [_end_workers(town), governed.end_agents()]
            await asyncio.gather(*ending)

        await serve_http(
            application(opening, contexts, stopping),
            opening.sockets,
            stopping=stopping,
            before_stopping=end_agents,
            tls=opening.tls,
            drain_s=opening.settings.townhall.drain_timeout_secs,
            on_ready=ready,
            websockets=fleet is not None,
        )
    log.info("server.stopped", town=opening.settings.name)


async def _end_workers(town: Town) -> None:
    """End local workers while the server still answers them: each gives its task back."""
    try:
        async with asyncio.timeout(END_WORKERS_S):
            await town.end_workers()
    except (BoroughError, TimeoutError) as error:
        log.warning("workers.not_ended", error=str(error))
