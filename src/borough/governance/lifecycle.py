"""Lifecycle: the phases of an agent's run with their legal moves, and beside them how the run as such stands.

The phase is what the agent does (the reference system's five words). The status is whether it runs at all; only a
status can tell a success from a failure once the phase is ``Terminate``.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from borough.core.errors import Conflict, Forbidden, Invalid

MOST_DEPTH = 8
"""How many agents may stand above one another, unless configured otherwise."""
KILL_GRACE = timedelta(seconds=10)
"""How long an agent that is told to end may take at most."""
DEFAULT_MAX_RESTARTS = 3
_FIRST_PAUSE = timedelta(seconds=1)
_LONGEST_PAUSE = timedelta(seconds=60)


class Phase(StrEnum):
    """What the agent does."""

    INIT = "Init"
    PLAN = "Plan"
    ACT = "Act"
    OBSERVE = "Observe"
    TERMINATE = "Terminate"


class Mover(StrEnum):
    """Who moves it."""

    AGENT = "agent"
    OPERATOR = "operator"
    DAEMON = "daemon"


class Status(StrEnum):
    """How the run stands."""

    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    KILLED = "killed"


_LOOP = frozenset({Phase.PLAN, Phase.ACT, Phase.OBSERVE})
_FORCED = _LOOP | {Phase.TERMINATE}

MOVES: dict[Mover, dict[Phase, frozenset[Phase]]] = {
    Mover.AGENT: {
        Phase.INIT: frozenset(),
        Phase.PLAN: frozenset({Phase.PLAN, Phase.ACT, Phase.TERMINATE}),
        Phase.ACT: frozenset({Phase.ACT, Phase.PLAN, Phase.OBSERVE, Phase.TERMINATE}),
        Phase.OBSERVE: frozenset({Phase.OBSERVE, Phase.PLAN, Phase.ACT, Phase.TERMINATE}),
        Phase.TERMINATE: frozenset({Phase.TERMINATE}),
    },
    Mover.OPERATOR: {
        Phase.INIT: frozenset(),
        Phase.PLAN: _FORCED,
        Phase.ACT: _FORCED,
        Phase.OBSERVE: _FORCED,
        Phase.TERMINATE: frozenset({Phase.TERMINATE}),
    },
    Mover.DAEMON: {
        Phase.INIT: frozenset({Phase.PLAN, Phase.TERMINATE}),
        Phase.PLAN: frozenset({Phase.TERMINATE}),
        Phase.ACT: frozenset({Phase.TERMINATE}),
        Phase.OBSERVE: frozenset({Phase.TERMINATE}),
        Phase.TERMINATE: frozenset({Phase.TERMINATE}),
    },
}
"""Where each may move an agent. A move to where it already is changes nothing."""

STATUS_MOVES: dict[Status, frozenset[Status]] = {
    Status.RUNNING: frozenset({Status.PAUSED, Status.SUCCEEDED, Status.FAILED, Status.KILLED}),
    Status.PAUSED: frozenset({Status.RUNNING, Status.SUCCEEDED, Status.FAILED, Status.KILLED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.KILLED: frozenset(),
}
"""A run that is over stays so; a restart is another run."""


def parse_phase(word: str) -> Phase:
    """Return the phase that ``word`` names, in any case.

    Raises:
        Invalid: it names none (``unknown_phase``).
    """
    try:
        return Phase(word.capitalize())
    except ValueError:
        raise Invalid(
            f"there is no state {word[:80]!r}",
            code="unknown_phase",
            resolution=f"choose from {', '.join(phase.value for phase in Phase)}",
        ) from None


def move(phase: Phase, to: Phase, *, by: Mover) -> Phase:
    """Return ``to`` if ``by`` may move an agent there.

    Raises:
        Conflict: it is not a legal move (``illegal_transition``); nothing changed.
    """
    if to not in MOVES[by][phase]:
        legal = sorted(target.value for target in MOVES[by][phase] if target is not phase)
        raise Conflict(
            f"an agent cannot go from {phase.value} to {to.value}",
            code="illegal_transition",
            reason=f"{by.value}s may move it to {', '.join(legal) or 'no other state'} from there",
            resolution="read the agent's state and move it along the legal way",
        )
    return to


def change_status(status: Status, to: Status) -> Status:
    """Return ``to`` if a run may change so.

    Raises:
        Conflict: it may not (``illegal_status``).
    """
    if to is not status and to not in STATUS_MOVES[status]:
        raise Conflict(
            f"a run that is {status.value} cannot become {to.value}",
            code="illegal_status",
            resolution="start the agent again if it is to run" if not STATUS_MOVES[status] else "read its status first",
        )
    return to


class RestartPolicy(StrEnum):
    """When an agent whose process ended is started again."""

    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    """How long an agent may run and how often."""

    restart_policy: RestartPolicy = RestartPolicy.NEVER
    max_restarts: int = DEFAULT_MAX_RESTARTS
    timeout_s: int | None = None


NO_RESTARTS = Lifecycle()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a process ended."""

    code: int | None = None
    """``None`` when a signal ended it."""
    signal: int | None = None
    asked_for: bool = False
    """Whether somebody told the agent to end: an operator, its parent, the daemon's own stop."""
    timed_out: bool = False

    @property
    def well(self) -> bool:
        """Tell whether it ended by itself and said that all went well."""
        return self.code == 0 and not self.timed_out and not self.asked_for


