"""A town that governs too: the gateway on the town's port and in its folder, and the town's acts in the ledger."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from starlette.types import ASGIApp

from borough.adapters.data_folder import prepare_data_folder
from borough.bootstrap.gateway import Doors, Gateway, in_front, open_doors, open_gateway
from borough.bootstrap.running import running
from borough.bootstrap.town import Town
from borough.config.governance import GovernanceSettings, governance_of_town
from borough.controllers.outbox import Outbox
from borough.controllers.outgoing import town_origin
from borough.governance.ledger import Via
from borough.governance.services.intake import IntakeService
from borough.http.auth import OperatorVerifier
from borough.http.governance.about import ABOUT
from borough.http.governance.routes import OPERATIONS, is_gateways
from borough.http.middleware import EdgeSettings
from borough.http.operations import Operation
from borough.http.pages import page_operations
from borough.http.surfaces import Surface

UNDER = "/governance"
"""Where the gateway's document is served beside the town's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """What a town needs to govern, checked and taken before anything is started."""

    settings: GovernanceSettings
    doors: Doors

    def close(self) -> None:
        """Give it back."""
        self.doors.close()


def open_law(environ: Mapping[str, str], state_folder: Path, *, host: str, port: int) -> Law:
    """Read governance's settings for a town, make its folder, take its sockets.

    Raises:
        Invalid: a setting is wrong, or a socket's place.
        Conflict: somebody else has the folder or a socket.
        Unavailable: the folder cannot be made, or a socket not opened.
    """
    settings = governance_of_town(environ, state_folder, host=host, port=port)
    prepare_data_folder(settings.data_folder)
    return Law(settings=settings, doors=open_doors(settings))


@dataclass(frozen=True, slots=True, kw_only=True)
class GovernedTown:
    """What governance adds to a town's server."""

    gateway: Gateway
    outbox: Outbox

    other_pages: Mapping[str, str] = field(default_factory=lambda: {"governance": f"{UNDER}/docs"})
    """Pages to be named on the town's."""

    @property
    def surface(self) -> Surface:
        """The gateway's own."""
        return self.gateway.surface

    def operations(self, towns: Sequence[Operation]) -> tuple[Operation, ...]:
        """Return the town's operations but for those that the gateway answers for both, as it does ``/health``."""
        taken = {(row.method, row.path) for row in self.surface.operations}
        return tuple(row for row in towns if (row.method, row.path) not in taken)

    def fleet_intake(self) -> IntakeService:
        """Return what takes the fleet's acts into the ledger."""
        return _intake(self.gateway, Via.FLEET)

    def check_ledger(self) -> None:
        """Let something new begin in the town; raises ``Unavailable`` (``ledger_behind``) where it may not."""
        self.outbox.check()

    def in_front(self, table: ASGIApp, edge: EdgeSettings) -> ASGIApp:
        """Return the application of the port."""
        origins = self.gateway.settings.cors_origins
        return in_front(table, edge, origins=origins, mcp=self.gateway.mcp, covers=is_gateways)

    async def end_agents(self) -> None:
        """End the governed agents while they are still answered."""
        await self.gateway.end_agents()


@asynccontextmanager
async def govern(
    law: Law, town: Town, *, operator: OperatorVerifier, url: str, stopping: asyncio.Event
) -> AsyncIterator[GovernedTown]:
    """Open the gateway and begin to move the town's events into the ledger; raises as ``open_gateway``."""
    pages = page_operations(OPERATIONS, ABOUT, under=UNDER, others={"the town": "/docs"})
    async with AsyncExitStack() as undo:
        gateway = await undo.enter_async_context(
            open_gateway(law.settings, law.doors, operator=operator, url=url, stopping=stopping, pages=pages)
        )
        await town.events.keep_until_read(keep=True)
        outbox = Outbox(town.events, _intake(gateway, Via.TOWN), origin=town_origin(town.services.facts.name))
        await undo.enter_async_context(running([outbox.controller()]))
        # What the town did until its end is recorded too.
        undo.push_async_callback(outbox.act)
        yield GovernedTown(gateway=gateway, outbox=outbox)


def _intake(gateway: Gateway, via: Via) -> IntakeService:
    return IntakeService(gateway.governance.stores.intake, gateway.governance.scrubber, via=via)
