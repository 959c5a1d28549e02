"""Which pool the waiting work counts for, so that two pools do not grow for the same task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from borough.town.names import GENERALIST_ROLES


@dataclass(frozen=True, slots=True, kw_only=True)
class Taker:
    """A pool as far as waiting work is concerned."""

    role: str
    room: int
    """How many tasks more it could work on at once."""


def share(waiting: Mapping[str | None, int], takers: Sequence[Taker]) -> Mapping[str, int]:
    """Return how many waiting tasks count for each pool.

    ``waiting`` has the tasks of each role, those without one under ``None``. A role's tasks are its own pool's. What is
    left (tasks without a role, and for generalists those of roles that have no pool) goes to who may take it: first
    generalists, then by role, each up to the room that it has; what finds no room counts for the first of them.
    """
    by_role = {taker.role: taker for taker in takers}
    counted = {role: waiting.get(role, 0) for role in by_role}
    order = sorted(by_role, key=lambda role: (role not in GENERALIST_ROLES, role))
    generalists = [role for role in order if role in GENERALIST_ROLES]
    for role, tasks in sorted(waiting.items(), key=lambda each: each[0] or ""):
        if role not in by_role:
            _deal(tasks, order if role is None else generalists, counted, by_role)
    return counted


def _deal(tasks: int, order: Sequence[str], counted: dict[str, int], by_role: Mapping[str, Taker]) -> None:
    left = tasks
    for role in order:
        some = min(left, max(0, by_role[role].room - counted[role]))
        counted[role] += some
        left -= some
    if order:
        counted[order[0]] += left
