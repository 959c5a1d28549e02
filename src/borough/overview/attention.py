"""What needs a person: what it is, since when, what happens if nobody acts, and what settles it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from borough.overview.occurrences import Subject


class Kind(StrEnum):
    """Why a person is needed. The order is the one in which they are told."""

    APPROVAL = "approval"
    QUESTION = "question"
    BUDGET = "budget"
    HOST = "host"
    STUCK_LEASE = "stuck_lease"
    ORPHAN_TASK = "orphan_task"
    VM = "vm"
    POOL = "pool"
    RUN = "run"
    DEAD_LETTER = "dead_letter"


class Urgency(StrEnum):
    """How soon."""

    NOW = "now"
    """Somebody waits for it."""
    SOON = "soon"
    """Something does not do what it should."""
    WHENEVER = "whenever"
    """It is over, and may be looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settling:
    """One way to settle it: a request, and the command that sends it."""

    label: str
    method: str
    path: str
    command: str
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Something that a person has to decide or mend."""

    kind: Kind
    title: str
    why: str
    since: datetime
    urgency: Urgency
    subject: Subject
    safe_default: str
    """What happens if nobody acts."""
    settled_by: tuple[Settling, ...]
    deadline: datetime | None = None
    """When that happens, where it is known."""
    key: str | None = None
    """What tells it from others about the same subject; ``None``: there is one of this kind at the most."""

    @property
    def id(self) -> str:
        """Return its id: the same for as long as it is needed."""
        return f"{self.kind.value}:{self.key or self.subject.id}"
