"""The loops of runs: each goes on, whatever ended the one who was at it; who waits for agreement is seen."""

from borough.controllers.loops import Controller
from borough.runs.services.keeping import FORGET_EVERY, KEEP_EVERY, LOOK_AT_APPROVALS, RunKeeper


def controllers(keeper: RunKeeper) -> tuple[Controller, ...]:
    """Return the loops."""
    return (
        Controller(name="keep runs", every=KEEP_EVERY, act=keeper.keep),
        Controller(name="forget runs", every=FORGET_EVERY, act=keeper.forget, first_after=FORGET_EVERY),
        Controller(name="runs that wait", every=LOOK_AT_APPROVALS, act=keeper.look_at_approvals),
    )
