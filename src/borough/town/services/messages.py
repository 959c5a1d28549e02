"""Use cases of messages: say something to an agent or to the supervisor, read it, acknowledge it."""

from collections.abc import Sequence

from borough.core.errors import Invalid
from borough.core.ids import MessageId, TaskId
from borough.town.messages import Inbox, Message, MessageKind, NewMessage
from borough.town.names import SUPERVISOR_ID
from borough.town.ports.mailbox import Mailbox
from borough.town.tasks import NewTask, TaskKind
from borough.town.texts import bounded

INBOX_LIMIT = 100

_WORK = {MessageKind.TASK: TaskKind.TASK, MessageKind.QUERY: TaskKind.QUERY}


class MessageService:
    """Delivers messages. What asks for an answer is work and is leased, retried and tracked like any task."""

    def __init__(self, mailbox: Mailbox, *, default_attempts: int) -> None:
        self._mailbox = mailbox
        self._default_attempts = default_attempts

    async def send(
        self, *, message_id: MessageId, to: str, text: str, kind: str, sender: str | None, urgent: bool
    ) -> Message:
        """Deliver a message.

        Raises:
            Invalid: ``kind`` is none of the four.
        """
        parsed = message_kind(kind)
        bounded(text, "/message")
        work = _WORK.get(parsed)
        task = (
            None
            if work is None
            else NewTask(
                id=TaskId(message_id),
                description=text,
                kind=work,
                sender=SUPERVISOR_ID,
                urgent=urgent,
                max_attempts=self._default_attempts,
            )
        )
        message = NewMessage(id=message_id, kind=parsed, text=text, sender=sender or SUPERVISOR_ID, urgent=urgent)
        return await self._mailbox.send(message, to=to, task=task)

    async def peek(self, agent: str) -> Inbox:
        """Look into an inbox without consuming anything."""
        return await self._mailbox.peek(agent, limit=INBOX_LIMIT)

    async def read(self, agent: str, message_id: MessageId) -> Message:
        """Return one message whole."""
        return await self._mailbox.read(agent, message_id)

    async def acknowledge(self, agent: str, ids: Sequence[MessageId] | None) -> int:
        """Take mail out of an inbox."""
        return await self._mailbox.acknowledge(agent, ids)


def message_kind(text: str) -> MessageKind:
    """Return the kind called ``text``; raises ``Invalid`` (``unknown_kind``) for any other word."""
    try:
        return MessageKind(text)
    except ValueError:
        raise Invalid(
            f"{text!r} is no kind of message",
            code="unknown_kind",
            resolution=f"use one of: {', '.join(MessageKind)}",
            details={"pointer": "/kind"},
        ) from None
