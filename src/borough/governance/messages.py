"""Messages on the bus: topics, patterns of topics, and what may be published under them."""

import re
from dataclasses import dataclass, field
from datetime import datetime

from borough.core.errors import Conflict, Forbidden, Invalid
from borough.core.ids import AgentId
from borough.governance.globs import TOPIC_SEPARATORS, Glob, compile_glob

MOST_TOPIC_CHARACTERS = 256
MOST_PAYLOAD_BYTES = 65_536
MOST_MAIL = 1000
"""Messages in an agent's mailbox; for one more the oldest goes."""
MOST_SUBSCRIPTIONS = 100
"""For each agent."""
RESERVED = "scarab"
"""Topics that begin with this segment are the daemon's, such as ``scarab.escalation.<id>``."""
_FIRST_SEGMENT = re.compile(f"[^{re.escape(TOPIC_SEPARATORS)}]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class BusMessage:
    """What was published. ``payload`` is JSON text, kept as it was written."""

    topic: str
    payload: str
    published_at: datetime
    from_agent_id: AgentId | None = None
    """``None``: the daemon, or an operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """What an agent finds in its mailbox."""

    messages: tuple[BusMessage, ...] = field(default=())
    dropped: int = 0
    """How many older ones were lost since the mailbox was last emptied."""


def check_topic(topic: str, *, by_daemon: bool = False) -> str:
    """Return ``topic`` if something can be published under it.

    Raises:
        Invalid: it is no topic (``invalid_topic``).
        Forbidden: it is the daemon's (``reserved_topic``).
    """
    if not 0 < len(topic) <= MOST_TOPIC_CHARACTERS or not topic.isprintable() or "*" in topic:
        raise _invalid("topic", "and no '*'", "choose another, as in build.done")
    if not by_daemon and is_reserved(topic):
        raise Forbidden(
            f"only the daemon publishes under {RESERVED}",
            code="reserved_topic",
            resolution="choose another first segment, as in build.done",
        )
    return topic


def is_reserved(topic: str) -> bool:
    """Tell whether ``topic`` is the daemon's."""
    first = _FIRST_SEGMENT.match(topic)
    return first is not None and first[0] == RESERVED


def check_pattern(pattern: str) -> Glob:
    """Return the glob that ``pattern`` says; the daemon's topics may be listened to.

    Raises:
        Invalid: it cannot be used (``invalid_topic``).
    """
    if not 0 < len(pattern) <= MOST_TOPIC_CHARACTERS or not pattern.isprintable():
        raise _invalid("pattern", "'*' within a segment, '**' across", "choose another, as in build.*")
    return compile_glob(pattern, TOPIC_SEPARATORS)


def check_payload(payload: str) -> str:
    """Return JSON text if it is not too long to be sent.

    Raises:
        Invalid: it is (``payload_too_long``).
    """
    if len(payload.encode()) > MOST_PAYLOAD_BYTES:
        raise Invalid(
            "the payload is too long",
            code="payload_too_long",
            reason=f"{MOST_PAYLOAD_BYTES} bytes are the most",
            resolution="put it on the blackboard, and send its key",
        )
    return payload


def check_subscriptions(count: int) -> None:
    """Let an agent that has ``count`` subscriptions have one more.

    Raises:
        Conflict: it has as many as it may (``too_many_subscriptions``).
    """
    if count >= MOST_SUBSCRIPTIONS:
        raise Conflict(
            f"the agent has {count} subscriptions already",
            code="too_many_subscriptions",
            resolution="end some, or subscribe to a wider pattern",
        )


def _invalid(what: str, more: str, resolution: str) -> Invalid:
    return Invalid(
        f"the {what} cannot be used",
        code="invalid_topic",
        reason=f"a {what} has 1 to {MOST_TOPIC_CHARACTERS} printable characters, {more}",
        resolution=resolution,
    )
