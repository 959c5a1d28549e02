"""The daemon: settings, data folder, port, sockets, governance; then the way back, in the opposite order."""

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING

import structlog
import uvloop
from starlette.types import ASGIApp

from borough.adapters.credentials.operator import OperatorToken, announce_server, operator_token, withdraw_server
from borough.adapters.data_folder import prepare_data_folder
from borough.adapters.holding import DATA_FOLDER, hold
from borough.bootstrap.gateway import Doors, Gateway, in_front, open_doors, open_gateway, policies
from borough.bootstrap.running import refusal
from borough.config.governance import GovernanceSettings, load_governance
from borough.core.errors import BoroughError, Unavailable
from borough.http import binding
from borough.http.errors import Dialect
from borough.http.governance.about import ABOUT
from borough.http.governance.cors import everything
from borough.http.governance.dialect import gateway_error
from borough.http.governance.routes import OPERATIONS, is_gateways
from borough.http.guards import host_rule
from borough.http.middleware import EdgeSettings
from borough.http.pages import page_operations
from borough.http.server import serve as serve_http
from borough.http.surfaces import Surface
from borough.http.table import OperationTable
from borough.observability.logs import configure

if TYPE_CHECKING:
    from borough.bootstrap.runs_alone import AloneRuns

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Everything that was checked and taken before anything was started."""

    settings: GovernanceSettings
    sockets: list[socket]
    doors: Doors
    operator: OperatorToken
    held: int
    """The descriptor that holds the data folder; it is closed by the end of the process."""
    runs: "AloneRuns | None" = None
    """What is needed to serve runs too."""

    @property
    def url(self) -> str:
        """Where this machine reaches the gateway."""
        return binding.server_url(self.sockets, tls=False)

    def close(self) -> None:
        """Give everything back, but for what is held to the end."""
        for opened in self.sockets:
            opened.close()
        self.doors.close()


def serve(socket_path: Path | None, settings_file: Path | None) -> int:
    """Serve governance until a signal ends it; return the exit code.

    What is wrong with settings, folders, port or sockets is said in one line on stderr before anything is started.
    """
    try:
        settings = load_governance(os.environ, socket=socket_path, file=settings_file)
        configure(verbose=settings.verbose)
        opening = _open(settings)
        try:
            uvloop.run(_serve(opening))
        finally:
            opening.close()
    except BoroughError as error:
        sys.stderr.write(refusal(error))
        return 1
    return 0


def _open(settings: GovernanceSettings) -> Opening:
    """Check all that can be checked, then take the port and the sockets: what must not start does not even bind."""
    runs = None
    if settings.runs is not None:
        from borough.bootstrap.runs_alone import check_places  # noqa: PLC0415 - a daemon alone starts without it

        runs = check_places(settings.runs, host=settings.host)
    folder = prepare_data_folder(settings.data_folder)
    held = hold(folder, DATA_FOLDER)
    operator = operator_token(folder)
    with ExitStack() as undo:
        sockets = _bind(settings)
        for bound in sockets:
            undo.callback(bound.close)
        doors = open_doors(settings)
        undo.pop_all()
    return Opening(settings=settings, sockets=sockets, doors=doors, operator=operator, held=held, runs=runs)


def _bind(settings: GovernanceSettings) -> list[socket]:
    try:
        return binding.bind(settings.host, settings.port)
    except Unavailable as error:
        raise Unavailable(
            error.message,
            code=error.code,
            resolution="stop it, or choose another address: AGENTD_API_ADDR=127.0.0.1:9090",
        ) from None


async def _serve(opening: Opening) -> None:
    settings, stopping = opening.settings, asyncio.Event()
    others = {} if opening.runs is None else {"runs": "/runs/docs"}
    pages = page_operations(OPERATIONS, ABOUT, others=others)
    async with AsyncExitStack() as undo:
        gateway = await undo.enter_async_context(
            open_gateway(
                settings, opening.doors, operator=opening.operator, url=opening.url, stopping=stopping, pages=pages
            )
        )
        surfaces = (gateway.surface, *await _runs(undo, opening, gateway, stopping))

        def ready() -> None:
            record = announce_server(settings.data_folder, opening.url, socket=opening.doors.operators.path)
            undo.callback(withdraw_server, settings.data_folder, record)
            sys.stdout.write(f"agentd listens on {opening.url} and {opening.doors.operators.path}\n")
            sys.stdout.flush()
            log.info("daemon.ready", address=opening.url, socket=str(opening.doors.operators.path))

        await serve_http(
            application(settings, surfaces, stopping, mcp=gateway.mcp),
            opening.sockets,
            stopping=stopping,
            before_stopping=gateway.end_agents,
            drain_s=settings.drain_s,
            on_ready=ready,
            dialect=gateway_error,
        )
    log.info("daemon.stopped")


async def _runs(
    undo: AsyncExitStack, opening: Opening, gateway: Gateway, stopping: asyncio.Event
) -> tuple[Surface, ...]:
    """Open the runs of a daemon that has a town and a fleet, to be closed by ``undo``."""
    if opening.runs is None:
        return ()
    from borough.bootstrap.runs_alone import runs_alone  # noqa: PLC0415 - a daemon alone starts without it

    folder, held = opening.settings.data_folder, policies(opening.settings, stopping)
    surface = runs_alone(opening.runs, gateway, folder, operator=opening.operator, held=held)
    return (await undo.enter_async_context(surface),)


def application(
    settings: GovernanceSettings, surfaces: Sequence[Surface], stopping: asyncio.Event, *, mcp: ASGIApp | None = None
) -> ASGIApp:
    """Return the whole HTTP application; the gateway's surface is the first."""
    table = OperationTable(list(surfaces), policies(settings, stopping))
    alone = len(surfaces) == 1
    edge = EdgeSettings(
        hosts=host_rule(settings.host, settings.allowed_hosts),
        stopping=stopping,
        trusted_proxies=[ip_network(proxy, strict=False) for proxy in settings.trusted_proxies],
        dialect_at=_gateways if alone else table.dialect_at,
    )
    covers = everything if alone else is_gateways
    return in_front(table, edge, origins=settings.cors_origins, mcp=mcp, covers=covers)


def _gateways(_path: str) -> Dialect:
    return gateway_error
