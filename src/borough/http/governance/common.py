"""What the gateway's rows share: who asks, which agent the path means, times, and tables of errors."""

from datetime import datetime
from typing import Annotated
from urllib.parse import urlencode

import msgspec
from msgspec import Meta, Struct

from borough.core.clock import rfc3339
from borough.core.errors import Invalid, NotFound
from borough.core.ids import AgentId, canonical_id
from borough.core.paging import DEFAULT_LIMIT, MAX_LIMIT, PageRequest, decode_cursor, encode_cursor
from borough.governance.ledger import Via
from borough.governance.services.asking import Asker
from borough.governance.tokens import Caller
from borough.http.operations import Call

Limit = Annotated[int, Meta(ge=1, le=MAX_LIMIT)]

REFUSALS = {"scope_missing": 403, "denied": 403, "not_related": 403}
AGENT_ERRORS = {**REFUSALS, "agent_not_found": 404}
LEDGER_ERRORS = {"ledger_unavailable": 503}


class PageQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    limit: Limit = DEFAULT_LIMIT
    cursor: str | None = None


def page_request(query: PageQuery) -> PageRequest:
    """Return the page that was asked for; raises ``Invalid`` (``invalid_cursor``)."""
    return PageRequest(limit=query.limit, after=decode_cursor(query.cursor) if query.cursor else "")


def next_link(query: Struct, after: str | None) -> dict[str, str]:
    """Return the header that leads to the next page with the same filters, if there is one (RFC 8288)."""
    if after is None:
        return {}
    defaults = {field.name: field.default for field in msgspec.structs.fields(query)}
    said = {name: value for name, value in msgspec.structs.asdict(query).items() if value and value != defaults[name]}
    said["cursor"] = encode_cursor(after)
    return {"link": f'<?{urlencode(said, doseq=True)}>; rel="next"'}


def note_read(call: Call, route: str) -> None:
    """Count a read; the hook that a surface hands to its table."""
    call.state.reads.note(asker(call), route)


def asker(call: Call) -> Asker:
    """Return who asks. The door is told by the wire that made the call."""
    caller = call.principal.caller
    if not isinstance(caller, Caller):
        raise TypeError("a route of the gateway needs a caller of governance")
    return Asker(
        caller=caller,
        via=Via(call.door),
        request_id=call.request_id,
        operation_key=call.operation_key,
        trace_id=call.trace_id,
    )


def agent_id(call: Call, name: str = "id") -> AgentId:
    """Return the agent that the path names; what is no UUID is no agent either.

    Raises:
        NotFound: it cannot be one (``agent_not_found``).
    """
    return parse_agent(call.path[name])


def optional_agent_id(text: str | None) -> AgentId | None:
    """Return the agent that a query names, if it names one; raises as ``agent_id`` does."""
    return None if text is None else parse_agent(text)


def parse_agent(text: str) -> AgentId:
    """Return the agent that ``text`` names; raises ``NotFound`` (``agent_not_found``)."""
    try:
        return AgentId(canonical_id(text))
    except ValueError:
        raise NotFound(
            f"agent not found: {text[:80]}", code="agent_not_found", resolution="give the agent's whole id, a UUID"
        ) from None


def parse_moment(text: str | None, name: str) -> datetime | None:
    """Return a time of a query (RFC 3339); a space stands for the ``+`` that forms turn into one.

    Raises:
        Invalid: it is none (``invalid_query``).
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text.strip().replace(" ", "+"))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise Invalid(
            f"{name} is not a time",
            code="invalid_query",
            reason="a time is written as RFC 3339 has it, with its offset",
            resolution="write it as 2026-01-01T00:00:00Z",
        )
    return moment


def moment(at: datetime | None) -> str | None:
    """Return a time as it goes over the wire."""
    return None if at is None else rfc3339(at)
