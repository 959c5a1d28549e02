"""Memory: what agents keep under keys beyond their run."""

from borough.core.errors import Conflict
from borough.http.governance.common import AGENT_ERRORS, LEDGER_ERRORS, agent_id, asker, next_link
from borough.http.governance.values import (
    READ_ERRORS,
    WRITE_ERRORS,
    KeysQuery,
    Value,
    ValueWrite,
    condition,
    keys_page,
    refined,
    shown,
    written,
)
from borough.http.operations import Access, Answer, Call, Operation, Reply

KEY_IN_PATH = "The key is the rest of the path: its slashes may be encoded or not."


async def read(call: Call) -> Reply:
    return shown(await call.state.memory.read(asker(call), agent_id(call), call.path["key"]))


async def write(call: Call) -> Reply:
    who, agent, key = asker(call), agent_id(call), call.path["key"]
    return await written(call, lambda new: call.state.memory.write(who, agent, key, new))


async def delete(call: Call) -> Reply:
    expected = condition(call)
    try:
        await call.state.memory.delete(asker(call), agent_id(call), call.path["key"], expected_version=expected)
    except Conflict as conflict:
        raise refined(conflict, expected) from None
    return Reply(status=204)


async def keys(call: Call) -> Reply:
    query: KeysQuery = call.query
    found = await call.state.memory.keys(asker(call), agent_id(call), query.pattern, keys_page(query))
    return Reply(status=200, body=list(found.items), headers=next_link(query, found.after))


OPERATIONS = (
    Operation(
        method="GET",
        path="/agents/{id}/memory",
        handler=keys,
        access=Access.CALLER,
        summary="The keys under which an agent keeps something, as far as the caller may read them",
        tag="memory",
        query=KeysQuery,
        answers=(Answer(status=200, body=list[str], description="keys, in order; `Link` leads to more"),),
        errors=AGENT_ERRORS,
    ),
    Operation(
        method="GET",
        path="/agents/{id}/memory/{key...}",
        handler=read,
        access=Access.CALLER,
        summary="What an agent keeps under a key",
        description=KEY_IN_PATH,
        tag="memory",
        answers=(Answer(status=200, body=Value, description="the value, its version as `ETag`"),),
        errors={**AGENT_ERRORS, **READ_ERRORS},
    ),
    Operation(
        method="PUT",
        path="/agents/{id}/memory/{key...}",
        handler=write,
        access=Access.CALLER,
        summary="Keep a value under a key",
        description=f"{KEY_IN_PATH} `If-Match` or `expected_version`: only over that version; `If-None-Match: *`: new.",
        tag="memory",
        body=ValueWrite,
        answers=(
            Answer(status=200, body=Value, description="written over an older one"),
            Answer(status=201, body=Value, description="new"),
        ),
        errors={**AGENT_ERRORS, **LEDGER_ERRORS, **WRITE_ERRORS},
    ),
    Operation(
        method="DELETE",
        path="/agents/{id}/memory/{key...}",
        handler=delete,
        access=Access.CALLER,
        summary="Forget what is under a key",
        description=KEY_IN_PATH,
        tag="memory",
        answers=(Answer(status=204, body=None, description="it is gone"),),
        errors={**AGENT_ERRORS, **LEDGER_ERRORS, **READ_ERRORS, **WRITE_ERRORS},
    ),
)
