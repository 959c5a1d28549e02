"""The heartbeat: a thread that reports to the server whatever the rest of the worker does.

The server holds each answer until there is news or the next beat is due, so news arrive at once and an idle worker
costs one request an interval.
"""

import logging
import threading
import time

from borough.http.town.worker_wire import HeartbeatRequest, HeartbeatView
from borough.town.agents import Directive
from borough.worker.connection import Away, BrokenOff, Connection, Refused
from borough.worker.control import Control, End, Hand

log = logging.getLogger(__name__)

_UNAUTHORISED = frozenset({401, 403})
_FIRST_SPACING_S = 0.05


class Heartbeat:
    """Beats every ``interval_s`` until the worker ends or ``stop`` is called."""

    def __init__(self, connection: Connection, control: Control, *, agent_id: str, interval_s: float) -> None:
        self._connection = connection
        self._control = control
        self._agent_id = agent_id
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def beat_now(self) -> None:
        """Report at once: we hold something new."""
        self._connection.break_off()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopped.set()
        self._connection.break_off()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        last: tuple[Hand | None, Directive] | None = None
        spacing_s = _FIRST_SPACING_S
        while not self._stopped.is_set() and self._control.end is None:
            hand = self._control.hand
            began = time.monotonic()
            directive = self._beat(hand)
            if directive is None:
                continue
            self._control.told(directive, about=hand)
            if last != (hand, directive) or time.monotonic() - began >= self._interval_s / 2:
                spacing_s = _FIRST_SPACING_S
            else:
                # An early answer without news: however often that happens, it must not become a busy loop.
                self._stopped.wait(spacing_s)
                spacing_s = min(spacing_s * 2, self._interval_s)
            last = (hand, directive)

    def _beat(self, hand: Hand | None) -> Directive | None:
        request = HeartbeatRequest(
            task_id=hand.task_id if hand else None,
            epoch=hand.epoch if hand else None,
            known=self._control.directive.value,
        )
        path = f"/v1/agents/{self._agent_id}/heartbeat?wait={self._interval_s:g}"
        try:
            answer = self._connection.post(path, request, wait_s=self._interval_s)
        except BrokenOff:
            return None
        except Refused as refusal:
            self._control.finish(*end_of(refusal))
            return None
        except Away as away:
            self._control.finish(End.AWAY, str(away))
            return None
        try:
            return Directive(answer.read(HeartbeatView).directive)
        except ValueError as strange:  # also what msgspec raises; going on without understanding would be worse
            self._control.finish(End.REFUSED, f"the server's answer to a heartbeat is not understood: {strange}")
            return None


def end_of(refusal: Refused) -> tuple[End, str]:
    """Return what a refusal of something that only a current worker may do means for the worker."""
    if refusal.status in _UNAUTHORISED:
        return End.REFUSED, f"the server does not accept this worker's token ({refusal})"
    return End.FENCED, f"the server does not know this incarnation any more ({refusal})"
