"""Whatever a word names: ``/v1/explain/{thing}``, ``/v1/search``."""

from typing import Annotated

from msgspec import Meta, Struct

from borough.auth.scopes import Scope
from borough.core.clock import rfc3339
from borough.http.operations import Answer, Call, Operation
from borough.http.overview.services import OverviewServices, visible
from borough.http.overview.wire import Subject, subject_view
from borough.http.town.wire import Timestamp
from borough.overview import explaining

MOST_FOUND = 100


class RelatedThing(Subject, kw_only=True, omit_defaults=True):
    relation: str


class Line(Struct, kw_only=True):
    at: Timestamp
    what: str
    by: str | None


class Explained(Struct, kw_only=True):
    """What, why, since when, what next."""

    kind: str
    id: str
    name: str | None
    state: str
    why: str
    since: Timestamp
    next: list[str]
    related: list[RelatedThing]
    history: Annotated[list[Line], Meta(description="the last of it, oldest first")]


class SearchQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    q: Annotated[str, Meta(min_length=1, max_length=200)]
    limit: Annotated[int, Meta(ge=1, le=MOST_FOUND)] = 20


class Found(Subject, kw_only=True, omit_defaults=True):
    state: str = ""


class FoundList(Struct, kw_only=True):
    found: list[Found]
    count: int


async def explain(call: Call) -> object:
    services: OverviewServices = call.state
    told = await services.explain.explain(call.path["thing"], visible(call.principal))
    return Explained(
        kind=told.subject.kind,
        id=told.subject.id,
        name=told.subject.name,
        state=told.state,
        why=told.why,
        since=rfc3339(told.since),
        next=list(told.next),
        related=[_related(each) for each in told.related],
        history=[Line(at=rfc3339(each.at), what=each.what, by=each.by) for each in told.history],
    )


async def search(call: Call) -> object:
    services: OverviewServices = call.state
    matches = await services.explain.search(call.query.q, visible(call.principal), limit=call.query.limit)
    found = [_found(match) for match in matches]
    return FoundList(found=found, count=len(found))


def _related(related: explaining.Related) -> RelatedThing:
    about = subject_view(related.subject)
    return RelatedThing(kind=about.kind, id=about.id, name=about.name, relation=related.relation)


def _found(match: explaining.Match) -> Found:
    about = subject_view(match.subject)
    return Found(kind=about.kind, id=about.id, name=about.name, state=match.state)


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/explain/{thing}",
        handler=explain,
        access=Scope.READ,
        summary="Why a thing stands where it stands, since when, and what comes next",
        description=(
            "A task, agent, run, machine, environment, host, request for agreement or entry of the ledger, by id, name "
            "or the first four characters or more of an id; an entry also by its number, as `#12`."
        ),
        tag="explain",
        answers=(Answer(status=200, body=Explained, description="what, why, since when, what next"),),
        errors={"thing_not_found": 404, "ambiguous": 409},
    ),
    Operation(
        method="GET",
        path="/v1/search",
        handler=search,
        access=Scope.READ,
        summary="Things whose id or name is a word, or begins with it",
        description="Of tasks also those whose words hold it: among the newest 500, which are all that is looked at.",
        tag="explain",
        query=SearchQuery,
        answers=(Answer(status=200, body=FoundList, description="exact ones first"),),
    ),
)
