"""The document and the page that are derived from the table."""

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from openapi_spec_validator import OpenAPIV31SpecValidator

from borough.http.openapi.description import document, operation_ids
from borough.http.openapi.documents import to_json, to_yaml
from borough.http.openapi.wire import framework_errors
from borough.http.operations import Access, Answer, Operation
from borough.http.pages import page_operations
from borough.http.reference import POLICY, page
from borough.http.surfaces import Policies, Surface
from borough.http.table import OperationTable
from borough.http.town.about import ABOUT
from tests.surfaces.asgi import ask
from tests.surfaces.demo import OPERATIONS, DemoState, authenticate, grant_is_live, health

DOCUMENTS = Path(__file__).parents[2] / "docs" / "openapi"


def described(operations: Sequence[Operation] = OPERATIONS) -> dict[str, Any]:
    return document(
        operations,
        title="Demo <1>",
        version="1",
        description="For tests",
        path_parameters={"thing": "A thing's name"},
    )


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return described()


def test_the_document_is_valid(whole: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(json.loads(to_json(whole))).validate()


def test_the_document_is_the_same_every_time(whole: dict[str, Any]) -> None:
    assert to_json(whole) == to_json(described())
    assert to_yaml(whole) == to_yaml(described())


def test_yaml_says_what_json_says(whole: dict[str, Any]) -> None:
    assert yaml.safe_load(to_yaml(whole)) == json.loads(to_json(whole))


def test_yaml_survives_what_looks_like_something_else() -> None:
    odd = {"on": "yes", "1": [[], {}, [[1, None]], {"a": [{"b": ""}]}], "a: b": "x\n# y\t\u2028", "": True, "-": 1.5}
    assert yaml.safe_load(to_yaml(odd)) == odd


def test_every_operation_is_there_with_all_its_statuses(whole: dict[str, Any]) -> None:
    for operation in OPERATIONS:
        described = whole["paths"][operation.path.replace("...", "")][operation.method.lower()]
        expected = {answer.status for answer in operation.answers}
        expected |= set(framework_errors(operation).values()) | set(operation.errors.values())
        assert set(described["responses"]) == {str(status) for status in expected}
        assert described["summary"]


def test_component_names_are_short(whole: dict[str, Any]) -> None:
    assert {"Problem", "FieldError", "Thing", "Part", "Colour"} <= set(whole["components"]["schemas"])
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) for name in whole["components"]["schemas"])


@pytest.mark.parametrize("path", sorted(DOCUMENTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_no_document_tells_where_a_type_stands_in_the_sources(path: Path) -> None:
    assert not re.findall(r"borough\.\w+\.[\w.]+", path.read_text())


def test_two_structs_of_one_name_are_refused() -> None:
    other = msgspec.defstruct("Echo", [("other", int)], module="elsewhere")
    row = Operation(
        method="GET", path="/other", handler=health, access=Access.PUBLIC, summary="Other", tag="demo",
        answers=(Answer(status=200, body=other, description="Done"),),
    )  # fmt: skip
    with pytest.raises(ValueError, match="two structs share a name"):
        described([*OPERATIONS, row])


def test_operations_have_names_of_their_own() -> None:
    names = operation_ids(OPERATIONS)
    assert len(set(names)) == len(names)
    assert {"getHealth", "getThings", "postThings", "getThingsByThing", "getThingsByThingPartsByPart"} <= set(names)


def test_queries_and_headers_are_parameters(whole: dict[str, Any]) -> None:
    listed = {item["name"]: item for item in whole["paths"]["/things"]["get"]["parameters"]}
    assert listed["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}
    assert listed["limit"]["description"] == "How many at most"
    assert listed["deep"]["schema"] == {"type": "boolean", "default": False}
    assert listed["colour"]["schema"] == {"$ref": "#/components/schemas/Colour"}
    assert not listed["tag"]["required"]
    posted = {item["name"] for item in whole["paths"]["/things"]["post"]["parameters"]}
    assert posted == {"Idempotency-Key"}
    streamed = {item["name"] for item in whole["paths"]["/events"]["get"]["parameters"]}
    assert streamed == {"Last-Event-ID"}
    tailed = {item["name"] for item in whole["paths"]["/things/{thing}/notes/{note}"]["get"]["parameters"]}
    assert tailed == {"thing", "note"}
    shown = whole["paths"]["/things/{thing}"]["get"]["parameters"]
    assert shown[0]["description"] == "A thing's name"


def test_access_is_told(whole: dict[str, Any]) -> None:
    assert whole["paths"]["/health"]["get"]["security"] == []
    assert whole["paths"]["/work"]["post"]["security"] == [{"worker": []}]
    assert whole["paths"]["/things"]["get"]["security"] == [{"bearer": ["town.read"]}, {"apiKey": ["town.read"]}]


class Checker(HTMLParser):
    VOID = frozenset({"meta"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "img", "link", "iframe"}
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            assert name != "style"
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(whole: dict[str, Any]) -> None:
    html = page(whole)
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert len(set(checker.ids)) == len(checker.ids)
    assert set(operation_ids(OPERATIONS)) <= set(checker.ids)
    for link in checker.links:
        assert link == "/openapi.json" or link.removeprefix("#") in checker.ids
    assert "<h1>Demo &lt;1&gt;</h1>" in html
    assert "http://" not in html
    assert "https://" not in html


@pytest.mark.anyio
async def test_both_are_served_and_describe_themselves() -> None:
    operations = (*OPERATIONS, *page_operations(OPERATIONS, ABOUT))
    surface = Surface(operations=operations, state=DemoState(), authenticate=authenticate, grant_is_live=grant_is_live)
    table = OperationTable([surface], Policies())
    got = await ask(table, "GET", "/openapi.json")
    assert got.headers["content-type"] == "application/json"
    assert {"/openapi.json", "/docs", "/things"} <= set(got.json()["paths"])
    OpenAPIV31SpecValidator(got.json()).validate()
    shown = await ask(table, "GET", "/docs")
    assert shown.headers["content-type"] == "text/html; charset=utf-8"
    assert shown.headers["content-security-policy"] == POLICY
    assert b'id="getOpenapiJson"' in shown.body
