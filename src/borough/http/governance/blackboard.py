"""The blackboard: values that all agents share until the daemon ends."""

from typing import Annotated, Any

from msgspec import Meta, Raw, Struct

from borough.governance.services.blackboard import Swap
from borough.http.governance.common import LEDGER_ERRORS, REFUSALS, asker, next_link
from borough.http.governance.memory import KEY_IN_PATH
from borough.http.governance.values import (
    READ_ERRORS,
    WRITE_ERRORS,
    KeysQuery,
    Value,
    ValueWrite,
    keys_page,
    shown,
    written,
)
from borough.http.operations import Access, Answer, Call, Operation, Reply

NULL = b"null"


class ValueSwap(Struct, kw_only=True, forbid_unknown_fields=True):
    """A value to be written if another one is there."""

    expected: Any
    """What has to be there; `null`: nothing."""
    new_value: Raw
    """`null`: what is there is deleted."""
    ttl_secs: Annotated[int, Meta(ge=1)] | None = None


async def read(call: Call) -> Reply:
    return shown(await call.state.blackboard.read(asker(call), call.path["key"]))


async def write(call: Call) -> Reply:
    who, key = asker(call), call.path["key"]
    return await written(call, lambda new: call.state.blackboard.write(who, key, new))


async def swap(call: Call) -> Reply:
    body: ValueSwap = call.body
    new = bytes(body.new_value)
    wanted = Swap(expected=body.expected, new=None if new == NULL else new.decode(), ttl_s=body.ttl_secs)
    entry = await call.state.blackboard.swap(asker(call), call.path["key"], wanted)
    return Reply(status=204) if entry is None else shown(entry)


async def delete(call: Call) -> Reply:
    await call.state.blackboard.delete(asker(call), call.path["key"])
    return Reply(status=204)


async def keys(call: Call) -> Reply:
    query: KeysQuery = call.query
    found = await call.state.blackboard.keys(asker(call), query.pattern, keys_page(query))
    return Reply(status=200, body=list(found.items), headers=next_link(query, found.after))


OPERATIONS = (
    Operation(
        method="GET",
        path="/blackboard",
        handler=keys,
        access=Access.CALLER,
        summary="The keys of the blackboard that the caller may read",
        tag="blackboard",
        query=KeysQuery,
        answers=(Answer(status=200, body=list[str], description="keys, in order; `Link` leads to more"),),
        errors=REFUSALS,
    ),
    Operation(
        method="GET",
        path="/blackboard/{key...}",
        handler=read,
        access=Access.CALLER,
        summary="What is on the blackboard under a key",
        description=KEY_IN_PATH,
        tag="blackboard",
        answers=(Answer(status=200, body=Value, description="the value, its version as `ETag`"),),
        errors={**REFUSALS, **READ_ERRORS},
    ),
    Operation(
        method="PUT",
        path="/blackboard/{key...}",
        handler=write,
        access=Access.CALLER,
        summary="Write on the blackboard",
        description=KEY_IN_PATH,
        tag="blackboard",
        body=ValueWrite,
        answers=(
            Answer(status=200, body=Value, description="written over an older one"),
            Answer(status=201, body=Value, description="new"),
        ),
        errors={**REFUSALS, **LEDGER_ERRORS, **WRITE_ERRORS},
    ),
    Operation(
        method="POST",
        path="/blackboard/{key...}",
        handler=swap,
        access=Access.CALLER,
        summary="Write on the blackboard if the expected value is there",
        description=f"{KEY_IN_PATH} Where another value is there, it is told in `details`, to whom may read it.",
        tag="blackboard",
        body=ValueSwap,
        answers=(
            Answer(status=200, body=Value, description="written"),
            Answer(status=204, body=None, description="deleted"),
        ),
        errors={**REFUSALS, **LEDGER_ERRORS, **WRITE_ERRORS, "value_mismatch": 409},
    ),
    Operation(
        method="DELETE",
        path="/blackboard/{key...}",
        handler=delete,
        access=Access.CALLER,
        summary="Wipe what is under a key; where nothing is, nothing happens",
        description=KEY_IN_PATH,
        tag="blackboard",
        answers=(Answer(status=204, body=None, description="nothing is there"),),
        errors={**REFUSALS, **LEDGER_ERRORS},
    ),
)
