"""What is found of a pool's machine and of the worker in it, and what follows from that."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from borough.pools.pools import Machine, Use

REPORTS_WITHIN = timedelta(seconds=60)
"""How long a worker that was started may take until it reports."""


class Place(StrEnum):
    """What the fleet has of a machine."""

    UNASKED = "unasked"
    """The fleet never heard of it."""
    MAKING = "making"
    READY = "ready"
    SILENT = "silent"
    """Its host does not answer: it may be running all the same."""
    BROKEN = "broken"
    """It could not be made, or has ended by itself."""
    GOING = "going"
    """It is being deleted."""
    GONE = "gone"


class Serving(StrEnum):
    """How the worker in it does."""

    NOBODY = "nobody"
    """No agent was registered for it."""
    SILENT = "silent"
    """It has not reported yet."""
    PRESENT = "present"
    LEFT = "left"
    """It said goodbye, or somebody ended it."""
    FAILED = "failed"
    """It ended in an error, without having done a single task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found of a machine."""

    place: Place
    serving: Serving = Serving.NOBODY
    why: str = ""
    """The fleet's or the worker's own words."""
    busy: bool = False
    idle_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Become:
    """The machine is used otherwise from now on."""

    use: Use
    reason: str
    proven: bool = False
    """A worker reported from it: the pool's machines are as they should be, and trouble is over."""
    failed: bool = False
    """It counts as a boot that came to nothing."""


class Then(StrEnum):
    """What is to be done with a machine whose use stays as it is."""

    NOTHING = "nothing"
    ASK = "ask"
    """Ask the fleet to make it; it may have been asked before."""
    DELETE = "delete"
    FORGET = "forget"
    """Nothing is left of it."""


def settle(machine: Machine, found: Found, *, at: datetime) -> Become | Then:
    """Return what follows from what was found of a machine that nobody is doing anything with just now."""
    match machine.use:
        case Use.BOOTING:
            return _booting(found)
        case Use.ENDING:
            return _ending(found)
        case Use.TAKEN:
            return Then.FORGET if found.place in (Place.GONE, Place.UNASKED) else Then.NOTHING
        case Use.WARM:
            return _broken(found, failed=True) or Then.NOTHING
        case _:
            return _with_worker(machine, found, at=at)


def _booting(found: Found) -> Become | Then:
    if found.place is Place.UNASKED:
        return Then.ASK
    if found.place is Place.READY:
        return Become(use=Use.WARM, reason="it is ready")
    return _broken(found, failed=True) or Then.NOTHING


def _ending(found: Found) -> Then:
    if found.place in (Place.GONE, Place.UNASKED):
        return Then.FORGET
    return Then.NOTHING if found.place is Place.GOING else Then.DELETE


def _broken(found: Found, *, failed: bool) -> Become | None:
    if found.place is Place.BROKEN:
        return Become(use=Use.ENDING, reason=found.why or "it has ended by itself", failed=failed)
    if found.place in (Place.GONE, Place.GOING, Place.UNASKED):
        return Become(use=Use.ENDING, reason=found.why or "somebody deleted it", failed=False)
    return None


def _over(found: Found, *, starting: bool) -> Become | None:
    match found.serving:
        case Serving.LEFT:
            return Become(use=Use.ENDING, reason=f"its worker has left: {found.why}", proven=not starting)
        case Serving.FAILED:
            return Become(use=Use.ENDING, reason=f"its worker failed: {found.why}", failed=True)
        case _:
            return None


def _with_worker(machine: Machine, found: Found, *, at: datetime) -> Become | Then:
    """What a worker says comes first: what it did is done, whatever became of its machine since."""
    starting = machine.use is Use.STARTING
    half = starting and not machine.entered and found.serving in (Serving.NOBODY, Serving.SILENT)
    if half:  # whoever was at it is gone: a machine that is begun twice is no fresh one
        return Become(use=Use.ENDING, reason="the server ended while its worker was being started")
    over = _over(found, starting=starting) or _broken(found, failed=starting)
    if over is not None:
        return over
    if starting and found.serving is Serving.PRESENT:
        return Become(use=Use.WORKING, reason=machine.reason, proven=True)
    if found.serving is not Serving.PRESENT and at - machine.since > REPORTS_WITHIN:
        told = f"its worker did not report within {REPORTS_WITHIN.total_seconds():.0f} s"
        return Become(use=Use.ENDING, reason=told, failed=True)
    return Then.NOTHING
