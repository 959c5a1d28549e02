"""``/agents/self/messages``: the sockets' messages for agents that reach the daemon over HTTP alone, as from a machine.

Who asks is the agent that the key is bound to; the message names what is asked, as on the socket.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from borough.core.errors import Conflict, Unavailable
from borough.governance.tokens import Caller
from borough.http.operations import Access, Answer, Call, Operation, Response

PATH = "/agents/self/messages"
MOST_BYTES = 16 * 1_048_576
"""As of a frame."""


@dataclass(slots=True)
class MessageDoor:
    """What answers messages; the sockets' dispatcher, put in once there is one."""

    answer: Callable[[Call], Awaitable[object]] | None = None


async def ask(call: Call) -> object:
    caller = call.principal.caller
    if not isinstance(caller, Caller) or caller.is_unbound:
        raise Conflict(
            "this credential speaks for no agent",
            code="no_agent",
            reason="messages are those of one agent, the one that the key is bound to",
            resolution="make a key for the agent: ash api-key create --name NAME --agent-id UUID --role agent",
        )
    door: MessageDoor = call.state.messages
    if door.answer is None:
        raise Unavailable("messages are not answered here", code="not_available", resolution="ask the routes: /docs")
    return Response(msgspec.json.encode(await door.answer(call)), media_type="application/json")


OPERATIONS = (
    Operation(
        method="POST",
        path=PATH,
        handler=ask,
        access=Access.CALLER,
        summary="Ask as an agent does on its socket",
        description=(
            'The body is one message, `"Ping"` or `{"ToolInvoke": {…}}`, without a frame and without `Hello`; the key '
            "says which agent asks. The answer is a message as well, refusals too (`Error`)."
        ),
        tag="agents",
        body=Any,
        streaming=True,
        body_limit_bytes=MOST_BYTES,
        answers=(Answer(status=200, body=Any, description="the message that answers"),),
        errors={"no_agent": 409, "not_available": 503, "invalid_request": 400},
    ),
)
