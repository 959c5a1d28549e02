"""The daemon: settings, data folder, port, sockets, governance; then the way back, in the opposite order."""

import asyncio
import os
import stat
import sys
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from socket import socket

import structlog
import uvloop
from starlette.types import ASGIApp

from borough.adapters.credentials.operator import OperatorToken, announce_server, operator_token, withdraw_server
from borough.adapters.holding import DATA_FOLDER, hold
from borough.bootstrap.governance import Governance, open_governance
from borough.config.governance import GovernanceSettings, load_governance
from borough.controllers.loops import run
from borough.core.errors import BoroughError, Conflict, Unavailable
from borough.http import binding
from borough.http.governance.about import ABOUT
from borough.http.governance.cors import Cors, everything
from borough.http.governance.dialect import gateway_error
from borough.http.governance.routes import OPERATIONS
from borough.http.guards import host_rule
from borough.http.limits import LoginThrottle
from borough.http.middleware import Edge, EdgeSettings
from borough.http.pages import page_operations
from borough.http.server import serve as serve_http
from borough.http.table import OperationTable, Policies, Surface
from borough.ipc.dispatch import Dispatcher
from borough.ipc.opening import OPEN_TO_ALL, OWNERS_ALONE, OpenSocket, open_socket
from borough.ipc.server import Listener, agents_only, operators_only
from borough.observability.logs import configure

log = structlog.get_logger(__name__)

