"""The course of an agent: how its running is steered, what it has declared to do, and what follows when it ends.

What an agent is, the register says; a course is what changes about its running meanwhile.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from borough.core.errors import Forbidden, Invalid

DEFAULT_PRIORITY = 50
LEAST_PRIORITY, MOST_PRIORITY = 1, 100
_BOOSTS = ((timedelta(0), MOST_PRIORITY), (timedelta(minutes=30), 25), (timedelta(hours=1), 10))
"""What is added to the priority of an agent whose deadline is no farther away than that."""
MOST_STEPS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStep:
    """One thing that an agent means to do."""

    description: str
    tool: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an agent means to do. It is advisory: nothing is stopped because it is not in it."""

    steps: tuple[PlanStep, ...]
    revision: int
    """Counted from 1."""
    declared_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The course of one agent."""

    priority: int = DEFAULT_PRIORITY
    deadline: datetime | None = None
    deadline_is_operators: bool = False
    plan: Plan | None = None
    run_id: str | None = None
    """Which run the rest speaks of."""
    nonce_sha256: str | None = field(default=None, repr=False)
    """Of the word by which the run proves at the socket that it is itself."""
    has_process: bool = False
    elsewhere: bool = False
    """Whether its program is none of the daemon's: whoever keeps it starts it, and tells of its end."""
    connected: bool = False
    """Whether the run ever opened a session."""
    restart_at: datetime | None = None
    """When the next run begins, where one follows."""


def new_run(course: Course, *, run_id: str, nonce_sha256: str | None) -> Course:
    """Return the course with another run begun; a plan is of the run that declared it."""
    return replace(
        course,
        plan=None,
        run_id=run_id,
        nonce_sha256=nonce_sha256,
        has_process=False,
        connected=False,
        restart_at=None,
    )


def with_plan(course: Course, steps: tuple[PlanStep, ...], *, at: datetime) -> Course:
    """Return the course with a plan declared or revised.

    Raises:
        Invalid: it has too many steps (``invalid_plan``).
    """
    if len(steps) > MOST_STEPS:
        raise Invalid(
            f"a plan of {len(steps)} steps is too long",
            code="invalid_plan",
            resolution=f"declare {MOST_STEPS} steps at the most",
        )
    revision = 1 if course.plan is None else course.plan.revision + 1
    return replace(course, plan=Plan(steps=steps, revision=revision, declared_at=at))


def with_priority(course: Course, priority: int, *, own: bool) -> Course:
    """Return the course with another priority; ``own``: the agent itself asks.

    Raises:
        Invalid: there is no such priority (``invalid_priority``).
        Forbidden: an agent does not put itself before others (``not_by_itself``).
    """
    if not LEAST_PRIORITY <= priority <= MOST_PRIORITY:
        raise Invalid(
            f"{priority} is no priority",
            code="invalid_priority",
            resolution=f"choose a whole number from {LEAST_PRIORITY} to {MOST_PRIORITY}",
        )
    if own and priority > course.priority:
        raise Forbidden(
            "an agent cannot raise its own priority",
            code="not_by_itself",
            resolution="have an operator or the agent above it do so",
        )
    return replace(course, priority=priority)


def with_deadline(course: Course, deadline: datetime | None, *, own: bool) -> Course:
    """Return the course with another deadline, or none; ``own``: the agent itself asks.

    Raises:
        Forbidden: an operator's deadline is there, which an agent does not change (``not_by_itself``).
    """
    if own and course.deadline_is_operators:
        raise Forbidden(
            "an agent cannot change the deadline that it was set",
            code="not_by_itself",
            reason="the deadline came from an operator",
            resolution="have an operator change or clear it",
        )
    return replace(course, deadline=deadline, deadline_is_operators=not own and deadline is not None)


def effective_priority(course: Course, *, at: datetime) -> int:
    """Return the priority as it counts ``at`` then: it rises towards the deadline, to the top once that is past."""
    if course.deadline is None:
        return course.priority
    left = course.deadline - at
    boost = next((boost for within, boost in _BOOSTS if left <= within), 0)
    return min(course.priority + boost, MOST_PRIORITY)
