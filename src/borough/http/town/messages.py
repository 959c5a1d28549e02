"""Messages and inboxes: ``/v1/messages/send`` and ``/v1/agents/{agent}/inbox…``."""

from borough.auth.scopes import Scope
from borough.core.ids import MessageId
from borough.http.operations import Answer, ByAttempt, Call, Operation
from borough.http.town import callers, render, views, wire
from borough.http.town.common import AGENT_ERRORS, RUNNING_AGENT_ERRORS


async def send(call: Call) -> object:
    body: wire.SendRequest = call.body
    message = await call.state.messages.send(
        message_id=MessageId(call.operation_key),
        to=body.to,
        text=body.message,
        kind=body.kind,
        sender=callers.sender(call, body.from_),
        urgent=body.urgent,
    )
    return wire.Sent(message_id=message.id, to_agent=message.to, urgent=message.urgent)


async def peek(call: Call) -> object:
    agent = call.path["agent"]
    return render.inbox(agent, await call.state.messages.peek(agent))


async def read(call: Call) -> object:
    return render.message_view(await call.state.messages.read(call.path["agent"], callers.message_id(call)))


async def acknowledge(call: Call) -> object:
    body = call.body or wire.AcknowledgeRequest()
    ids = None if body.message_ids is None else [MessageId(text) for text in body.message_ids]
    return views.Acknowledged(acknowledged=await call.state.messages.acknowledge(call.path["agent"], ids))


_INBOX = (Answer(status=200, body=wire.InboxList, description="nothing is consumed"),)

OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/messages/send",
        handler=send,
        access=Scope.WRITE,
        summary="Send a message",
        description="`task` and `query` to an agent are work: leased, retried and tracked under the message's id.",
        tag="messages",
        body=wire.SendRequest,
        by_attempt=ByAttempt.LIVE,
        answers=(Answer(status=201, body=wire.Sent, description="it is in the inbox"),),
        errors={
            **RUNNING_AGENT_ERRORS,
            "text_too_long": 422,
            "unknown_kind": 422,
            "sender_not_found": 404,
            "not_your_name": 403,
        },
    ),
    *(
        Operation(
            method=method,
            path="/v1/agents/{agent}/inbox",
            handler=peek,
            access=Scope.READ,
            summary="Look into an inbox",
            tag="messages",
            answers=_INBOX,
            errors=AGENT_ERRORS,
        )
        for method in ("GET", "POST")
    ),
    Operation(
        method="GET",
        path="/v1/agents/{agent}/inbox/{message_id}",
        handler=read,
        access=Scope.READ,
        summary="Read one message whole",
        tag="messages",
        answers=(Answer(status=200, body=views.MessageView, description="the message"),),
        errors={**AGENT_ERRORS, "message_not_found": 404, "invalid_message_id": 400},
    ),
    Operation(
        method="POST",
        path="/v1/agents/{agent}/inbox/ack",
        handler=acknowledge,
        access=Scope.WRITE,
        summary="Take mail out of an inbox",
        tag="messages",
        body=wire.AcknowledgeRequest,
        body_optional=True,
        by_attempt=ByAttempt.LIVE,
        answers=(Answer(status=200, body=views.Acknowledged, description="how many were taken out"),),
        errors={**AGENT_ERRORS, "message_is_work": 409},
    ),
)
