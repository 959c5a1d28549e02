"""Lifecycle: legal moves, statuses, restarts, timeouts, depth."""

from datetime import UTC, datetime, timedelta

import pytest

from borough.core.errors import Conflict, Forbidden, Invalid
from borough.governance.lifecycle import (
    Exit,
    Lifecycle,
    Mover,
    Phase,
    RestartPolicy,
    Status,
    after_exit,
    backoff,
    change_status,
    child_depth,
    deadline,
    kill_grace,
    move,
    parse_phase,
)

AGENT_MOVES = {
    "Init": "",
    "Plan": "Plan Act Terminate",
    "Act": "Plan Act Observe Terminate",
    "Observe": "Plan Act Observe Terminate",
    "Terminate": "Terminate",
}


@pytest.mark.parametrize("start", list(Phase))
@pytest.mark.parametrize("to", list(Phase))
def test_an_agent_moves_itself_along_its_loop_only(start: Phase, to: Phase) -> None:
    if to.value in AGENT_MOVES[start.value].split():
        assert move(start, to, by=Mover.AGENT) is to
        return
    with pytest.raises(Conflict) as refused:
        move(start, to, by=Mover.AGENT)
    assert refused.value.code == "illegal_transition"


def test_the_daemon_alone_leads_out_of_init_and_operators_may_force_the_rest() -> None:
    assert move(Phase.INIT, Phase.PLAN, by=Mover.DAEMON) is Phase.PLAN
    assert move(Phase.INIT, Phase.TERMINATE, by=Mover.DAEMON) is Phase.TERMINATE
    assert move(Phase.PLAN, Phase.OBSERVE, by=Mover.OPERATOR) is Phase.OBSERVE
    for mover in (Mover.AGENT, Mover.OPERATOR):
        with pytest.raises(Conflict):
            move(Phase.INIT, Phase.PLAN, by=mover)
    for mover in Mover:
        with pytest.raises(Conflict):
            move(Phase.TERMINATE, Phase.PLAN, by=mover)


@pytest.mark.parametrize("word", ["plan", "Plan", "PLAN"])
def test_a_phase_is_read_in_any_case(word: str) -> None:
    assert parse_phase(word) is Phase.PLAN
    with pytest.raises(Invalid):
        parse_phase(word + "s")


def test_a_run_that_is_over_stays_so() -> None:
    assert change_status(Status.RUNNING, Status.PAUSED) is Status.PAUSED
    assert change_status(Status.KILLED, Status.KILLED) is Status.KILLED
    for over in (Status.SUCCEEDED, Status.FAILED, Status.KILLED):
        with pytest.raises(Conflict):
            change_status(over, Status.RUNNING)


@pytest.mark.parametrize(
    ("policy", "ended", "status", "again"),
    [
        ("never", Exit(code=0), "succeeded", False),
        ("never", Exit(code=2), "failed", False),
        ("on-failure", Exit(code=0), "succeeded", False),
        ("on-failure", Exit(code=2), "failed", True),
        ("on-failure", Exit(signal=9), "failed", True),
        ("on-failure", Exit(code=0, timed_out=True), "failed", True),
        ("always", Exit(code=0), "succeeded", True),
        ("always", Exit(code=0, asked_for=True), "killed", False),
        ("always", Exit(signal=15, asked_for=True), "killed", False),
    ],
)
def test_an_exit_makes_a_status_and_perhaps_another_run(policy: str, ended: Exit, status: str, *, again: bool) -> None:
    after = after_exit(Lifecycle(restart_policy=RestartPolicy(policy), max_restarts=2), ended, restarts=1)
    assert after.status == status
    assert (after.restart_after is not None) is again
    assert (after.last_error is not None) is (status == "failed")


def test_restarts_end_and_their_pauses_grow_to_a_minute() -> None:
    always = Lifecycle(restart_policy=RestartPolicy.ALWAYS, max_restarts=2)
    assert after_exit(always, Exit(code=1), restarts=2).restart_after is None
    assert [backoff(n).total_seconds() for n in (0, 1, 5, 6, 1000)] == [1, 2, 32, 60, 60]


def test_a_failure_tells_why() -> None:
    assert after_exit(Lifecycle(), Exit(code=3), restarts=0).last_error == "exit code 3"
    assert (
        after_exit(Lifecycle(timeout_s=5), Exit(signal=9, timed_out=True), restarts=0).last_error
        == "it ran longer than 5 s"
    )


def test_a_timeout_sets_the_deadline_and_shortens_the_grace() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert deadline(Lifecycle(timeout_s=60), started_at=noon) == noon + timedelta(minutes=1)
    assert deadline(Lifecycle(), started_at=noon) is None
    assert kill_grace(Lifecycle(timeout_s=3)) == timedelta(seconds=3)
    assert kill_grace(Lifecycle(timeout_s=600)) == kill_grace(Lifecycle()) == timedelta(seconds=10)


def test_a_hierarchy_is_only_so_deep() -> None:
    assert child_depth(None) == 1
    assert child_depth(7) == 8
    with pytest.raises(Forbidden, match="hierarchy depth exceeded"):
        child_depth(8)
