"""The ledger: an agent's trail, all entries, an export."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from starlette.responses import StreamingResponse

from borough.core.errors import NotFound
from borough.core.paging import DEFAULT_LIMIT, MAX_LIMIT, PageRequest, decode_cursor
from borough.governance.actions import meant_by
from borough.governance.ledger import Sealed
from borough.governance.ports.ledger import EntryFilter
from borough.governance.services.audit import DEFAULT_TRAIL, LONGEST_TRAIL, AuditService
from borough.http.governance.common import (
    AGENT_ERRORS,
    LEDGER_ERRORS,
    REFUSALS,
    agent_id,
    asker,
    next_link,
    parse_agent,
    parse_moment,
)
from borough.http.operations import Access, Answer, Call, Operation, Reply

MOST_DIGITS = 18
ActionWord = Annotated[str, Meta(min_length=1, max_length=64, description="an action, in any of its names")]
OutcomeWord = Literal["success", "denied", "failure", "pending", "timeout", "unknown"]
Moment = Annotated[str, Meta(max_length=64, description="RFC 3339; the moment itself is included")]


class AuditEntry(Struct, kw_only=True):
    """One entry of the ledger. It goes over the wire as the very bytes that were hashed."""

    id: str
    agent_id: str
    action: str
    timestamp: str
    prev_hash: str
    hash: str
    seq: int
    agent_name: str
    detail: str
    outcome: OutcomeWord
    kind: Literal["intent", "outcome", "event"]
    via: str
    prev_leaf: str
    on_behalf_of: str | None = None
    intent_id: str | None = None
    run_id: str | None = None
    token_name: str | None = None
    request_id: str | None = None
    trace_id: str | None = None
    decision_rule: str | None = None
    policy_id: str | None = None
    input_sha256: str | None = None
    data: dict[str, Any] = {}


class TrailQuery(Struct, kw_only=True):
    limit: Annotated[int, Meta(ge=1, le=LONGEST_TRAIL)] = DEFAULT_TRAIL
    since: Moment | None = None
    until: Moment | None = None
    action: list[ActionWord] = []
    outcome: list[OutcomeWord] = []


class AuditQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT
    cursor: str | None = None
    order: Annotated[
        Literal["oldest", "newest"],
        Meta(description="page from the oldest on, or from the newest back; within a page the oldest is first"),
    ] = "oldest"
    agent: Annotated[str, Meta(max_length=64, description="an agent's id")] | None = None
    since: Moment | None = None
    until: Moment | None = None
    action: list[ActionWord] = []
    outcome: list[OutcomeWord] = []


class ExportQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    first: Annotated[int, Meta(ge=0, description="the number of the first entry")] | None = None


async def trail(call: Call) -> Reply:
    query: TrailQuery = call.query
    found = await call.state.audit.trail(asker(call), agent_id(call), wanted(query), limit=query.limit)
    return Reply(status=200, body=as_array(found))


async def entries(call: Call) -> Reply:
    query: AuditQuery = call.query
    filter_ = wanted(query, agent=query.agent)
    page = PageRequest(limit=query.limit, after=decode_cursor(query.cursor) if query.cursor else "")
    audit: AuditService = call.state.audit
    read = audit.before if query.order == "newest" else audit.find
    found = await read(asker(call), filter_, page)
    return Reply(status=200, body=as_array(found.items), headers=next_link(query, found.after))


async def entry(call: Call) -> Reply:
    found = await call.state.audit.entry(asker(call), parse_seq(call.path["seq"]))
    return Reply(status=200, body=found.canonical)


def parse_seq(word: str) -> int:
    """Return an entry's number from a path; raises ``NotFound``."""
    if not (word.isascii() and word.isdigit() and len(word) <= MOST_DIGITS):
        raise NotFound(
            f"{word[:40]!r} is not the number of an entry",
            code="entry_not_found",
            resolution="take a seq of GET /audit",
        )
    return int(word)


async def export(call: Call) -> StreamingResponse:
    made = await call.state.audit.export(asker(call), first_seq=call.query.first)
    name = f"ledger-{made.first_seq}-{made.size}.borough"
    return StreamingResponse(
        made.lines, media_type="application/x-ndjson", headers={"content-disposition": f'attachment; filename="{name}"'}
    )


def wanted(query: TrailQuery | AuditQuery, *, agent: str | None = None) -> EntryFilter:
    """Return the filter that a query says."""
    return EntryFilter(
        agents=None if agent is None else frozenset({parse_agent(agent)}),
        actions=frozenset(name for word in query.action for name in meant_by(word)),
        outcomes=frozenset(query.outcome),
        since=parse_moment(query.since, "since"),
        until=parse_moment(query.until, "until"),
    )


def as_array(found: tuple[Sealed, ...]) -> bytes:
    """Return entries as a JSON array of the very bytes that were hashed."""
    return b"[" + b",".join(entry.canonical for entry in found) + b"]"


OPERATIONS = (
    Operation(
        method="GET",
        path="/agents/{id}/audit",
        handler=trail,
        access=Access.CALLER,
        summary="What an agent did, and what was done for it",
        description="The newest entries that match, oldest first. Agents that have ended stay readable.",
        tag="audit",
        query=TrailQuery,
        answers=(Answer(status=200, body=list[AuditEntry], description="entries"),),
        errors={**AGENT_ERRORS, **LEDGER_ERRORS},
    ),
    Operation(
        method="GET",
        path="/audit",
        handler=entries,
        access=Access.CALLER,
        summary="What happened, for all agents that the caller may see",
        description=(
            "Pages from the oldest entry on, or with `order=newest` from the newest back; within each the oldest is "
            "first. The header `Link` leads to the next page."
        ),
        tag="audit",
        query=AuditQuery,
        answers=(Answer(status=200, body=list[AuditEntry], description="entries"),),
        errors={**REFUSALS, **LEDGER_ERRORS, "agent_not_found": 404},
    ),
    Operation(
        method="GET",
        path="/audit/entries/{seq}",
        handler=entry,
        access=Access.CALLER,
        summary="One entry of the ledger, by its number",
        tag="audit",
        answers=(Answer(status=200, body=AuditEntry, description="the entry"),),
        errors={**REFUSALS, **LEDGER_ERRORS, "entry_not_found": 404},
    ),
    Operation(
        method="GET",
        path="/audit/export",
        handler=export,
        access=Access.CALLER,
        summary="The whole ledger as a file that proves itself",
        description="`borough verify` reads it. It needs the right to read everything.",
        tag="audit",
        query=ExportQuery,
        streaming=True,
        answers=(Answer(status=200, body=str, description="the export", content_type="application/x-ndjson"),),
        errors={**REFUSALS, **LEDGER_ERRORS, "entry_not_found": 404},
    ),
)
