"""The document of a surface's operations, served with it: ``/openapi.json`` and a page to read at ``/docs``."""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version

from starlette.responses import HTMLResponse, RedirectResponse

from borough.http.openapi import Document, document, to_json
from borough.http.operations import Access, Answer, Call, Operation, Response
from borough.http.reference import POLICY, page
from borough.http.town.routes import OPERATIONS

TITLE = "Borough: the town"
DESCRIPTION = "Work for agents: tasks, backlog, inboxes, leases, the autoscaling signal."
TAGS = {
    "public": "What anybody may ask: is it alive, is it ready, how busy is it.",
    "town": "The town as a whole.",
    "tasks": "What is to be done, where it stands, how it ended.",
    "backlog": "Work that waits for whoever is free and fits.",
    "messages": "What is said to agents and to the supervisor.",
    "agents": "Who does the work: started, steered, ended.",
    "workers": "The routes of the programs that serve agents.",
    "recovery": "What was left behind, found and moved on.",
    "events": "What happened, and what happens.",
}
PATH_PARAMETERS = {
    "agent": "An agent: id, name, nickname, label, short id, or 'supervisor'.",
    "task_id": "A task's id, a UUID.",
    "message_id": "A message's id, a UUID.",
}


def town_document() -> Document:
    """Return the document of everything that ``townhall`` serves."""
    operations = (*OPERATIONS, *page_operations(OPERATIONS))
    return _describe(operations)


def _describe(operations: Sequence[Operation]) -> Document:
    return document(
        operations,
        title=TITLE,
        version=version("borough"),
        description=DESCRIPTION,
        tags=TAGS,
        path_parameters=PATH_PARAMETERS,
    )


def page_operations(operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """Return the operations that serve the document of ``operations`` and of themselves."""

    @cache
    def described() -> Document:
        return _describe((*operations, *rows))

    @cache
    def as_json() -> bytes:
        return to_json(described())

    @cache
    def as_page() -> str:
        return page(described())

    async def openapi(_call: Call) -> Response:
        return Response(as_json(), media_type="application/json")

    async def docs(_call: Call) -> Response:
        return HTMLResponse(as_page(), headers={"content-security-policy": POLICY})

    async def home(_call: Call) -> Response:
        return RedirectResponse("/docs", status_code=302)

    rows = (
        Operation(
            method="GET",
            path="/openapi.json",
            handler=openapi,
            access=Access.PUBLIC,
            summary="This document",
            tag="public",
            answers=(Answer(status=200, body=dict, description="OpenAPI 3.1"),),
            metered=False,
        ),
        Operation(
            method="GET",
            path="/docs",
            handler=docs,
            access=Access.PUBLIC,
            summary="This document, to read",
            tag="public",
            answers=(Answer(status=200, body=str, description="a page", content_type="text/html; charset=utf-8"),),
            metered=False,
        ),
        Operation(
            method="GET",
            path="/",
            handler=home,
            access=Access.PUBLIC,
            summary="To the page",
            tag="public",
            answers=(Answer(status=302, body=None, description="to /docs"),),
            metered=False,
        ),
    )
    return rows
