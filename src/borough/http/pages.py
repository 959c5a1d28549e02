"""The document of a surface's operations, served with it: ``/openapi.json`` and a page to read at ``/docs``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

from starlette.responses import HTMLResponse, RedirectResponse

from borough.http.openapi.description import document
from borough.http.openapi.documents import Document, to_json, to_yaml
from borough.http.openapi.wire import TOWN_WIRE, Wire
from borough.http.operations import Answer, Call, Handler, Operation, Response, open_to_all
from borough.http.reference import NO_OTHERS, POLICY, page

YAML = "application/yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a document says of itself, beside what follows from the operations."""

    title: str
    description: str
    tags: Mapping[str, str]
    path_parameters: Mapping[str, str]
    wire: Wire = TOWN_WIRE
    is_home: bool = True
    """Whether the first page of the port leads to the document's."""


def describe(operations: Sequence[Operation], about: About) -> Document:
    """Return the document of everything that a program serves which serves ``operations``."""
    return _describe((*operations, *page_operations(operations, about)), about)


def _describe(operations: Sequence[Operation], about: About) -> Document:
    return document(
        operations,
        title=about.title,
        version=version("borough"),
        description=about.description,
        tags=about.tags,
        path_parameters=about.path_parameters,
        wire=about.wire,
    )


def page_operations(
    operations: Sequence[Operation], about: About, *, under: str = "", others: Mapping[str, str] = NO_OTHERS
) -> tuple[Operation, ...]:
    """Return the operations that serve the document of ``operations`` and of themselves.

    ``under`` is what their paths begin with; ``others`` are the pages of the port's other documents, by their titles.
    """

    @cache
    def described() -> Document:
        return _describe((*operations, *rows), about)

    @cache
    def as_json() -> bytes:
        return to_json(described())

    @cache
    def as_yaml() -> str:
        return to_yaml(described())

    @cache
    def as_page() -> str:
        return page(described(), source=f"{under}/openapi.json", others=others)

    async def openapi(_call: Call) -> Response:
        return Response(as_json(), media_type="application/json")

    async def openapi_yaml(_call: Call) -> Response:
        return Response(as_yaml(), media_type=YAML)

    async def docs(_call: Call) -> Response:
        return HTMLResponse(as_page(), headers={"content-security-policy": POLICY})

    rows: tuple[Operation, ...] = (
        _page_row(f"{under}/openapi.json", openapi, "This document", dict, "application/json"),
        _page_row(f"{under}/openapi.yaml", openapi_yaml, "This document, as YAML", dict, YAML),
        _page_row(f"{under}/docs", docs, "This document, to read", str, "text/html; charset=utf-8"),
    )
    if about.is_home and not under:  # a port has one first page
        rows = (*rows, HOME)
    return rows


def _page_row(path: str, handler: Handler, summary: str, body: type, content_type: str) -> Operation:
    described = "a page" if content_type.startswith("text/html") else "OpenAPI 3.1"
    answer = Answer(status=200, body=body, description=described, content_type=content_type)
    return open_to_all(path, handler, summary, answer)


async def _home(_call: Call) -> Response:
    return RedirectResponse("/docs", status_code=302)


HOME = open_to_all("/", _home, "To the page", Answer(status=302, body=None, description="to /docs"))
