"""The gateway, opened: its sockets, its surface, its loops, its way out. Whichever program serves the port."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import structlog
from starlette.types import ASGIApp

from borough.bootstrap.governance import Governance, open_governance
from borough.bootstrap.mcp import McpDoor, WithMcp
from borough.bootstrap.running import running
from borough.config.governance import GovernanceSettings
from borough.core.errors import BoroughError
from borough.http.auth import OperatorVerifier
from borough.http.governance.cors import Cors, everything
from borough.http.governance.routes import OPERATIONS
from borough.http.limits import LoginThrottle
from borough.http.middleware import Edge, EdgeSettings
from borough.http.operations import Operation
from borough.http.surfaces import Policies, Surface
from borough.ipc.dispatch import Dispatcher
from borough.ipc.opening import OPEN_TO_ALL, OWNERS_ALONE, OpenSocket, open_socket
from borough.ipc.over_http import over_http
from borough.ipc.server import Listener, agents_only, operators_only

log = structlog.get_logger(__name__)

END_AGENTS_S = 30.0
SWITCH_EVERY_S = 0.0005
"""How long the event loop may keep the interpreter's lock from the ledger's writer: with Python's own 5 ms, calls wait
for each other's bookkeeping instead of the disk.
"""
FAILED_LOGINS_PER_MINUTE = 120
"""An address's unknown keys. They cannot be guessed: this only keeps a flood from filling the ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """The sockets, opened before anything is started: what must not start takes none."""

    operators: OpenSocket
    agents: OpenSocket

    def close(self) -> None:
        """Give both back."""
        self.operators.close()
        self.agents.close()


def open_doors(settings: GovernanceSettings) -> Doors:
    """Listen on both sockets; raises as ``open_socket``."""
    with ExitStack() as undo:
        operators = open_socket(settings.socket)
        undo.callback(operators.close)
        # Whoever connects there has to prove to be a run of ours; where root serves, agents are other users.
        agents = open_socket(settings.agents_socket, mode=OWNERS_ALONE if os.geteuid() else OPEN_TO_ALL)
        undo.pop_all()
    return Doors(operators=operators, agents=agents)


def policies(settings: GovernanceSettings, stopping: asyncio.Event) -> Policies:
    """Return what holds for every request to the gateway."""
    return Policies(
        timeout_s=settings.request_timeout_s,
        body_limit_bytes=settings.body_limit_bytes,
        logins=LoginThrottle(failures_per_minute=FAILED_LOGINS_PER_MINUTE),
        stopping=stopping,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The open gateway: what a port serves of it."""

    settings: GovernanceSettings
    governance: Governance
    surface: Surface
    mcp: ASGIApp

    async def end_agents(self) -> None:
        """End agents while they are still answered: each may hand back what it has."""
        try:
            async with asyncio.timeout(END_AGENTS_S):
                await self.governance.end_agents()
        except (BoroughError, TimeoutError) as error:
            log.warning("agents.not_ended", error=str(error))


@asynccontextmanager
async def open_gateway(
    settings: GovernanceSettings,
    doors: Doors,
    *,
    operator: OperatorVerifier,
    url: str,
    stopping: asyncio.Event,
    pages: Sequence[Operation] = (),
) -> AsyncIterator[Gateway]:
    """Open governance, take up its agents, run its loops and answer on its sockets, until the context is left.

    ``pages`` are served beside the gateway's own operations. Raises as ``open_governance``.
    """
    sys.setswitchinterval(SWITCH_EVERY_S)
    async with AsyncExitStack() as undo:
        governance = await undo.enter_async_context(open_governance(settings))
        held = policies(settings, stopping)
        surface = replace(governance.surface((*OPERATIONS, *pages), operator=operator), policies=held)
        await governance.started(url)
        undo.push_async_callback(_told_stopped, governance)
        await undo.enter_async_context(running(governance.controllers))
        undo.push_async_callback(_stop, await _listen(settings, doors, governance, surface))
        mcp = McpDoor(governance.services, authenticate=surface.authenticate, logins=held.logins)
        undo.push_async_callback(mcp.close)
        yield Gateway(settings=settings, governance=governance, surface=surface, mcp=mcp)


def in_front(
    app: ASGIApp,
    edge: EdgeSettings,
    *,
    origins: Sequence[str],
    mcp: ASGIApp | None = None,
    covers: Callable[[str], bool] = everything,
) -> ASGIApp:
    """Return the application of a port that serves the gateway: ``covers`` tells which of its paths are the gateway's.

    Pages of other origins may read and, with a key, write there; nowhere else on the port.
    """
    inside = app if mcp is None else WithMcp(app, mcp)
    return Cors(Edge(inside, replace(edge, open_to_pages=covers)), origins=origins, covers=covers)


async def _listen(
    settings: GovernanceSettings, doors: Doors, governance: Governance, surface: Surface
) -> list[Listener]:
    dispatcher = Dispatcher(surface, timeout_s=settings.request_timeout_s)
    governance.services.messages.answer = over_http(dispatcher)
    admitted = ((doors.operators, operators_only()), (doors.agents, agents_only(governance.runs)))
    listeners = []
    for opened, admit in admitted:
        listener = Listener(dispatcher, admit, on_refused=governance.refused_connection)
        await listener.start(opened.listening)
        listeners.append(listener)
    return listeners


async def _stop(listeners: list[Listener]) -> None:
    await asyncio.gather(*(listener.stop() for listener in listeners))


async def _told_stopped(governance: Governance) -> None:
    try:
        await governance.stopped("a signal")
    except BoroughError as error:
        log.warning("daemon.stop_not_recorded", error=error.message)
