"""Identifiers. Each kind is a type of its own; on the wire all are lower-case UUIDs with hyphens."""

from typing import NewType
from uuid import UUID, uuid4, uuid5

AgentId = NewType("AgentId", str)
TaskId = NewType("TaskId", str)
MessageId = NewType("MessageId", str)

SHORT_LENGTH = 4
"""Characters of an id that people may use instead of the whole."""

_NAMESPACE = UUID("6f6d1ab0-7a4e-4f0b-9d6b-0b0f5c1f8a11")


def new_id() -> str:
    """Return a fresh random id."""
    return str(uuid4())


def derived_id(*parts: str) -> str:
    """Return the one id that belongs to ``parts``, so that a repeated request names the same thing."""
    return str(uuid5(_NAMESPACE, "\x1f".join(parts)))


def is_id(text: str) -> bool:
    """Tell whether ``text`` is an id in any of the usual spellings of a UUID."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def canonical_id(text: str) -> str:
    """Return ``text`` in the one spelling that stores use.

    Raises:
        ValueError: ``text`` is not a UUID.
    """
    return str(UUID(text))
