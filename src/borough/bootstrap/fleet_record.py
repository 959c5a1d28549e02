"""What of a fleet beside a town gets into the ledger: its events, and what was refused before there was an event."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from borough.bootstrap.access import EventNotes, LoginRecorder
from borough.bootstrap.running import running
from borough.controllers.outbox import Outbox
from borough.controllers.outgoing import fleet_origin
from borough.governance.services.intake import IntakeService
from borough.http.surfaces import Refusal

if TYPE_CHECKING:
    from borough.bootstrap.fleet import FleetController

TELLS_ITSELF: Final = frozenset({"unschedulable"})
"""Refusals of which the fleet's services write an event, with more than a request's line."""


class FleetRecord:
    """The way of a fleet's acts into the ledger."""

    def __init__(self, intake: IntakeService, fleet: "Callable[[], Awaitable[FleetController]]") -> None:
        """``fleet`` waits until there is one."""
        self._intake = intake
        self._fleet = fleet
        self._notes = EventNotes(self)
        self._outbox: Outbox | None = None
        self.refused_login = LoginRecorder(self._notes, event_type="login.refused")

    async def begin(self, fleet: "FleetController", undo: AsyncExitStack) -> None:
        """Move events from now on, and what there still is at the end."""
        outbox = Outbox(fleet.outgoing, self._intake, origin=fleet_origin(fleet.store_id))
        undo.push_async_callback(outbox.act)
        await undo.enter_async_context(running([outbox.controller()]))
        self._outbox = outbox

    async def catch_up(self) -> None:
        """Move what there is now, for whoever is about to read the ledger."""
        if self._outbox is not None:
            await self._outbox.act()

    def check(self) -> None:
        """Let something new begin in the fleet; raises ``Unavailable`` (``ledger_behind``) where it may not."""
        if self._outbox is not None:
            self._outbox.check()

    def refused(self, refusal: Refusal) -> None:
        """Take note of a change that was refused."""
        error = refusal.error
        if error.code in TELLS_ITSELF:
            return
        asked = f"{refusal.method} {refusal.path}"
        why = f": {error.reason}" if error.reason else ""
        self._notes.note(
            "request.refused",
            f"{asked} was refused: {error.message}{why}",
            {"by": refusal.principal, "request": asked[:200], "code": error.code},
        )

    async def append(self, event_type: str, message: str, subjects: Mapping[str, str]) -> None:
        """Write an event of the fleet, as soon as there is one."""
        await (await self._fleet()).services.fleet.append_event(event_type, message, subjects)
