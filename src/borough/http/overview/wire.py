"""Shapes that routes over all contexts share."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from borough.core.paging import MAX_LIMIT
from borough.overview import occurrences

Limit = Annotated[int, Meta(ge=1, le=MAX_LIMIT)]
ContextWord = Literal["town", "fleet", "governance", "runs"]


class Subject(Struct, kw_only=True, omit_defaults=True):
    """A thing that something is about."""

    kind: str
    id: str
    name: str | None = None


def subject_view(subject: occurrences.Subject) -> Subject:
    """Return a thing as it goes over the wire."""
    return Subject(kind=subject.kind, id=subject.id, name=subject.name)
