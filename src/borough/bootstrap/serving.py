"""What the fleet's programs share: the way from settings to an open port, and back."""

import asyncio
import os
import ssl
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from socket import socket

import structlog
from starlette.types import ASGIApp

from borough.adapters.credentials.operator import OperatorToken, announce_server, operator_token, withdraw_server
from borough.adapters.service_manager import tell_ready
from borough.adapters.sql.private_files import private_folder
from borough.auth.principals import WorkerGrant
from borough.config.fleet import Listening
from borough.controllers.loops import Controller, run
from borough.core.errors import BoroughError, Unavailable
from borough.http import binding
from borough.http.errors import Dialect
from borough.http.guards import HostRule
from borough.http.idempotency import Idempotency
from borough.http.limits import LoginThrottle
from borough.http.middleware import Edge, EdgeSettings
from borough.http.server import serve as serve_http
from borough.http.sockets import WithSockets
from borough.http.surfaces import Policies, Surface
from borough.http.table import OperationTable

log = structlog.get_logger(__name__)

FAILED_LOGINS_PER_MINUTE = 120
DRAIN_S = 10
BODY_LIMIT_BYTES = 2_097_152
"""As the reference has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What was taken before anything was started."""

    listening: Listening
    data_dir: Path
    sockets: list[socket]
    operator: OperatorToken

    @property
    def url(self) -> str:
        """Where this machine reaches the server."""
        return binding.server_url(self.sockets, tls=self.listening.tls)


def take(listening: Listening, data_dir: Path, *, how: str) -> Opening:
    """Take folder and port; ``how`` is the option that names another port.

    Raises:
        Conflict: others may write into the folder (``store_not_private``).
        Unavailable: the port is taken (``port_in_use``), or the folder cannot be made (``data_folder_refused``).
    """
    try:
        folder = private_folder(data_dir.absolute())
    except OSError as error:
        raise Unavailable(
            f"the data folder {data_dir} cannot be used: {error.strerror}",
            code="data_folder_refused",
            resolution="choose a folder of yours: --data-dir DIR",
        ) from None
    try:
        sockets = binding.bind(listening.host, listening.port)
    except Unavailable as error:
        raise Unavailable(error.message, code=error.code, resolution=f"stop it, or choose another: {how}") from None
    return Opening(listening=listening, data_dir=folder, sockets=sockets, operator=operator_token(folder))


async def nobody_is_bound(_grant: WorkerGrant) -> bool:
    """Tell that no worker's token means anything here."""
    return False


def application(
    surface: Surface,
    listening: Listening,
    stopping: asyncio.Event,
    *,
    idempotency: Idempotency | None,
    dialect: Dialect,
) -> ASGIApp:
    """Return the whole HTTP application of one surface."""
    policies = Policies(
        body_limit_bytes=BODY_LIMIT_BYTES,
        logins=LoginThrottle(failures_per_minute=FAILED_LOGINS_PER_MINUTE),
        idempotency=idempotency,
        stopping=stopping,
    )
    # Behind a key any name is good; without one a web page must not get here by a name that points to this machine.
    keyless = listening.api_key is None and not listening.join_only
    hosts = HostRule(loopback=keyless and listening.is_loopback)
    settings = EdgeSettings(hosts=hosts, stopping=stopping, dialect_at=lambda _path: dialect)
    return WithSockets(Edge(OperationTable([surface], policies), settings))


async def serve(
    opening: Opening,
    app: ASGIApp,
    stopping: asyncio.Event,
    *,
    name: str,
    loops: Sequence[Controller],
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve until a signal comes; the controllers run as long. ``tls`` is what ``listening.tls`` asks for."""
    async with AsyncExitStack() as undo:
        tasks = [asyncio.create_task(run(controller), name=controller.name) for controller in loops]
        undo.push_async_callback(_cancel, tasks)

        def ready() -> None:
            record = announce_server(opening.data_dir, opening.url)
            undo.callback(withdraw_server, opening.data_dir, record)
            sys.stdout.write(f"{name} listens on {opening.url}\n")
            sys.stdout.flush()
            tell_ready(os.environ)
            log.info("server.ready", program=name, address=opening.url)

        await serve_http(
            app, opening.sockets, stopping=stopping, tls=tls, drain_s=DRAIN_S, on_ready=ready, websockets=True
        )
    log.info("server.stopped", program=name)


def told(error: BoroughError) -> str:
    """Return an error as a program tells it that cannot start."""
    why = f": {error.reason}" if error.reason else ""
    way_out = f" ({error.resolution})" if error.resolution else ""
    return f"error: {error.message}{why}{way_out}\n"


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
