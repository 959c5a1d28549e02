"""Events on their way into the ledger, exactly once each; where they do not get there, nothing new begins.

A change and its event are one step in the store of its context. From there each event goes into the ledger in one step
with the position up to which this was done, and under an id that follows from the event's: whatever is killed between,
nothing is lost and nothing is there twice.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import structlog

from borough.controllers.loops import Controller
from borough.core.clock import utc_now
from borough.core.errors import BoroughError, Unavailable
from borough.core.events import Event
from borough.governance.ledger import Outcome
from borough.governance.services.intake import Happening, IntakeService

log = structlog.get_logger(__name__)

MOVE_EVERY = timedelta(seconds=0.25)
AT_ONCE = 500
MOST_BEHIND_S = 5.0
"""How long events may wait for the ledger until nothing new may begin."""
FORGET_EVERY_S = 10.0


class Outgoing(Protocol):
    """Events of one store, in the order of what happened."""

    async def after(self, event_id: str, *, limit: int) -> tuple[Event, ...]:
        """Return events after one ('' is before the first), oldest first."""

    async def bounds(self) -> tuple[str, str] | None:
        """Return where what is kept begins and ends, or ``None`` where nothing is."""

    async def forget_read(self, up_to: str) -> object:
        """Drop the oldest events beyond what is kept, none of them after ``up_to``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Whose events these are."""

    context: str
    """The first word of what is recorded of them."""
    source: str
    """What tells this store from all others."""
    order: Callable[[str], tuple[int, ...]]
    """What ids of events sort by."""
    happening: Callable[[Event], Happening]
    """An event as an act for the ledger."""


class Outbox:
    """Moves the events of one store. ``act`` is to be called again and again; ``check`` by whoever wants to write."""

    def __init__(
        self,
        events: Outgoing,
        intake: IntakeService,
        *,
        origin: Origin,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._events = events
        self._intake = intake
        self._origin = origin
        self._monotonic = monotonic
        self._position: str | None = None
        self._failure: BoroughError | None = None
        self._caught_up_at: float | None = None
        """``None`` until what was there at the start is moved: a store that was just adopted may have a long past."""
        self._forgot_at = monotonic()

    def check(self) -> None:
        """Let something new begin; costs nothing but a look at the clock.

        Raises:
            Unavailable: the ledger cannot be written, or is more than ``MOST_BEHIND_S`` behind (``ledger_behind``).
        """
        late = self._caught_up_at is not None and self._monotonic() - self._caught_up_at > MOST_BEHIND_S
        if self._failure is None and not late:
            return
        raise Unavailable(
            "what happens here cannot be recorded now, so nothing new may begin",
            code="ledger_behind",
            reason=f"events wait for the ledger for more than {MOST_BEHIND_S:g} s"
            if self._failure is None
            else self._failure.reason or self._failure.message,
            resolution="repeat the request in a moment; if it lasts, see that the ledger's disk has room",
            details={"retry_after_s": 1},
        )

    def controller(self) -> Controller:
        """Return the loop that moves them."""
        return Controller(name=f"outbox of the {self._origin.context}", every=MOVE_EVERY, act=self.act)

    async def act(self) -> None:
        """Move all that is there. What fails is told once, and tried again by the next call."""
        try:
            await self._move()
        except BoroughError as error:
            if self._failure is None:
                log.warning(
                    "outbox.stuck",
                    context=self._origin.context,
                    error=error.message,
                    code=error.code,
                    reason=error.reason,
                )
            self._failure = error
        else:
            if self._failure is not None:
                log.info("outbox.moves_again", context=self._origin.context)
            self._failure = None
            self._caught_up_at = self._monotonic()

    async def _move(self) -> None:
        if self._position is None:
            self._position = await self._begin()
        while page := await self._events.after(self._position, limit=AT_ONCE):
            await self._intake.take(
                self._origin.source, [self._origin.happening(event) for event in page], up_to=page[-1].id
            )
            self._position = page[-1].id
            if len(page) < AT_ONCE:
                break
        if self._position and self._monotonic() - self._forgot_at >= FORGET_EVERY_S:
            self._forgot_at = self._monotonic()
            await self._events.forget_read(self._position)

    async def _begin(self) -> str:
        """Return where to go on, having told of what cannot be had any more."""
        position = await self._intake.position(self._origin.source)
        bounds = await self._events.bounds()
        if not position or bounds is None:
            return position
        oldest, newest = bounds
        context, order = self._origin.context, self._origin.order
        if order(newest) < order(position):
            # It was restored, or begun anew: whatever is known already is not taken twice.
            await self._tell(f"the {context}'s events end at {newest}, before {position}", up_to="")
            return ""
        if order(oldest) > order(position):
            await self._tell(f"the {context} no longer keeps what happened from {position} to {oldest}", up_to=position)
        return position

    async def _tell(self, message: str, *, up_to: str) -> None:
        now = utc_now()
        told = Happening(
            id=f"{now.isoformat()} {message}",
            at=now,
            action=f"{self._origin.context}.events_missing",
            outcome=Outcome.UNKNOWN,
            message=message,
            agent_id=None,
            facts={},
        )
        await self._intake.take(self._origin.source, [told], up_to=up_to)
