"""What the port ``Mailbox`` promises, on every server."""

import pytest

from borough.core.errors import Conflict, NotFound
from borough.core.ids import MessageId, new_id
from borough.town.messages import MessageKind
from borough.town.names import SUPERVISOR_ID
from borough.town.tasks import TaskKind, TaskState
from tests.contracts.conftest import Town
from tests.contracts.kit import add_agent, assign, everything, hire, new_message, new_task

pytestmark = pytest.mark.anyio


async def test_mail_waits_until_it_is_acknowledged(town: Town) -> None:
    ada = await hire(town, "ada")
    bob = await hire(town, "bob")
    text = "line one\nline\0two 🦀 'quoted'"
    sent = await town.mailbox.send(new_message(text, kind=MessageKind.ACK, sender="BOB"), to="ada", task=None)
    assert (sent.text, sent.type, sent.sender, sent.to, sent.urgent) == (text, "confirmation", bob.id, ada.id, False)
    inbox = await town.mailbox.peek("ada", limit=10)
    assert (inbox.agent_id, inbox.total, inbox.urgent, inbox.messages) == (ada.id, 1, 0, (sent,))
    assert await town.mailbox.read("ada", sent.id) == sent
    assert await town.mailbox.acknowledge("ada", [sent.id, MessageId(new_id())]) == 1
    assert await town.mailbox.acknowledge("ada", [sent.id]) == 0
    assert (await town.mailbox.peek("ada", limit=10)).messages == ()
    assert await town.mailbox.read("ada", sent.id) == sent


async def test_sending_twice_delivers_once(town: Town) -> None:
    await hire(town, "ada")
    mail = new_message()
    sent = await town.mailbox.send(mail, to="ada", task=None)
    stored = await everything(town)
    assert await town.mailbox.send(mail, to="ada", task=None) == sent
    assert await everything(town) == stored
    await town.mailbox.acknowledge("ada", None)
    assert await town.mailbox.send(mail, to="ada", task=None) == sent
    assert (await town.mailbox.peek("ada", limit=10)).total == 0


@pytest.mark.parametrize("kind", [MessageKind.TASK, MessageKind.QUERY])
async def test_work_to_an_agent_becomes_a_task(town: Town, kind: MessageKind) -> None:
    ada = await hire(town, "ada")
    bob = await hire(town, "bob")
    message = new_message("do this", kind=kind, sender="bob", urgent=True)
    task = new_task("do this", id=message.id, kind=TaskKind(kind.value), urgent=True)
    sent = await town.mailbox.send(message, to="ada", task=task)
    assert (sent.id, sent.type, sent.text, sent.sender, sent.to) == (message.id, kind, "do this", bob.id, ada.id)
    assert await town.mailbox.send(message, to="ada", task=task) == sent
    stored, _ = await town.tasks.get(task.id)
    assert (stored.state, stored.sender, stored.assigned_to) == (TaskState.ASSIGNED, bob.id, ada.id)
    assert (await town.mailbox.peek("ada", limit=9)).messages == (sent,)
    assert await town.mailbox.read("ada", message.id) == sent
    assert (await ada.must_take()).id == task.id


async def test_everything_for_the_supervisor_is_mail(town: Town) -> None:
    await hire(town, "ada")
    message = new_message("please decide", kind=MessageKind.QUERY, sender="ada")
    task = new_task("please decide", id=message.id, kind=TaskKind.QUERY)
    sent = await town.mailbox.send(message, to="Conductor", task=task)
    assert (sent.to, sent.type) == (SUPERVISOR_ID, "query")
    with pytest.raises(NotFound):
        await town.tasks.get(task.id)
    assert (await town.mailbox.peek("supervisor", limit=9)).messages == (sent,)
    assert await town.mailbox.acknowledge("supervisor", None) == 1