@dataclass(frozen=True, slots=True, kw_only=True)
class AfterExit:
    """What an exit makes of the run, and when the next one begins, if there is one."""

    status: Status
    last_error: str | None
    restart_after: timedelta | None


def after_exit(lifecycle: Lifecycle, ended: Exit, *, restarts: int) -> AfterExit:
    """Return what follows; ``restarts`` is how often the agent was started again so far."""
    if ended.asked_for:
        return AfterExit(status=Status.KILLED, last_error=None, restart_after=None)
    wanted = lifecycle.restart_policy is RestartPolicy.ALWAYS or (
        lifecycle.restart_policy is RestartPolicy.ON_FAILURE and not ended.well
    )
    again = backoff(restarts) if wanted and restarts < lifecycle.max_restarts else None
    if ended.well:
        return AfterExit(status=Status.SUCCEEDED, last_error=None, restart_after=again)
    return AfterExit(status=Status.FAILED, last_error=_told(lifecycle, ended), restart_after=again)


def backoff(restarts: int) -> timedelta:
    """Return the pause before the next start: a second, doubled each time, a minute at most."""
    return min(_FIRST_PAUSE * (1 << min(restarts, 16)), _LONGEST_PAUSE)


def deadline(lifecycle: Lifecycle, *, started_at: datetime) -> datetime | None:
    """Return when a run is ended by force, if ever."""
    return None if lifecycle.timeout_s is None else started_at + timedelta(seconds=lifecycle.timeout_s)


def kill_grace(lifecycle: Lifecycle) -> timedelta:
    """Return how long an agent that is told to end may take before it is ended by force."""
    return KILL_GRACE if lifecycle.timeout_s is None else min(timedelta(seconds=lifecycle.timeout_s), KILL_GRACE)


def child_depth(parent_depth: int | None, *, most: int = MOST_DEPTH) -> int:
    """Return how deep a child of an agent at ``parent_depth`` stands (``None``: it has no parent, and stands at 1).

    Raises:
        Forbidden: that is too deep (``hierarchy_depth_exceeded``).
    """
    depth = 1 if parent_depth is None else parent_depth + 1
    if depth > most:
        raise Forbidden(
            "hierarchy depth exceeded",
            code="hierarchy_depth_exceeded",
            reason=f"the agent would be number {depth} from the top, and {most} are the most",
            resolution="let an agent higher up start it, or raise the limit in the settings",
        )
    return depth


def _told(lifecycle: Lifecycle, ended: Exit) -> str:
    if ended.timed_out:
        return f"it ran longer than {lifecycle.timeout_s} s"
    return f"signal {ended.signal}" if ended.code is None else f"exit code {ended.code}"
