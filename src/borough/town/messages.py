"""Messages: what is said to an agent or to the supervisor.

``task`` and ``query`` to an agent are work and become tasks; everything else is mail: told with the next task,
kept until it is acknowledged.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from borough.core.ids import AgentId, MessageId


class MessageKind(StrEnum):
    """What callers may send."""

    TASK = "task"
    QUERY = "query"
    INFO = "info"
    ACK = "ack"


INBOX_TYPE: dict[MessageKind, str] = {
    MessageKind.TASK: "task",
    MessageKind.QUERY: "query",
    MessageKind.INFO: "info",
    MessageKind.ACK: "confirmation",
}
"""The ``type`` under which an inbox lists each kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMessage:
    """A message that is to be stored; the caller chooses the id, so that repeating the call changes nothing."""

    id: MessageId
    kind: MessageKind
    text: str
    sender: str
    """An agent reference, as given."""
    urgent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message as stored. Of work, ``id`` is also the task's id and ``kind`` may be ``task_assign``."""

    id: MessageId
    type: str
    text: str
    sender: AgentId
    to: AgentId
    urgent: bool
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbox:
    """An inbox as seen without consuming anything: all unread work and mail, urgent first, oldest first."""

    agent_id: AgentId
    total: int
    """Entries that are not urgent."""
    urgent: int
    messages: tuple[Message, ...]


def confirmation(text: str) -> str:
    """Return how an acknowledgement is summed up: Received, Approved, Thanks, Rejected … or Acknowledged."""
    lowered = text.strip().lower()
    if lowered.startswith("rejected:"):
        reason = text.strip()[len("rejected:") :].strip() or "No reason provided"
        return f'Rejected {{ reason: "{reason}" }}'
    for prefix, word in (("received", "Received"), ("approved", "Approved")):
        if lowered.startswith(prefix):
            return word
    if "thanks" in lowered or "thank you" in lowered:
        return "Thanks"
    return "Acknowledged"


def summary(message: Message) -> str:
    """Return the one-line form that an inbox shows."""
    if message.type == "task_assign":
        return f"task assignment {message.id}"
    if message.type == "confirmation":
        return confirmation(message.text)
    return message.text