async def test_an_inbox_shows_urgent_first_and_oldest_first(town: Town) -> None:
    await hire(town, "ada")
    for number in range(3):
        await town.mailbox.send(new_message(f"mail {number}"), to="ada", task=None)
        await assign(town, "ada", f"work {number}")
        await assign(town, "ada", f"urgent {number}", urgent=True)
    await town.mailbox.send(new_message("urgent mail", urgent=True), to="ada", task=None)
    inbox = await town.mailbox.peek("ada", limit=100)
    assert (inbox.total, inbox.urgent) == (6, 4)
    assert [message.text for message in inbox.messages] == [
        *("urgent 0", "urgent 1", "urgent 2", "urgent mail"),
        *("mail 0", "work 0", "mail 1", "work 1", "mail 2", "work 2"),
    ]
    assert [message.text for message in (await town.mailbox.peek("ada", limit=5)).messages][-1] == "mail 0"
    assert inbox == await town.mailbox.peek("ada", limit=100)


async def test_work_is_not_acknowledged_away(town: Town) -> None:
    await hire(town, "ada")
    mail = await town.mailbox.send(new_message(), to="ada", task=None)
    work = (await assign(town, "ada")).task
    stored = await everything(town)
    with pytest.raises(Conflict) as refusal:
        await town.mailbox.acknowledge("ada", [mail.id, MessageId(work.id)])
    assert refusal.value.code == "message_is_work"
    assert await everything(town) == stored
    assert await town.mailbox.acknowledge("ada", None) == 1
    assert (await town.mailbox.peek("ada", limit=9)).total == 1


async def test_messages_are_refused_as_work_is(town: Town) -> None:
    await hire(town, "ada")
    await hire(town, "gone")
    await add_agent(town, "one", nickname="twin")
    await add_agent(town, "two", nickname="twin")
    await town.agents.kill("gone", reason="x")
    stored = await everything(town)
    for to, sender, kind, code in (
        ("nobody", "ada", NotFound, "agent_not_found"),
        ("twin", "ada", Conflict, "agent_ambiguous"),
        ("gone", "ada", Conflict, "agent_not_running"),
        ("ada", "nobody", NotFound, "sender_not_found"),
        ("ada", "twin", Conflict, "agent_ambiguous"),
    ):
        with pytest.raises(kind) as refusal:
            await town.mailbox.send(new_message(sender=sender), to=to, task=None)
        assert refusal.value.code == code
    assert await everything(town) == stored


async def test_messages_of_others_are_not_read(town: Town) -> None:
    await hire(town, "ada")
    await hire(town, "bob")
    mail = await town.mailbox.send(new_message(), to="ada", task=None)
    work = (await assign(town, "ada")).task
    for message_id in (mail.id, MessageId(work.id), MessageId(new_id())):
        with pytest.raises(NotFound) as refusal:
            await town.mailbox.read("bob", message_id)
        assert refusal.value.code == "message_not_found"
    assert await town.mailbox.acknowledge("bob", [mail.id]) == 0


async def test_a_full_mailbox_drops_its_oldest_mail_and_says_so(town: Town) -> None:
    sent = [await town.mailbox.send(new_message(f"{n}"), to="supervisor", task=None) for n in range(1002)]
    inbox = await town.mailbox.peek("supervisor", limit=3)
    assert inbox.total == 1000
    assert [message.text for message in inbox.messages] == ["2", "3", "4"]
    with pytest.raises(NotFound):
        await town.mailbox.read("supervisor", sent[0].id)
    dropped = [event for event in await town.events.newest(limit=9) if event.type == "message_dropped"]
    assert [event.subjects["message_id"] for event in dropped] == [sent[0].id, sent[1].id]
    assert await town.mailbox.acknowledge("supervisor", None) == 1000
    await town.mailbox.send(new_message("new"), to="supervisor", task=None)
    await town.mailbox.acknowledge("supervisor", None)
    with pytest.raises(NotFound):
        await town.mailbox.read("supervisor", sent[2].id)
