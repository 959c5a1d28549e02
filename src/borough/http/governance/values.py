"""Values under keys as they go over the wire: shared by memory and the blackboard."""

import re
from collections.abc import Awaitable, Callable
from typing import Annotated

from msgspec import Meta, Raw, Struct

from borough.core.clock import rfc3339
from borough.core.errors import Conflict, Invalid
from borough.core.paging import PageRequest, decode_cursor
from borough.governance.memory import MemoryEntry
from borough.governance.services.memory import NewValue
from borough.http.governance.common import Limit, moment
from borough.http.operations import Call, Reply

_ETAG = re.compile(r'"([0-9]{1,15})"\Z')
READ_ERRORS = {"key_not_found": 404}
WRITE_ERRORS = {
    "invalid_key": 400,
    "invalid_ttl": 400,
    "invalid_request": 400,
    "value_too_long": 413,
    "version_mismatch": 409,
    "precondition_failed": 412,
    "memory_full": 409,
}


class Value(Struct, kw_only=True):
    """A value with its version, which is also its `ETag`."""

    key: str
    value: Raw
    version: int
    expires_at: str | None
    updated_at: str


class ValueWrite(Struct, kw_only=True, forbid_unknown_fields=True):
    """A value to be written."""

    value: Raw
    ttl_secs: Annotated[int, Meta(ge=1, description="for how long it is kept; for good by default")] | None = None
    expected_version: Annotated[int, Meta(ge=0, description="0: nothing is there yet")] | None = None


class KeysQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    limit: Limit = 100
    cursor: str | None = None
    pattern: Annotated[str, Meta(max_length=512, description="`*` within a segment, `**` across")] | None = None


def keys_page(query: KeysQuery) -> PageRequest:
    """Return the page that was asked for."""
    return PageRequest(limit=query.limit, after=decode_cursor(query.cursor) if query.cursor else "")


def shown(entry: MemoryEntry, *, status: int = 200) -> Reply:
    """Return an entry as an answer."""
    value = Value(
        key=entry.key,
        value=Raw(entry.value.encode()),
        version=entry.version,
        expires_at=moment(entry.expires_at),
        updated_at=rfc3339(entry.updated_at),
    )
    return Reply(status=status, body=value, headers={"etag": f'"{entry.version}"'})


async def written(call: Call, write: Callable[[NewValue], Awaitable[MemoryEntry]]) -> Reply:
    """Write the body's value under the request's condition, and return what is there then."""
    body: ValueWrite = call.body
    given = condition(call)
    if given is not None and body.expected_version is not None and given != body.expected_version:
        raise _bad_condition("the header and expected_version say two things")
    new = NewValue(
        value=bytes(body.value).decode(),
        ttl_s=body.ttl_secs,
        expected_version=given if given is not None else body.expected_version,
    )
    entry = await kept_apart(given, write(new))
    return shown(entry, status=201 if entry.version == 1 else 200)


async def kept_apart(given: int | None, step: Awaitable[MemoryEntry]) -> MemoryEntry:
    """Await a step, and tell a condition of its headers that failed from one of its body (RFC 9110, 13.1)."""
    try:
        return await step
    except Conflict as conflict:
        raise refined(conflict, given) from None


def refined(conflict: Conflict, given: int | None) -> Conflict:
    """Return ``conflict`` as the failure of a header's condition, if there was one."""
    if given is None or conflict.code != "version_mismatch":
        return conflict
    return Conflict(
        conflict.message,
        code="precondition_failed",
        reason=conflict.reason,
        resolution=conflict.resolution,
        details=conflict.details,
    )


def condition(call: Call) -> int | None:
    """Return the version that the headers demand: 0 for nothing, ``None`` for no demand.

    Raises:
        Invalid: they demand something else (``invalid_request``).
    """
    match, none_match = call.headers.get("if-match"), call.headers.get("if-none-match")
    if match is not None and none_match is not None:
        raise _bad_condition("there are both If-Match and If-None-Match")
    if none_match is not None:
        if none_match.strip() != "*":
            raise _bad_condition("If-None-Match can only be *")
        return 0
    if match is None:
        return None
    version = _ETAG.match(match.strip())
    if version is None:
        raise _bad_condition("If-Match is not one version")
    return int(version[1])


def _bad_condition(reason: str) -> Invalid:
    return Invalid(
        "the condition cannot be read",
        code="invalid_request",
        reason=reason,
        resolution='send If-Match: "3" for a version, or If-None-Match: * where nothing may be there',
    )
