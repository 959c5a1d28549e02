"""The sockets' messages over HTTP: the same dispatcher, told of another wire."""

from collections.abc import Awaitable, Callable

import msgspec

from borough.governance.ledger import Via
from borough.governance.tokens import Caller
from borough.http.operations import Call
from borough.ipc.dispatch import Dispatcher, Speaker
from borough.ipc.frames import BadFrame, message_of
from borough.ipc.rows import invalid


def over_http(dispatcher: Dispatcher) -> Callable[[Call], Awaitable[object]]:
    """Return what answers a message that came in a request, as its agent."""

    async def answer(call: Call) -> object:
        try:
            name, fields = message_of(msgspec.json.encode(call.body))
        except BadFrame as bad:
            raise invalid(str(bad)) from None
        caller = call.principal.caller
        agent_id = caller.agent_id if isinstance(caller, Caller) else None
        speaker = Speaker(principal=call.principal, agent_id=agent_id)
        return await dispatcher.answer(speaker, name, fields, disconnected=call.disconnected, door=Via.HTTP)

    return answer
