"""How pools grow and shrink: case by case, and as a town and a fleet would drive them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from borough.core.errors import Invalid
from borough.fleet.vms import VmId
from borough.pools.pools import (
    FRESH,
    MOVES,
    WITH_WORKER,
    Machine,
    Pool,
    PoolSettings,
    Trouble,
    Use,
    check_settings,
    may_move,
)
from borough.pools.scaling import (
    LONGEST_PAUSE,
    MOST_BOOTING,
    Boot,
    Decision,
    Drain,
    End,
    Failure,
    Member,
    Situation,
    Start,
    after_failure,
    decide,
)
from borough.pools.settling import REPORTS_WITHIN, Become, Found, Place, Serving, Then, settle
from borough.pools.sharing import Taker, share

NOON = datetime(2026, 4, 4, 12, tzinfo=UTC)
_numbers = count(1)


def pool(*, generation: int = 1, leaving: bool = False, trouble: Trouble | None = None, **settings: int) -> Pool:
    return Pool(
        role="coder",
        settings=PoolSettings(**{"quiet_s": 60, **settings}),  # type: ignore[arg-type]  # numbers only
        generation=generation,
        leaving=leaving,
        trouble=trouble,
        created_at=NOON,
        changed_at=NOON,
    )


def machine(use: Use, *, generation: int = 1, since: datetime = NOON, entered: bool = True) -> Machine:
    number = next(_numbers)
    return Machine(
        id=f"m{number}", role="coder", generation=generation, use=use, since=since, created_at=NOON,
        env_id=f"e{number}", vm_id=VmId(f"{number:08x}-000"), entered=entered,
    )  # fmt: skip


def idle(*, for_s: float = 0, generation: int = 1) -> Member:
    return Member(machine=machine(Use.WORKING, generation=generation), idle_since=NOON - timedelta(seconds=for_s))


def busy(*, generation: int = 1) -> Member:
    return Member(machine=machine(Use.WORKING, generation=generation), busy=True)


def fresh(use: Use, *, for_s: float = 0, generation: int = 1) -> Member:
    return Member(machine=machine(use, generation=generation, since=NOON - timedelta(seconds=for_s)))


def decided(wanted: Pool, *members: Member, pending: int = 0, spare: int = 1000) -> Decision:
    return decide(wanted, Situation(at=NOON, pending=pending, members=members, spare_agents=spare))


def kinds(decision: Decision) -> list[str]:
    return [type(action).__name__ for action in decision.actions]


# -- cases -------------------------------------------------------------------------------------------------------------


def test_it_grows_at_once_by_what_waits_and_what_is_in_hand() -> None:
    found = decided(pool(maximum=10), busy(), pending=3)
    assert found.desired == 4
    assert next(action for action in found.actions if isinstance(action, Boot)).count == 3
    assert "3 waiting and 1 in hand" in found.actions[0].reason


def test_warm_machines_are_used_first_and_replaced() -> None:
    found = decided(pool(warm=2), fresh(Use.WARM, for_s=5), fresh(Use.WARM), pending=1)
    start, boot = found.actions
    assert isinstance(start, Start)
    assert start.machine.since == NOON - timedelta(seconds=5), "the oldest first"
    assert isinstance(boot, Boot)
    assert (boot.count, boot.reason) == (1, "kept ready")


def test_at_most_max_and_at_least_min() -> None:
    assert decided(pool(maximum=2), pending=9).desired == 2
    assert "at most 2" in decided(pool(maximum=2), pending=9).actions[0].reason
    least = decided(pool(minimum=2, maximum=4))
    assert (least.desired, "at least 2" in least.actions[0].reason) == (2, True)


def test_many_are_booted_a_few_at_a_time() -> None:
    (boot,) = decided(pool(maximum=100), pending=50).actions
    assert boot == Boot(count=MOST_BOOTING, reason="50 waiting and 0 in hand")
    assert decided(pool(maximum=100), *(fresh(Use.BOOTING) for _ in range(MOST_BOOTING)), pending=50).actions == ()


def test_only_workers_that_were_idle_for_the_quiet_time_go_the_longest_idle_first() -> None:
    old, older, young = idle(for_s=61), idle(for_s=90), idle(for_s=59)
    found = decided(pool(minimum=1), old, older, young, busy())
    assert [action.machine.id for action in found.actions if isinstance(action, Drain)] == [
        older.machine.id, old.machine.id
    ]  # fmt: skip
    assert "nothing to do for 60 s" in found.actions[0].reason
    assert decided(pool(minimum=3), old, older, young).actions == ()


def test_nobody_is_started_beyond_what_the_town_takes() -> None:
    found = decided(pool(), fresh(Use.WARM), pending=1, spare=0)
    assert found.actions == ()
    assert found.held is not None
    assert "max_agents" in found.held


def test_a_leaving_worker_still_counts_against_the_most() -> None:
    leaving = Member(machine=machine(Use.DRAINING), busy=True)
    assert decided(pool(maximum=1), leaving, pending=2).actions == ()


def test_ready_machines_too_many_go_after_the_quiet_time() -> None:
    assert decided(pool(), fresh(Use.WARM, for_s=30)).actions == ()
    (end,) = decided(pool(warm=1), fresh(Use.WARM, for_s=90), fresh(Use.WARM, for_s=61)).actions
    assert isinstance(end, End)


def test_machines_of_an_older_making_are_replaced_and_busy_ones_finish() -> None:
    changed = pool(generation=2)
    found = decided(changed, busy(), idle(), fresh(Use.WARM), pending=1)
    assert kinds(found) == ["Drain", "End", "Boot"]


def test_a_deleted_pool_drains() -> None:
    found = decided(pool(leaving=True, minimum=2), busy(), idle(), fresh(Use.WARM), fresh(Use.BOOTING), pending=5)
    assert kinds(found) == ["Drain", "Drain", "End", "End"]
    assert all(action.even_busy for action in found.actions if isinstance(action, Drain))
    assert found.desired == 0


def test_trouble_holds_boots_and_says_why_until_its_time_and_then_tries_one() -> None:
    trouble = Trouble(reason="the image is not there", count=3, at=NOON, until=NOON + timedelta(seconds=4))
    held = decided(pool(trouble=trouble), pending=3)
    assert (held.actions, held.held) == ((), "the image is not there")
    (boot,) = decided(pool(trouble=replace(trouble, until=NOON)), pending=3).actions
    assert isinstance(boot, Boot)
    assert boot.count == 1


def test_each_failure_doubles_the_pause_and_no_room_does_not() -> None:
    trouble, pauses = None, []
    for _ in range(12):
        trouble = after_failure(trouble, Failure(reason="it broke", asked_at=NOON), at=NOON)
        pauses.append((trouble.until - NOON).total_seconds())
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses[-1] == LONGEST_PAUSE.total_seconds()
    lacking = Failure(reason="no room", asked_at=NOON, no_room=True)
    full = after_failure(trouble, lacking, at=NOON)
    assert (full.count, full.no_room) == (1, True)
    assert after_failure(full, lacking, at=NOON).until == full.until


def test_machines_that_fail_together_count_once() -> None:
    first = after_failure(None, Failure(reason="one", asked_at=NOON), at=NOON + timedelta(seconds=3))
    second = after_failure(first, Failure(reason="two", asked_at=NOON), at=NOON + timedelta(seconds=4))
    assert (second.count, second.until, second.reason) == (1, first.until, "two")


@pytest.mark.parametrize(
    "wrong",
    [
        PoolSettings(minimum=3, maximum=2),
        PoolSettings(maximum=100_000),
        PoolSettings(warm=-1),
        PoolSettings(quiet_s=-1),
        PoolSettings(command=("",)),
        PoolSettings(image="no/../image"),
        PoolSettings(cpu=0),
    ],
)
def test_settings_that_contradict_themselves_are_refused(wrong: PoolSettings) -> None:
    with pytest.raises(Invalid):
        check_settings("coder", wrong)


def test_a_used_machine_never_becomes_a_fresh_one() -> None:
    for old, new in ((old, new) for old in Use for new in Use if may_move(old, new)):
        assert not (old not in FRESH and new in FRESH), f"{old} to {new}"
    assert {use for use in Use if not MOVES[use]} == {Use.ENDING, Use.TAKEN}


# -- which work counts for whom ----------------------------------------------------------------------------------------


def test_work_counts_for_one_pool_only() -> None:
    takers = [Taker(role="coder", room=2), Taker(role="tester", room=5)]
    assert share({"coder": 3, "tester": 1, "nobody-s": 7, None: 3}, takers) == {"coder": 3, "tester": 4}
    assert share({"coder": 1, None: 4}, takers) == {"coder": 2, "tester": 3}


def test_generalists_take_what_nobody_else_does() -> None:
    takers = [Taker(role="coder", room=2), Taker(role="worker", room=5)]
    assert share({"coder": 1, "writer": 2, None: 2}, takers) == {"coder": 1, "worker": 4}


@given(
    st.dictionaries(st.sampled_from(["coder", "tester", "writer", None]), st.integers(0, 9)),
    st.dictionaries(st.sampled_from(["coder", "tester", "worker"]), st.integers(0, 9), min_size=1),
)
def test_no_task_counts_twice(waiting: dict[str | None, int], rooms: dict[str, int]) -> None:
    takers = [Taker(role=role, room=room) for role, room in rooms.items()]
    counted = share(waiting, takers)
    assert sum(counted.values()) <= sum(waiting.values())
    if "worker" in rooms:
        assert sum(counted.values()) == sum(waiting.values())


# -- what is found -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "found", "then"),
    [
        (Use.BOOTING, Found(place=Place.UNASKED), Then.ASK),
        (Use.BOOTING, Found(place=Place.MAKING), Then.NOTHING),
        (Use.WARM, Found(place=Place.READY), Then.NOTHING),
        (Use.WARM, Found(place=Place.SILENT), Then.NOTHING),
        (Use.WORKING, Found(place=Place.SILENT, serving=Serving.PRESENT), Then.NOTHING),
        (Use.TAKEN, Found(place=Place.BROKEN), Then.NOTHING),
        (Use.TAKEN, Found(place=Place.GONE), Then.FORGET),
        (Use.ENDING, Found(place=Place.READY), Then.DELETE),
        (Use.ENDING, Found(place=Place.BROKEN), Then.DELETE),
        (Use.ENDING, Found(place=Place.GOING), Then.NOTHING),
        (Use.ENDING, Found(place=Place.GONE), Then.FORGET),
        (Use.ENDING, Found(place=Place.UNASKED), Then.FORGET),
    ],
)
def test_what_is_as_it_should_be_stays(use: Use, found: Found, then: Then) -> None:
    assert settle(machine(use), found, at=NOON) is then


@pytest.mark.parametrize(
    ("use", "found", "becomes"),
    [
        (Use.BOOTING, Found(place=Place.READY), (Use.WARM, False, False)),
        (Use.BOOTING, Found(place=Place.BROKEN, why="no such image"), (Use.ENDING, False, True)),
        (Use.BOOTING, Found(place=Place.GONE), (Use.ENDING, False, False)),
        (Use.WARM, Found(place=Place.BROKEN), (Use.ENDING, False, True)),
        (Use.STARTING, Found(place=Place.READY, serving=Serving.PRESENT), (Use.WORKING, True, False)),
        (Use.STARTING, Found(place=Place.READY, serving=Serving.FAILED), (Use.ENDING, False, True)),
        (Use.STARTING, Found(place=Place.BROKEN, serving=Serving.SILENT), (Use.ENDING, False, True)),
        (Use.WORKING, Found(place=Place.READY, serving=Serving.LEFT), (Use.ENDING, True, False)),
        (Use.WORKING, Found(place=Place.SILENT, serving=Serving.FAILED), (Use.ENDING, False, True)),
        (Use.WORKING, Found(place=Place.BROKEN, serving=Serving.PRESENT), (Use.ENDING, False, False)),
        (Use.DRAINING, Found(place=Place.READY, serving=Serving.LEFT), (Use.ENDING, True, False)),
    ],
)
def test_what_changed_is_told(use: Use, found: Found, becomes: tuple[Use, bool, bool]) -> None:
    settled = settle(machine(use), found, at=NOON)
    assert isinstance(settled, Become)
    assert (settled.use, settled.proven, settled.failed) == becomes
    assert may_move(use, settled.use)


@pytest.mark.parametrize("serving", [Serving.NOBODY, Serving.SILENT])
def test_a_start_that_was_broken_off_ends_the_machine_and_is_nobody_s_failure(serving: Serving) -> None:
    settled = settle(machine(Use.STARTING, entered=False), Found(place=Place.READY, serving=serving), at=NOON)
    assert isinstance(settled, Become)
    assert (settled.use, settled.failed) == (Use.ENDING, False)


def test_a_worker_that_never_reports_is_given_up() -> None:
    silent = Found(place=Place.READY, serving=Serving.SILENT)
    assert settle(machine(Use.STARTING), silent, at=NOON + REPORTS_WITHIN) is Then.NOTHING
    settled = settle(machine(Use.STARTING), silent, at=NOON + REPORTS_WITHIN + timedelta(seconds=1))
    assert isinstance(settled, Become)
    assert settled.failed


# -- as a town and a fleet would drive it ------------------------------------------------------------------------------


@dataclass
class World:
    """Machines that boot, work and end as the steps say; tasks that come and are done."""

    pool: Pool
    now: datetime = NOON
    tasks: int = 0
    machines: dict[str, Member] = field(default_factory=dict)

    def situation(self) -> Situation:
        return Situation(at=self.now, pending=self.tasks, members=[*self.machines.values()], spare_agents=1000)

    def act(self) -> Sequence[object]:
        found = decide(self.pool, self.situation())
        for action in found.actions:
            match action:
                case Boot():
                    for _ in range(action.count):
                        self.put(Member(machine=machine(Use.BOOTING, since=self.now)))
                case Start():
                    assert self.machines[action.machine.id].machine.use is Use.WARM
                    self.use(action.machine.id, Use.STARTING)
                case Drain():
                    member = self.machines[action.machine.id]
                    assert not member.busy or action.even_busy, "work was taken out of a hand"
                    assert action.even_busy or member.idle_since is not None
                    self.use(action.machine.id, Use.DRAINING)
                case End():
                    assert action.machine.use not in WITH_WORKER, "a machine was ended with its worker"
                    self.use(action.machine.id, Use.ENDING)
        return found.actions

    def put(self, member: Member) -> None:
        self.machines[member.machine.id] = member

    def use(self, name: str, use: Use) -> None:
        member = self.machines[name]
        assert may_move(member.machine.use, use)
        self.put(replace(member, machine=replace(member.machine, use=use, since=self.now)))

    def pass_on(self, *, finish: int, seconds: float) -> None:
        """Let everything come one step further: boots, reports, ends; some work is finished, the rest is taken."""
        self.now += timedelta(seconds=seconds)
        for name, member in [*self.machines.items()]:
            match member.machine.use:
                case Use.BOOTING:
                    self.use(name, Use.WARM)
                case Use.STARTING:
                    self.use(name, Use.WORKING)
                    self.put(replace(self.machines[name], idle_since=self.now))
                case Use.DRAINING if not member.busy:
                    self.use(name, Use.ENDING)
                case Use.ENDING:
                    del self.machines[name]
        for member in [*self.machines.values()]:
            if member.busy and finish:
                finish -= 1
                self.put(replace(member, busy=False, idle_since=self.now))
        for member in [*self.machines.values()]:
            if member.machine.use is Use.WORKING and not member.busy and self.tasks:
                self.tasks -= 1
                self.put(replace(member, busy=True, idle_since=None))

    def count(self, *uses: Use) -> int:
        return sum(each.machine.use in uses for each in self.machines.values())

    def is_within_bounds(self) -> None:
        wanted = self.pool.settings
        assert self.count(*WITH_WORKER) <= wanted.maximum
        assert self.count(*WITH_WORKER, *FRESH) <= wanted.maximum + wanted.warm


SETTINGS = st.builds(
    lambda low, more, warm: PoolSettings(minimum=low, maximum=low + more, warm=warm, quiet_s=10),
    st.integers(0, 3), st.integers(0, 9), st.integers(0, 3),
)  # fmt: skip
HAPPENINGS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4), st.floats(0.1, 20)), max_size=40)


@settings(max_examples=40)
@given(SETTINGS, HAPPENINGS)
def test_a_pool_stays_within_its_bounds_and_comes_to_rest(
    wanted: PoolSettings, happenings: list[tuple[int, int, float]]
) -> None:
    world = World(replace(pool(), settings=wanted))
    for come, finish, seconds in happenings:
        world.tasks += come
        world.act()
        world.is_within_bounds()
        world.pass_on(finish=finish, seconds=seconds)
    for _ in range(150):
        world.act()
        world.is_within_bounds()
        world.pass_on(finish=3, seconds=1)
    assert world.tasks == 0 or wanted.maximum == 0, "everything was worked on"
    assert world.count(Use.WORKING) == wanted.minimum
    assert world.count(Use.WARM) == wanted.warm
    for _ in range(30):
        assert world.act() == (), "at rest nothing moves"
        world.pass_on(finish=0, seconds=1)


@settings(max_examples=40)
@given(SETTINGS, st.integers(0, 20))
def test_steady_work_changes_nothing(wanted: PoolSettings, work: int) -> None:
    world = World(replace(pool(), settings=wanted), tasks=work)
    for _ in range(40):
        world.act()
        world.pass_on(finish=0, seconds=1)
    assert world.count(Use.WORKING) == max(wanted.minimum, min(work, wanted.maximum))
    before = {*world.machines}
    for _ in range(60):
        assert world.act() == ()
        world.pass_on(finish=0, seconds=60)
    assert {*world.machines} == before


@settings(max_examples=40)
@given(SETTINGS)
def test_a_short_lull_ends_nothing(wanted: PoolSettings) -> None:
    """Work that comes and goes faster than the quiet time finds the workers that it found before."""
    world = World(replace(pool(), settings=wanted))
    seen: set[str] = set()
    for turn in range(20):
        world.tasks += wanted.maximum
        for second in range(8):
            world.act()
            world.pass_on(finish=wanted.maximum, seconds=1)
            if turn == 0 and second == 7:
                seen = {name for name, each in world.machines.items() if each.machine.use is Use.WORKING}
    assert seen <= {name for name, each in world.machines.items() if each.machine.use is Use.WORKING}
