"""The town's events on their way into the ledger, exactly once each; where they do not get there, nothing new begins.

A change of the town and its event are one step in the town's store. From there each event goes into the ledger in one
step with the position up to which this was done, and under an id that follows from the event's: whatever is killed
between, nothing is lost and nothing is there twice.
"""

import time
from collections.abc import Callable, Mapping
from datetime import timedelta

import structlog

from borough.controllers.loops import Controller
from borough.core.clock import utc_now
from borough.core.errors import BoroughError, Unavailable
from borough.core.events import Event
from borough.governance.ledger import Outcome
from borough.governance.services.intake import Happening, IntakeService
from borough.town.ports import Events
from borough.town.services.events import event_order

log = structlog.get_logger(__name__)

MOVE_EVERY = timedelta(seconds=0.25)
AT_ONCE = 500
MOST_BEHIND_S = 5.0
"""How long events may wait for the ledger until nothing new may begin."""
FORGET_EVERY_S = 10.0
OUTCOMES: Mapping[str, Outcome] = {
    "login_refused": Outcome.DENIED,
    "task_failed": Outcome.FAILURE,
    "task_retry_scheduled": Outcome.FAILURE,
    "agent_failed": Outcome.FAILURE,
    "unreadable": Outcome.UNKNOWN,
}


class Outbox:
    """Moves the events of one town. ``act`` is to be called again and again; ``check`` by whoever wants to write."""

    def __init__(
        self, events: Events, intake: IntakeService, *, town: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._events = events
        self._intake = intake
        self._source = f"town:{town}"
        self._monotonic = monotonic
        self._position: str | None = None
        self._failure: BoroughError | None = None
        self._caught_up_at: float | None = None
        """``None`` until what was there at the start is moved: a town that was just adopted may have a long past."""
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
        return Controller(name="outbox", every=MOVE_EVERY, act=self.act)

    async def act(self) -> None:
        """Move all that is there. What fails is told once, and tried again by the next call."""
        try:
            await self._move()
        except BoroughError as error:
            if self._failure is None:
                log.warning("outbox.stuck", error=error.message, code=error.code, reason=error.reason)
            self._failure = error
        else:
            if self._failure is not None:
                log.info("outbox.moves_again")
            self._failure = None
            self._caught_up_at = self._monotonic()

    async def _move(self) -> None:
        if self._position is None:
            self._position = await self._begin()
        while page := await self._events.after(self._position, limit=AT_ONCE):
            await self._intake.take(self._source, [happening(event) for event in page], up_to=page[-1].id)
            self._position = page[-1].id
            if len(page) < AT_ONCE:
                break
        if self._position and self._monotonic() - self._forgot_at >= FORGET_EVERY_S:
            self._forgot_at = self._monotonic()
            await self._events.forget_read(self._position)

    async def _begin(self) -> str:
        """Return where to go on, having told of what cannot be had any more."""
        position = await self._intake.position(self._source)
        bounds = await self._events.bounds()
        if not position or bounds is None:
            return position
        oldest, newest = bounds
        if event_order(newest) < event_order(position):
            # A town that was restored, or begun anew: whatever is known already is not taken twice.
            await self._tell(f"the town's events end at {newest}, before {position}", up_to="")
            return ""
        if event_order(oldest) > event_order(position):
            await self._tell(f"the town no longer keeps what happened from {position} to {oldest}", up_to=position)
        return position

    async def _tell(self, message: str, *, up_to: str) -> None:
        now = utc_now()
        told = Happening(
            id=f"{now.isoformat()} {message}",
            at=now,
            action="town.events_missing",
            outcome=Outcome.UNKNOWN,
            message=message,
            agent_id=None,
            facts={},
        )
        await self._intake.take(self._source, [told], up_to=up_to)


def happening(event: Event) -> Happening:
    """Return an event of the town as an act for the ledger."""
    return Happening(
        id=event.id,
        at=event.at,
        action=f"town.{event.type}",
        outcome=OUTCOMES.get(event.type, Outcome.SUCCESS),
        message=event.message,
        agent_id=event.subjects.get("agent_id"),
        facts={**event.subjects, "event_id": event.id},
    )
