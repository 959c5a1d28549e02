"""Observations: what agents say they did and saw."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from borough.core.clock import rfc3339
from borough.governance.observations import (
    DEFAULT_LIMIT,
    MOST_LIMIT,
    NewObservation,
    Observation,
    ObservationFilter,
)
from borough.http.governance.audit import Moment
from borough.http.governance.common import AGENT_ERRORS, LEDGER_ERRORS, agent_id, asker, parse_moment
from borough.http.operations import Access, Answer, Call, Operation


class ObservationQuery(Struct, kw_only=True):
    since: Moment | None = None
    until: Moment | None = None
    keyword: Annotated[str, Meta(max_length=256, description="a part of action or result, in any case")] | None = None
    tag: Annotated[str, Meta(max_length=64)] | None = None
    limit: Annotated[int, Meta(ge=1, le=MOST_LIMIT)] = DEFAULT_LIMIT


class ObservationAppend(Struct, kw_only=True, forbid_unknown_fields=True):
    """What an agent says."""

    action: str
    result: str = ""
    tags: list[str] = []
    metadata: dict[str, Any] | None = None


class ObservationEntry(Struct, kw_only=True):
    """What an agent said, bound to what it said before."""

    id: str
    timestamp: str
    agent_id: str
    action: str
    result: str
    tags: list[str]
    metadata: dict[str, Any] | None
    prev_hash: str
    hash: str


async def find(call: Call) -> list[ObservationEntry]:
    query: ObservationQuery = call.query
    wanted = ObservationFilter(
        since=parse_moment(query.since, "since"),
        until=parse_moment(query.until, "until"),
        keyword=query.keyword,
        tag=query.tag,
        limit=query.limit,
    )
    return [_entry(each) for each in await call.state.observations.find(asker(call), agent_id(call), wanted)]


async def append(call: Call) -> ObservationEntry:
    body: ObservationAppend = call.body
    new = NewObservation(action=body.action, result=body.result, tags=tuple(body.tags), metadata=body.metadata)
    return _entry(await call.state.observations.append(asker(call), agent_id(call), new))


def _entry(said: Observation) -> ObservationEntry:
    return ObservationEntry(
        id=said.id,
        timestamp=rfc3339(said.at),
        agent_id=said.agent_id,
        action=said.action,
        result=said.result,
        tags=list(said.tags),
        metadata=dict(said.metadata) if said.metadata is not None else None,
        prev_hash=said.prev_hash,
        hash=said.hash,
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/agents/{id}/observations",
        handler=find,
        access=Access.CALLER,
        summary="What an agent said it did and saw",
        description="The newest that match, oldest first.",
        tag="observations",
        query=ObservationQuery,
        answers=(Answer(status=200, body=list[ObservationEntry], description="observations"),),
        errors=AGENT_ERRORS,
    ),
    Operation(
        method="POST",
        path="/agents/{id}/observations",
        handler=append,
        access=Access.CALLER,
        summary="Say what was done and seen",
        description="It is bound to what the agent said before, and cannot be changed afterwards.",
        tag="observations",
        body=ObservationAppend,
        answers=(Answer(status=201, body=ObservationEntry, description="kept"),),
        errors={**AGENT_ERRORS, **LEDGER_ERRORS, "invalid_observation": 400, "not_canonical": 400},
    ),
)
