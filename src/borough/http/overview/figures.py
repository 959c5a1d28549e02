"""How busy everything was: ``/v1/figures``."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from borough.auth.scopes import Scope
from borough.core.clock import rfc3339
from borough.http.operations import Answer, Call, Operation
from borough.http.overview.services import OverviewServices, visible
from borough.http.town.wire import Timestamp
from borough.overview.occurrences import Context
from borough.overview.services.figures import EVERY_S, Figures


class FiguresQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    since: Annotated[datetime, Meta(tz=True, description="only what is newer")] | None = None


class FiguresView(Struct, kw_only=True):
    """One reading; ``null`` where there was none, or the caller does not see the context."""

    at: Timestamp
    waiting: Annotated[int | None, Meta(description="tasks that wait")]
    underway: Annotated[int | None, Meta(description="tasks that are worked on")]
    cpu: Annotated[float | None, Meta(description="of all processors the share that is promised, from 0 to 1")]
    memory: Annotated[float | None, Meta(description="of all memory the share that is promised, from 0 to 1")]


class FigureList(Struct, kw_only=True):
    every_s: int
    figures: list[FiguresView]


async def figures(call: Call) -> object:
    query: FiguresQuery = call.query
    services: OverviewServices = call.state
    houses = Context.FLEET in visible(call.principal)
    return FigureList(
        every_s=EVERY_S, figures=[_view(one, houses=houses) for one in services.figures.since(query.since)]
    )


def _view(one: Figures, *, houses: bool) -> FiguresView:
    return FiguresView(
        at=rfc3339(one.at),
        waiting=one.waiting,
        underway=one.underway,
        cpu=one.cpu if houses else None,
        memory=one.memory if houses else None,
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/figures",
        handler=figures,
        access=Scope.READ,
        summary="How busy everything was in the last hour",
        description="A reading every few seconds, oldest first, since the server was started; they are kept in memory.",
        tag="figures",
        query=FiguresQuery,
        answers=(Answer(status=200, body=FigureList, description="at most 720 readings"),),
        errors={"invalid_request": 400},
    ),
)
