"""``tasks.toml``: planned tasks, read and given their states; comments and order stay."""

import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import tomlkit

from borough.config.files import write_new, write_whole
from borough.config.reading import to_section
from borough.config.sections import Section
from borough.core.errors import Conflict, Invalid, NotFound

PLAN_FILE: Final = "tasks.toml"
PENDING: Final = "pending"
_TAG: Final = "plan:"
_LONGEST_ID: Final = 63 - len(_TAG)
_TEMPLATE: Final = """\
# Planned work. 'tt sync push' gives out what is pending, once; 'tt sync pull' writes back how each task stands.
[meta]
description = ""
# default_agent = "ada"     # whom tasks without an agent go to; without it, to the backlog

[[tasks]]
id = "first"
description = "Say what is to be done"
# agent = "ada"
# tags = ["docs"]
# parent = "other-id"
status = "pending"
"""


class _Meta(Section, frozen=True, kw_only=True):
    description: str = ""
    default_agent: str | None = None


class _Entry(Section, frozen=True, kw_only=True):
    id: str
    description: str
    agent: str | None = None
    status: str = PENDING
    tags: tuple[str, ...] = ()
    parent: str | None = None


class _PlanSection(Section, frozen=True, kw_only=True):
    meta: _Meta = _Meta()
    tasks: tuple[_Entry, ...] = msgspec.field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One planned task."""

    id: str
    description: str
    agent: str | None
    status: str
    tags: tuple[str, ...]
    parent: str | None

    @property
    def tag(self) -> str:
        """The tag by which the town knows it."""
        return f"{_TAG}{self.id}"


def begin(path: Path) -> None:
    """Write a plan to begin with; raises ``Conflict`` where there is one."""
    try:
        write_new(path, _TEMPLATE, mode=0o644)
    except FileExistsError:
        raise Conflict(
            f"{path} is there already", code="plan_exists", reason="a plan is never overwritten", resolution="edit it"
        ) from None


def read(path: Path) -> list[Planned]:
    """Return the planned tasks, in the file's order.

    Raises:
        NotFound: there is no plan.
        Invalid: it is not one, or an id is too long, missing or there twice.
    """
    section = to_section(_tables(path), _PlanSection, file=path.name)
    seen: set[str] = set()
    for entry in section.tasks:
        if not entry.id or len(entry.id) > _LONGEST_ID or entry.id in seen or not entry.description.strip():
            raise Invalid(
                f"{path.name}: the task {entry.id!r} cannot be planned so",
                code="invalid_plan",
                reason=f"each task needs a description and an id of its own with 1 to {_LONGEST_ID} characters",
                resolution="correct that entry",
            )
        seen.add(entry.id)
    return [
        Planned(
            id=entry.id,
            description=entry.description,
            agent=entry.agent or section.meta.default_agent,
            status=entry.status,
            tags=entry.tags,
            parent=entry.parent,
        )
        for entry in section.tasks
    ]


def write_states(path: Path, states: dict[str, str]) -> None:
    """Set the status of each task in ``states``."""
    plan = tomlkit.parse(path.read_text(encoding="utf-8"))
    for entry in plan.get("tasks", []):
        if entry["id"] in states:
            entry["status"] = states[entry["id"]]
    write_whole(path, tomlkit.dumps(plan), mode=path.stat().st_mode & 0o777)


def document(task: Planned) -> dict[str, Any]:
    """Return a planned task for JSON."""
    return {**asdict(task), "tags": list(task.tags)}


def _tables(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(
            f"there is no plan at {path}", code="no_plan", resolution="begin one with 'tt plan --init'"
        ) from None
    except tomllib.TOMLDecodeError as problem:
        raise Invalid(
            f"{path} is not valid TOML: {problem}", code="invalid_plan", resolution="correct that line"
        ) from None
