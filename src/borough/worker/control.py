"""What the threads of a worker tell each other: the directive, the task in hand, and that it is over."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from borough.town.agents import Directive


@dataclass(frozen=True, slots=True, kw_only=True)
class Hand:
    """The attempt that this worker holds."""

    task_id: str
    epoch: int


class End(StrEnum):
    """Why a worker ends before its work does."""

    TERMINATED = "terminated"
    """By a signal: give the task back, say goodbye."""
    FENCED = "fenced"
    """The server stopped this incarnation: nothing of ours counts any more."""
    REFUSED = "refused"
    """Our token is not accepted."""
    AWAY = "away"
    """The server did not answer for too long."""


class Control:
    """Shared by the loop (main thread), the heartbeat thread and the signal handlers."""

    def __init__(self) -> None:
        # Re-entrant, since a signal handler runs in the main thread, perhaps while that holds the lock.
        self._changed = threading.Condition(threading.RLock())
        self._directive = Directive.RUN
        self._hand: Hand | None = None
        self._dropped = False
        self._end: End | None = None
        self._end_detail = ""
        self._listeners: list[Callable[[], None]] = []
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable after each change, for one who waits on other files as well (the main thread)."""

    @property
    def end(self) -> End | None:
        """Why this worker is to end, or ``None``."""
        return self._end

    @property
    def end_detail(self) -> str:
        """The same in words."""
        return self._end_detail

    @property
    def directive(self) -> Directive:
        """What the server said last."""
        return self._directive

    @property
    def dropped(self) -> bool:
        """Whether the task in hand is no longer ours."""
        return self._dropped

    @property
    def hand(self) -> Hand | None:
        """The attempt in hand."""
        return self._hand

    def on_urgent(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` when something is not to wait for the end of a long poll: draining, or the end."""
        self._listeners.append(listener)

    def take(self, hand: Hand) -> None:
        """Remember what we hold from now on."""
        with self._changed:
            self._hand, self._dropped = hand, False

    def let_go(self) -> None:
        """We hold nothing any more."""
        with self._changed:
            self._hand, self._dropped = None, False

    def told(self, directive: Directive, *, about: Hand | None) -> None:
        """Take in what the server answered to a heartbeat that named ``about``."""
        if directive is Directive.STOP:
            self.finish(End.FENCED, "the server stopped this incarnation")
            return
        with self._changed:
            urgent = directive is Directive.DRAIN and self._directive is not Directive.DRAIN
            if directive is not Directive.DROP:
                self._directive = directive
            elif about is not None and about == self._hand:
                self._dropped = True  # of an attempt that is over already, it is no news
        self._announce(urgent=urgent)

    def finish(self, end: End, detail: str) -> None:
        """Bring this worker to its end; the first reason stands."""
        with self._changed:
            if self._end is None:
                self._end, self._end_detail = end, detail
        self._announce(urgent=True)

    def wait_while_paused(self) -> None:
        """Return once the directive is not ``pause``, or the end has come."""
        with self._changed:
            self._changed.wait_for(lambda: self._end is not None or self._directive is not Directive.PAUSE)

    def wait(self, seconds: float) -> None:
        """Wait, but not beyond the end or a change of the directive."""
        with self._changed:
            before = self._directive
            self._changed.wait_for(lambda: self._end is not None or self._directive is not before, seconds)

    def _announce(self, *, urgent: bool) -> None:
        with self._changed:
            self._changed.notify_all()
        os.eventfd_write(self.wake, 1)
        if urgent:
            for listener in self._listeners:
                listener()
