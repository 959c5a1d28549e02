"""``Mailbox`` on Valkey."""

from collections.abc import Sequence

from borough.adapters.valkey.link import Link
from borough.adapters.valkey.town import records
from borough.adapters.valkey.town.asking import ask, look
from borough.adapters.valkey.town.tasks import task_arguments
from borough.core.ids import AgentId, MessageId
from borough.town.messages import INBOX_TYPE, Inbox, Message, NewMessage
from borough.town.tasks import NewTask


class ValkeyMailbox:
    """Implements ``borough.town.ports.mailbox.Mailbox``. A mailbox holds 1000 messages; then the oldest goes."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def send(self, message: NewMessage, *, to: str, task: NewTask | None) -> Message:
        """See the port."""
        work = () if task is None else task_arguments(task)
        answer = await ask(
            self._link,
            "town_send",
            to,
            message.sender,
            message.id,
            INBOX_TYPE[message.kind],
            message.text,
            message.urgent,
            task is not None,
            *work,
        )
        return records.message(answer)

    async def peek(self, agent: str, *, limit: int) -> Inbox:
        """See the port."""
        agent_id, total, urgent, messages = await look(self._link, "town_inbox", agent, limit)
        return Inbox(
            agent_id=AgentId(records.text(agent_id)),
            total=total,
            urgent=urgent,
            messages=tuple(map(records.message, messages)),
        )

    async def read(self, agent: str, message_id: MessageId) -> Message:
        """See the port. What was acknowledged can still be read: the newest 1000 are kept."""
        return records.message(await look(self._link, "town_message", agent, message_id))

    async def acknowledge(self, agent: str, ids: Sequence[MessageId] | None) -> int:
        """See the port."""
        count: int = await ask(self._link, "town_acknowledge", agent, ids is None, *(ids or ()))
        return count