END_AGENTS_S = 30.0
FAILED_LOGINS_PER_MINUTE = 120
"""An address's unknown keys. They cannot be guessed: this only keeps a flood from filling the ledger."""
_FOLDER_MODE = 0o700
_OTHERS = 0o077


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Everything that was checked and taken before anything was started."""

    settings: GovernanceSettings
    sockets: list[socket]
    operators: OpenSocket
    agents: OpenSocket
    operator: OperatorToken
    held: int
    """The descriptor that holds the data folder; it is closed by the end of the process."""

    @property
    def url(self) -> str:
        """Where this machine reaches the gateway."""
        return binding.server_url(self.sockets, tls=False)

    def close(self) -> None:
        """Give everything back, but for what is held to the end."""
        for opened in self.sockets:
            opened.close()
        self.operators.close()
        self.agents.close()


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
        sys.stderr.write(_refusal(error))
        return 1
    return 0


def _refusal(error: BoroughError) -> str:
    why = f": {error.reason}" if error.reason else ""
    way_out = f" ({error.resolution})" if error.resolution else ""
    return f"error: {error.message}{why}{way_out}\n"


def _open(settings: GovernanceSettings) -> Opening:
    """Check all that can be checked, then take the port and the sockets: what must not start does not even bind."""
    folder = prepare_data_folder(settings.data_folder)
    held = hold(folder, DATA_FOLDER)
    operator = operator_token(folder)
    with ExitStack() as undo:
        sockets = _bind(settings)
        for bound in sockets:
            undo.callback(bound.close)
        operators = open_socket(settings.socket)
        undo.callback(operators.close)
        # Whoever connects there has to prove to be a run of ours; where root serves, agents are other users.
        agents = open_socket(settings.agents_socket, mode=OWNERS_ALONE if os.geteuid() else OPEN_TO_ALL)
        undo.pop_all()
    return Opening(settings=settings, sockets=sockets, operators=operators, agents=agents, operator=operator, held=held)


def _bind(settings: GovernanceSettings) -> list[socket]:
    try:
        return binding.bind(settings.host, settings.port)
    except Unavailable as error:
        raise Unavailable(
            error.message,
            code=error.code,
            resolution="stop it, or choose another address: AGENTD_API_ADDR=127.0.0.1:9090",
        ) from None


def prepare_data_folder(folder: Path) -> Path:
    """Return the data folder, made where it lacks; nobody else enters.

    Raises:
        Conflict: something else is there, or somebody else's folder (``data_folder_taken``).
        Unavailable: it cannot be made (``data_folder_refused``).
    """
    try:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        found = folder.stat()
    except FileExistsError:
        raise _taken(folder, "it is not a folder") from None
    except OSError as error:
        raise Unavailable(
            f"the data folder {folder} cannot be used: {error.strerror}",
            code="data_folder_refused",
            resolution="set AGENTD_DATA_DIR to a folder of yours",
        ) from None
    if found.st_uid != os.geteuid():
        raise _taken(folder, f"it belongs to uid {found.st_uid}")
    if stat.S_IMODE(found.st_mode) & _OTHERS:
        folder.chmod(_FOLDER_MODE)
    return folder


def _taken(folder: Path, reason: str) -> Conflict:
    return Conflict(
        f"{folder} cannot be the data folder: {reason}",
        code="data_folder_taken",
        resolution="set AGENTD_DATA_DIR to a folder of yours",
    )


async def _serve(opening: Opening) -> None:
    settings, stopping = opening.settings, asyncio.Event()
    async with AsyncExitStack() as undo:
        governance = await undo.enter_async_context(open_governance(settings))
        surface = governance.surface((*OPERATIONS, *page_operations(OPERATIONS, ABOUT)), operator=opening.operator)
        await governance.started(opening.url)
        undo.push_async_callback(_told_stopped, governance)
        loops = [asyncio.create_task(run(controller), name=controller.name) for controller in governance.controllers]
        undo.push_async_callback(_cancel, loops)
        listeners = await _listen(opening, governance, surface)
        undo.push_async_callback(_stop_listeners, listeners)

        def ready() -> None:
            record = announce_server(settings.data_folder, opening.url)
            undo.callback(withdraw_server, settings.data_folder, record)
            sys.stdout.write(f"agentd listens on {opening.url} and {opening.operators.path}\n")
            sys.stdout.flush()
            log.info("daemon.ready", address=opening.url, socket=str(opening.operators.path))

        await serve_http(
            application(settings, surface, stopping),
            opening.sockets,
            stopping=stopping,
            before_stopping=lambda: _end_agents(governance),
            drain_s=settings.drain_s,
            on_ready=ready,
            dialect=gateway_error,
        )
    log.info("daemon.stopped")


async def _listen(opening: Opening, governance: Governance, surface: Surface) -> list[Listener]:
    dispatcher = Dispatcher(surface, timeout_s=opening.settings.request_timeout_s)
    doors = ((opening.operators, operators_only()), (opening.agents, agents_only(governance.runs)))
    listeners = []
    for opened, admit in doors:
        listener = Listener(dispatcher, admit, on_refused=governance.refused_connection)
        await listener.start(opened.listening)
        listeners.append(listener)
    return listeners


async def _stop_listeners(listeners: list[Listener]) -> None:
    await asyncio.gather(*(listener.stop() for listener in listeners))


async def _end_agents(governance: Governance) -> None:
    """End agents while the daemon still answers them: each may hand back what it has."""
    try:
        async with asyncio.timeout(END_AGENTS_S):
            await governance.end_agents()
    except (BoroughError, TimeoutError) as error:
        log.warning("agents.not_ended", error=str(error))


async def _told_stopped(governance: Governance) -> None:
    try:
        await governance.stopped("a signal")
    except BoroughError as error:
        log.warning("daemon.stop_not_recorded", error=error.message)


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def application(settings: GovernanceSettings, surface: Surface, stopping: asyncio.Event) -> ASGIApp:
    """Return the whole HTTP application."""
    table = OperationTable(
        [surface],
        Policies(
            timeout_s=settings.request_timeout_s,
            body_limit_bytes=settings.body_limit_bytes,
            logins=LoginThrottle(failures_per_minute=FAILED_LOGINS_PER_MINUTE),
            stopping=stopping,
        ),
    )
    edge = Edge(
        table,
        EdgeSettings(
            hosts=host_rule(settings.host, settings.allowed_hosts),
            stopping=stopping,
            trusted_proxies=[ip_network(proxy, strict=False) for proxy in settings.trusted_proxies],
            dialect=gateway_error,
            open_to_pages=everything,
        ),
    )
    return Cors(edge, origins=settings.cors_origins)
