"""Where a run stands, and which moves are legal. No other module compares states to decide what may come next."""

from collections.abc import Mapping
from enum import StrEnum

from borough.core.errors import Conflict


class RunState(StrEnum):
    """Where a run stands."""

    ADMITTED = "admitted"
    """Written down, with its place decided; nothing of it is made yet, or it waits for its source."""
    PREPARING = "preparing"
    """Its task is leased to it, its machine is being made."""
    WORKING = "working"
    WAITING = "waiting"
    """For somebody's agreement; its machine is frozen where the engine can."""
    COLLECTING = "collecting"
    """The command has ended: its answer and the files that it changed are brought out of the machine."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REFUSED = "refused"
    """No place may take it any more: nothing of it was begun."""
    CANCELLED = "cancelled"
    KILLED = "killed"


_S = RunState
TERMINAL: frozenset[RunState] = frozenset({_S.SUCCEEDED, _S.FAILED, _S.REFUSED, _S.CANCELLED, _S.KILLED})
LIVE: frozenset[RunState] = frozenset(RunState) - TERMINAL
UNDER_WAY: frozenset[RunState] = frozenset({_S.WORKING, _S.WAITING})
"""The command is inside the machine, and may still run."""
_ENDED_FROM_OUTSIDE = frozenset({_S.FAILED, _S.CANCELLED, _S.KILLED})

MOVES: Mapping[RunState, frozenset[RunState]] = {
    _S.ADMITTED: frozenset({_S.PREPARING, _S.REFUSED}) | _ENDED_FROM_OUTSIDE,
    _S.PREPARING: frozenset({_S.WORKING, _S.REFUSED}) | _ENDED_FROM_OUTSIDE,
    _S.WORKING: frozenset({_S.WAITING, _S.COLLECTING, _S.PREPARING}) | _ENDED_FROM_OUTSIDE,
    _S.WAITING: frozenset({_S.WORKING, _S.COLLECTING, _S.PREPARING}) | _ENDED_FROM_OUTSIDE,
    _S.COLLECTING: frozenset({_S.SUCCEEDED, _S.PREPARING}) | _ENDED_FROM_OUTSIDE,
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset({_S.ADMITTED}),
    _S.REFUSED: frozenset({_S.ADMITTED}),
    _S.CANCELLED: frozenset({_S.ADMITTED}),
    _S.KILLED: frozenset({_S.ADMITTED}),
}
"""Where a run may go. Back to ``preparing``: an attempt is lost, the next has a fresh machine. Back to ``admitted``:
somebody asked for it again.
"""


def move(state: RunState, to: RunState) -> RunState:
    """Return ``to`` if a run may go there; where it is it may stay.

    Raises:
        Conflict: it may not (``illegal_run_state``); nothing changed.
    """
    if to is not state and to not in MOVES[state]:
        raise Conflict(
            f"a run that is {state.value} cannot become {to.value}",
            code="illegal_run_state",
            reason="it is over" if state in TERMINAL else "that is not its next step",
            resolution="ask for it again with its retry" if state in TERMINAL else "read its state first",
        )
    return to


def next_of(state: RunState) -> str:
    """Return what comes next, in words."""
    return _NEXT[state]


_NEXT: Mapping[RunState, str] = {
    _S.ADMITTED: "its task is leased and its machine is made",
    _S.PREPARING: "its command starts as soon as its machine runs",
    _S.WORKING: "when its command ends, its answer and its changed files are collected",
    _S.WAITING: "it goes on when somebody agrees or refuses",
    _S.COLLECTING: "it ends, and its machine goes",
    _S.SUCCEEDED: "nothing: it is done",
    _S.FAILED: "it can be tried again",
    _S.REFUSED: "it can be tried again where there is a place for it",
    _S.CANCELLED: "it can be tried again",
    _S.KILLED: "it can be tried again",
}
