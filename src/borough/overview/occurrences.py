"""What happened anywhere, in one shape, and cursors over all the streams that it comes from."""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from borough.core.errors import Invalid


class Context(StrEnum):
    """Where something happened."""

    TOWN = "town"
    FLEET = "fleet"
    GOVERNANCE = "governance"
    RUNS = "runs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A thing that something is about."""

    kind: str
    id: str
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Occurrence:
    """One thing that happened. There is one object of it for all who are told."""

    context: Context
    position: str
    """Its place in the stream of its context."""
    id: str
    """Unique over all contexts."""
    at: datetime
    kind: str
    message: str
    subject: Subject | None
    subjects: Mapping[str, str] = field(default_factory=dict)
    """Everything that it names: ``task_id``, ``vm_id``, ``by`` …"""
    data: Any = None
    """What its context says of it, as it goes over the wire."""

    def names(self, word: str) -> bool:
        """Tell whether it is about a thing of this id or name."""
        about = self.subject
        return (about is not None and word in (about.id, about.name)) or word in self.subjects.values()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which occurrences; ``None`` and empty mean any."""

    contexts: frozenset[Context]
    """Of these only: what the reader may see, or less."""
    kind: str | None = None
    subject: str | None = None
    subjects: Mapping[str, str] = field(default_factory=dict)

    def admits(self, occurrence: Occurrence) -> bool:
        """Tell whether it is wanted; a kind stands for all that begin with it and a dot."""
        if occurrence.context not in self.contexts:
            return False
        kind = occurrence.kind
        if self.kind is not None and kind != self.kind and not kind.startswith(f"{self.kind}."):
            return False
        if any(occurrence.subjects.get(name) != value for name, value in self.subjects.items()):
            return False
        return self.subject is None or occurrence.names(self.subject)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Something happened that is no longer kept: whoever follows has missed it."""

    context: Context
    after: str
    resumes_at: str


Positions = Mapping[Context, str]
"""Up to where each stream was read."""

_TOWN_ID: Final = re.compile(r"\d{1,18}(-\d{1,18})?\Z", re.ASCII)
_PLACE: Final = re.compile(r"[0-9]{0,18}(-[0-9]{1,18})?\Z", re.ASCII)
_PREFIX: Final = "c."
MOST_CURSOR: Final = 128


def encode_positions(positions: Positions) -> str:
    """Return positions as one opaque word."""
    told = ",".join(f"{context.value}={place}" for context, place in sorted(positions.items()))
    return _PREFIX + base64.urlsafe_b64encode(told.encode()).decode().rstrip("=")


def decode_positions(word: str) -> dict[Context, str]:
    """Return the positions that a word says: one of ours, the id of any event, or the town's id of one alone.

    Raises:
        Invalid: it is none (``invalid_last_event_id``).
    """
    if _TOWN_ID.match(word):
        return {Context.TOWN: word}
    try:
        if not word.startswith(_PREFIX):
            return _told([word.replace(":", "=", 1)])
        padded = word.removeprefix(_PREFIX) + "=" * (-(len(word) - len(_PREFIX)) % 4)
        return _told(base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").split(","))
    except (ValueError, binascii.Error):
        raise Invalid(
            "the Last-Event-ID is not one that this server gave out",
            code="invalid_last_event_id",
            resolution="send the id of the last event that was read, or no such header",
        ) from None


def _told(parts: Iterable[str]) -> dict[Context, str]:
    found: dict[Context, str] = {}
    for part in parts:
        name, mark, place = part.partition("=")
        if not mark or not _PLACE.match(place):
            raise ValueError(part)
        found[Context(name)] = place
    return found


def order(position: str) -> tuple[int, int]:
    """Return what positions of one stream sort by; '' is before all."""
    first, _, second = position.partition("-")
    return int(first or 0), int(second or 0)
