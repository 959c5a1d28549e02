"""Inboxes and mail."""

from collections.abc import Sequence
from typing import Protocol

from borough.core.ids import MessageId
from borough.town.messages import Inbox, Message, NewMessage
from borough.town.tasks import NewTask


class Mailbox(Protocol):
    """Inboxes and mail."""

    async def send(self, message: NewMessage, *, to: str, task: NewTask | None) -> Message:
        """Deliver a message; ``task`` is what it becomes when it is work for an agent (same id). To the supervisor
        everything is mail. Idempotent by id. Raises as ``Tasks.assign``; an unknown sender is ``NotFound``
        (``sender_not_found``).
        """

    async def peek(self, agent: str, *, limit: int) -> Inbox:
        """Return the unread entries without consuming any."""

    async def read(self, agent: str, message_id: MessageId) -> Message:
        """Return one message whole; raises ``NotFound`` (``message_not_found``)."""

    async def acknowledge(self, agent: str, ids: Sequence[MessageId] | None) -> int:
        """Take mail out of the inbox (``None``: all of it); return how many. Ids that are not there are fine.

        Raises:
            Conflict: one of them is work (``message_is_work``): it is completed or cancelled, not acknowledged.
        """
