"""The bus: messages between agents by topic."""

from typing import Annotated

from msgspec import Meta, Raw, Struct

from borough.core.clock import rfc3339
from borough.http.governance.common import AGENT_ERRORS, LEDGER_ERRORS, agent_id, asker, parse_agent
from borough.http.operations import Access, Answer, Call, Operation, Reply

Pattern = Annotated[str, Meta(min_length=1, max_length=256, description="`*` within a segment, `**` across")]
TOPIC_ERRORS = {"invalid_topic": 400, "reserved_topic": 403, "payload_too_long": 413, "too_many_subscriptions": 409}


class BusPost(Struct, kw_only=True, forbid_unknown_fields=True):
    """A message to be published."""

    topic: Annotated[str, Meta(min_length=1, max_length=256)]
    payload: Raw
    agent_id: str | None = None
    """In whose name; the caller's own by default."""


class BusPosted(Struct, kw_only=True):
    """Where a message went."""

    mailboxes: int


class BusMessageView(Struct, kw_only=True):
    """A message."""

    topic: str
    payload: Raw
    published_at: str
    from_agent_id: str | None


class Mailbox(Struct, kw_only=True):
    """What was in a mailbox."""

    messages: list[BusMessageView]
    dropped: int
    """How many older messages were lost since it was last emptied."""


class Subscription(Struct, kw_only=True, forbid_unknown_fields=True):
    """What an agent wants to hear."""

    pattern: Pattern


class UnsubscribeQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    pattern: Pattern


async def publish(call: Call) -> BusPosted:
    body: BusPost = call.body
    author = None if body.agent_id is None else parse_agent(body.agent_id)
    payload = bytes(body.payload).decode()
    return BusPosted(mailboxes=await call.state.bus.publish(asker(call), body.topic, payload, agent_id=author))


async def subscriptions(call: Call) -> list[str]:
    return list(await call.state.bus.subscriptions(asker(call), agent_id(call)))


async def subscribe(call: Call) -> Reply:
    await call.state.bus.subscribe(asker(call), agent_id(call), call.body.pattern)
    return Reply(status=204)


async def unsubscribe(call: Call) -> Reply:
    await call.state.bus.unsubscribe(asker(call), agent_id(call), call.query.pattern)
    return Reply(status=204)


async def poll(call: Call) -> Mailbox:
    mail = await call.state.bus.poll(asker(call), agent_id(call))
    messages = [
        BusMessageView(
            topic=message.topic,
            payload=Raw(message.payload.encode()),
            published_at=rfc3339(message.published_at),
            from_agent_id=message.from_agent_id,
        )
        for message in mail.messages
    ]
    return Mailbox(messages=messages, dropped=mail.dropped)


OPERATIONS = (
    Operation(
        method="POST",
        path="/bus/messages",
        handler=publish,
        access=Access.CALLER,
        summary="Publish a message under a topic",
        tag="bus",
        body=BusPost,
        answers=(Answer(status=202, body=BusPosted, description="in the mailboxes of those who listen"),),
        errors={**AGENT_ERRORS, **LEDGER_ERRORS, **TOPIC_ERRORS},
    ),
    Operation(
        method="GET",
        path="/agents/{id}/subscriptions",
        handler=subscriptions,
        access=Access.CALLER,
        summary="What an agent listens to",
        tag="bus",
        answers=(Answer(status=200, body=list[str], description="patterns, in order"),),
        errors=AGENT_ERRORS,
    ),
    Operation(
        method="PUT",
        path="/agents/{id}/subscriptions",
        handler=subscribe,
        access=Access.CALLER,
        summary="Listen to the topics of a pattern",
        tag="bus",
        body=Subscription,
        answers=(Answer(status=204, body=None, description="from now on"),),
        errors={**AGENT_ERRORS, **LEDGER_ERRORS, **TOPIC_ERRORS},
    ),
    Operation(
        method="DELETE",
        path="/agents/{id}/subscriptions",
        handler=unsubscribe,
        access=Access.CALLER,
        summary="Listen no more to exactly this pattern",
        tag="bus",
        query=UnsubscribeQuery,
        answers=(Answer(status=204, body=None, description="no more"),),
        errors={**AGENT_ERRORS, **LEDGER_ERRORS, **TOPIC_ERRORS},
    ),
    Operation(
        method="POST",
        path="/agents/{id}/mailbox/poll",
        handler=poll,
        access=Access.CALLER,
        summary="Empty an agent's mailbox",
        tag="bus",
        secret_answer=True,  # it is never handed out twice, and so not kept for a repetition
        answers=(Answer(status=200, body=Mailbox, description="its messages, oldest first"),),
        errors={**AGENT_ERRORS, **LEDGER_ERRORS},
    ),
)
