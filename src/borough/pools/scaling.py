"""How large a pool is to be, and the steps that bring it there, each with its reason.

It grows at once by what waits and what is in hand. It shrinks only by workers that have had nothing to do for the
pool's quiet time, and never by one that has: so it neither flaps nor takes work out of anybody's hand.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from borough.pools.pools import FRESH, Machine, Pool, Trouble, Use

MOST_BOOTING = 8
"""How many machines of a pool are booted at a time."""
FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(minutes=5)
ROOM_PAUSE = timedelta(seconds=5)
"""How long a pool waits until it asks again for room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A machine as the rule sees it."""

    machine: Machine
    busy: bool = False
    """Its worker has a lease, or work of its own waits for it."""
    idle_since: datetime | None = None
    """Since when its worker has nothing to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A pool at one moment."""

    at: datetime
    pending: int
    """Waiting tasks that count for this pool."""
    members: Sequence[Member]
    spare_agents: int
    """How many agents more the town takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """Ask the fleet for this many machines."""

    count: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Start a worker in a fresh machine."""

    machine: Machine
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Let a worker finish what it has and leave; ``even_busy``: whatever it has, it gets no more."""

    machine: Machine
    reason: str
    even_busy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Delete a machine in which no worker is."""

    machine: Machine
    reason: str


Action = Boot | Start | Drain | End


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is to be done, and what a person would ask."""

    workers: int
    desired: int
    actions: tuple[Action, ...]
    held: str | None = None
    """Why it is not as large as is desired and nothing is done about it now."""


def decide(pool: Pool, situation: Situation) -> Decision:
    """Return how many workers a pool is to have and the steps towards that. Without a change, there are none."""
    return _Deciding(pool, situation).decision()


class _Deciding:
    """One decision: the machines by their use, and the steps."""

    def __init__(self, pool: Pool, situation: Situation) -> None:
        self._pool, self._wanted = pool, pool.settings
        self._now = situation
        self._fresh = [each for each in situation.members if not self._is_stale(each)]
        self._serving = [each for each in self._fresh if each.machine.use in (Use.STARTING, Use.WORKING)]
        self._warm = sorted(self._of(Use.WARM), key=lambda each: each.machine.since)
        self._booting = len(self._of(Use.BOOTING))
        self._present = sum(each.machine.use in (Use.STARTING, Use.WORKING, Use.DRAINING) for each in situation.members)
        """Workers that may be working, those included that leave or are to be replaced."""
        self._busy = sum(each.busy for each in self._serving)
        self._work = situation.pending + self._busy
        self._held: str | None = None

    def decision(self) -> Decision:
        desired = 0 if self._pool.leaving else self._desired()
        steps = (
            self._leave() if self._pool.leaving else (*self._replace(), *self._grow(desired), *self._shrink(desired))
        )
        workers = sum(each.machine.use in (Use.STARTING, Use.WORKING) for each in self._now.members)
        return Decision(workers=workers, desired=desired, actions=tuple(steps), held=self._held)

    def _of(self, use: Use) -> list[Member]:
        return [each for each in self._fresh if each.machine.use is use]

    def _is_stale(self, member: Member) -> bool:
        return member.machine.generation != self._pool.generation

    def _desired(self) -> int:
        return max(self._wanted.minimum, min(self._work, self._wanted.maximum))

    def _why(self, desired: int) -> str:
        told = f"{self._now.pending} waiting and {self._busy} in hand"
        if self._work > self._wanted.maximum:
            return f"{told}; at most {desired}"
        return f"{told}; at least {desired}" if desired > self._work else told

    # -- growing -------------------------------------------------------------------------------------------------------

    def _grow(self, desired: int) -> Iterator[Action]:
        missing = max(0, min(desired - len(self._serving), self._wanted.maximum - self._present))
        can = min(missing, max(0, self._now.spare_agents))
        if can < missing:
            self._held = "the town has as many agents as it may have ([town] max_agents)"
        started = self._warm[:can]
        for member in started:
            yield Start(machine=member.machine, reason=self._why(desired))
        ready = len(self._warm) - len(started) + self._booting
        lacking = (can - len(started)) + self._wanted.warm - ready
        yield from self._boot(lacking, self._why(desired) if can > len(started) else "kept ready")

    def _boot(self, lacking: int, reason: str) -> Iterator[Action]:
        trouble = self._pool.trouble
        if lacking <= 0:
            return
        if trouble is not None and trouble.until > self._now.at:
            self._held = trouble.reason
            return
        # After a failure one machine tells as much as many would.
        at_once = (1 if trouble is not None else MOST_BOOTING) - self._booting
        if at_once > 0:
            yield Boot(count=min(lacking, at_once), reason=reason)

    # -- shrinking -----------------------------------------------------------------------------------------------------

    def _shrink(self, desired: int) -> Iterator[Action]:
        quiet = timedelta(seconds=self._wanted.quiet_s)
        told = f"nothing to do for {self._wanted.quiet_s} s"
        idle = [each for each in self._serving if _idle_for(each, quiet, self._now.at)]
        idle.sort(key=lambda each: each.idle_since or self._now.at)
        for member in idle[: max(0, len(self._serving) - desired)]:
            yield Drain(machine=member.machine, reason=f"{told}; {self._why(desired)}")
        # A ready machine that nobody needs has been waiting for as long before it goes.
        missing = max(0, desired - len(self._serving))
        unneeded = len(self._warm) + self._booting - missing - self._wanted.warm
        old = [each for each in reversed(self._warm) if self._now.at - each.machine.since >= quiet]
        for member in old[: max(0, unneeded)]:
            yield End(machine=member.machine, reason="more machines are ready than are wanted")

    def _replace(self) -> Iterator[Action]:
        told = "the pool's machines are made otherwise now"
        for member in self._now.members:
            if not self._is_stale(member):
                continue
            if member.machine.use is Use.WARM:
                yield End(machine=member.machine, reason=told)
            elif member.machine.use is Use.WORKING and not member.busy:
                yield Drain(machine=member.machine, reason=told)

    def _leave(self) -> Iterator[Action]:
        told = "the pool is deleted"
        for member in self._now.members:
            if member.machine.use in FRESH:
                yield End(machine=member.machine, reason=told)
            elif member.machine.use in (Use.STARTING, Use.WORKING):
                yield Drain(machine=member.machine, reason=told, even_busy=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A boot that came to nothing."""

    reason: str
    asked_at: datetime
    no_room: bool = False
    booted: bool = False


def after_failure(before: Trouble | None, failure: Failure, *, at: datetime) -> Trouble:
    """Return the trouble after one more failure: each doubles the pause, up to the longest; no room does not.

    Machines that were asked for before the last failure was counted failed together with it.
    """
    same = before is not None and before.no_room == failure.no_room
    if before is not None and same and failure.asked_at < before.at:
        return replace(before, reason=failure.reason)
    count = before.count + 1 if before is not None and same else 1
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * (1 << min(count - 1, 30)))
    return Trouble(
        reason=failure.reason,
        count=count,
        at=at,
        until=at + (ROOM_PAUSE if failure.no_room else pause),
        no_room=failure.no_room,
        booted=failure.booted,
    )


def _idle_for(member: Member, quiet: timedelta, at: datetime) -> bool:
    return (
        member.machine.use is Use.WORKING
        and not member.busy
        and member.idle_since is not None
        and at - member.idle_since >= quiet
    )
