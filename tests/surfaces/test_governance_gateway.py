"""The gateway's frame: who is let in, pages of other origins, its words for refusals, its documents."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.types import Receive, Scope, Send

from borough.http.answers import json_answer, send_answer
from borough.http.governance.about import gateway_document
from borough.http.governance.cors import Cors, of_routes
from borough.http.governance.routes import OPERATIONS
from borough.http.guards import host_rule
from borough.http.middleware import Edge, EdgeSettings
from borough.http.operations import Access
from borough.openapi import DOCUMENTS
from tests.surfaces.asgi import ask
from tests.surfaces.installation import Installation, installed, manifest

pytestmark = pytest.mark.anyio

ORIGIN = "https://dashboard.example.com"
PREFLIGHT = {"origin": ORIGIN, "access-control-request-method": "DELETE"}
UNKNOWN = "0" * 64
A_UUID = "6e0a3b4e-0000-4000-8000-0000000000ad"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    async with installed(tmp_path_factory.mktemp("open")) as opened:
        yield opened


@pytest.fixture(scope="module")
async def listed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    origins = (ORIGIN, "https://ci.example.com")
    async with installed(tmp_path_factory.mktemp("listed"), cors_origins=origins) as opened:
        yield opened


# -- health and the way in ---------------------------------------------------------------------------------------------


async def test_health_is_open_and_has_three_members(here: Installation) -> None:
    got = await here.http("GET", "/health", token=None)
    assert got.status == 200
    body = got.json()
    assert set(body) == {"status", "version", "uptime_secs"}
    assert body["status"] == "ok"
    assert isinstance(body["uptime_secs"], int)


async def test_every_other_route_wants_a_credential_before_anything_else(here: Installation) -> None:
    bodies = set()
    for row in OPERATIONS:
        if row.access is Access.PUBLIC:
            continue
        path = row.path.replace("{key...}", "k").replace("{id}", A_UUID).replace("{name}", "n")
        path = path.replace("{grant_id}", A_UUID).replace("{request_id}", A_UUID)
        path = path.replace("{proposal_id}", A_UUID).replace("{escalation_id}", A_UUID)
        got = await here.http(row.method, path, token=None, body=b"\xff", headers={"content-type": "text/plain"})
        assert got.status == 401, (row.method, row.path)
        assert got.headers["www-authenticate"] == "Bearer"
        bodies.add(tuple(sorted((k, v) for k, v in got.json().items() if k != "request_id")))
    assert len(bodies) == 1


async def test_whatever_is_wrong_with_a_credential_the_answer_is_the_same(here: Installation) -> None:
    agent = await here.spawn(manifest("wrong", "tool.invoke:echo"))
    revoked = await here.key(agent, "revoked")
    await here.ok("DELETE", "/tokens/revoked")
    operator = here.operator
    answers = []
    for sent in (
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": f"Bearer {UNKNOWN}"},
        {"authorization": f"Bearer {UNKNOWN.upper()}x"},
        {"authorization": f"Bearer {revoked}"},
        {"authorization": f"Basic {revoked}"},
        {"authorization": f"Bearer {operator[:-1]}"},
        {"authorization": f"Bearer {'x' * 20_000}"},
        {"authorization": "Bearer \u00e9"},
        {"x-api-key": operator},
    ):
        got = await here.http("GET", f"/agents/{A_UUID}", token=None, headers=sent)
        body = got.json()
        assert got.headers["x-request-id"] == body.pop("request_id")
        answers.append((got.status, got.headers["www-authenticate"], body))
    assert all(answer == answers[0] for answer in answers)
    assert answers[0][0] == 401
    assert answers[0][2]["code"] == "unauthorized"


async def test_the_scheme_is_known_in_any_case(here: Installation) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        got = await here.http("GET", "/agents", token=None, headers={"authorization": f"{scheme} {here.operator}"})
        assert got.status == 200


async def test_a_request_is_the_bound_agent_s(here: Installation) -> None:
    agent = await here.spawn(manifest("bound", "tool.invoke:echo"))
    token = await here.key(agent, "bound")
    assert (await here.http("POST", f"/agents/{agent}/tools/echo", token=token, json={"a": 1})).status == 200
    told = [entry for entry in await here.entries("ToolInvoke") if entry["agent_id"] == agent]
    assert {entry["token_name"] for entry in told} == {"bound"}
    assert {entry["via"] for entry in told} == {"http"}


async def test_failed_logins_are_recorded_without_the_credential(here: Installation) -> None:
    await here.http("GET", "/agents", token="ab" * 32, client="192.0.2.7")
    found = [entry for entry in await here.entries("AuthFailure") if entry["data"]["address"] == "192.0.2.7"]
    assert [entry["data"]["code"] for entry in found] == ["token"]
    assert found[0]["outcome"] == "denied"
    assert "abab" not in str(found)


async def test_a_flood_of_guesses_is_slowed_down(here: Installation) -> None:
    statuses = [
        (await here.http("GET", "/agents", token=f"{number:064x}", client="192.0.2.8")).status for number in range(130)
    ]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert (await here.http("GET", "/agents", client="192.0.2.9")).status == 200


async def test_a_ticket_opens_one_stream_once_and_nothing_else(here: Installation) -> None:
    ticket = (await here.ok("POST", "/stream-tickets"))["ticket"]
    assert (await here.http("GET", f"/agents?ticket={ticket}", token=None)).status == 401
    # HEAD opens the stream and ends it at once.
    assert (await here.http("HEAD", f"/events?ticket={ticket}", token=None)).status == 200
    assert (await here.http("HEAD", f"/events?ticket={ticket}", token=None)).status == 401
    assert (await here.http("HEAD", f"/events?ticket={UNKNOWN}", token=None)).status == 401


# -- pages of other origins --------------------------------------------------------------------------------------------


async def test_where_no_origins_are_listed_every_page_may_read(here: Installation) -> None:
    for origin in (ORIGIN, "null", "http://localhost:3000"):
        got = await here.http("GET", "/agents", headers={"origin": origin})
        assert got.status == 200
        assert got.headers["access-control-allow-origin"] == "*"
        exposed = {name.strip() for name in got.headers["access-control-expose-headers"].split(",")}
        assert {"X-Request-Id", "ETag", "Location"} <= exposed
        assert "access-control-allow-credentials" not in got.headers
    assert "access-control-allow-origin" not in (await here.http("GET", "/agents")).headers


async def test_a_page_may_write_with_its_token(here: Installation) -> None:
    headers = {"origin": ORIGIN, "sec-fetch-site": "cross-site"}
    got = await here.http("POST", "/agents", headers=headers, json={"manifest_yaml": manifest("page", "obs.append")})
    assert got.status == 201
    assert got.headers["access-control-allow-origin"] == "*"


async def test_refusals_can_be_read_by_pages_too(here: Installation) -> None:
    for method, target, token in (("GET", "/agents", None), ("GET", "/nothing", ""), ("PUT", "/agents", "")):
        got = await here.http(method, target, token=token, headers={"origin": ORIGIN})
        assert got.status >= 400
        assert got.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("headers", [None, "authorization, content-type, x-whatever"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PATCH", "PROPFIND"])
async def test_a_preflight_needs_no_credential_and_allows_what_it_asks(
    here: Installation, method: str, headers: str | None
) -> None:
    asked = {"origin": ORIGIN, "access-control-request-method": method}
    if headers:
        asked["access-control-request-headers"] = headers
    got = await here.http("OPTIONS", f"/agents/{A_UUID}", token=None, headers=asked)
    assert got.status in (200, 204)
    assert got.body == b""
    assert got.headers["access-control-allow-origin"] == "*"
    allowed = got.headers["access-control-allow-methods"]
    assert allowed == "*" or method in [word.strip() for word in allowed.split(",")]
    assert got.headers["access-control-allow-headers"] in (headers or "*", "*")
    assert got.headers["access-control-max-age"] == "600"


async def test_with_a_list_only_those_origins_may_read(listed: Installation) -> None:
    got = await listed.http("GET", "/agents", headers={"origin": ORIGIN})
    assert got.headers["access-control-allow-origin"] == ORIGIN
    assert got.headers["vary"] == "Origin"
    for origin in (
        "https://evil.example",
        "https://dashboard.example.com.evil.example",
        "null",
        "http://dashboard.example.com",
    ):
        got = await listed.http("GET", "/agents", headers={"origin": origin})
        assert got.status == 200
        assert not [name for name in got.headers if name.startswith("access-control-")]
        assert got.headers["vary"] == "Origin"
        preflight = await listed.http("OPTIONS", "/agents", token=None, headers={**PREFLIGHT, "origin": origin})
        assert preflight.status in (200, 204)
        assert not [name for name in preflight.headers if name.startswith("access-control-")]
    preflight = await listed.http("OPTIONS", "/agents", token=None, headers=PREFLIGHT)
    assert preflight.headers["access-control-allow-origin"] == ORIGIN


async def test_another_name_than_this_machine_s_is_not_answered(here: Installation) -> None:
    got = await here.http("GET", "/health", token=None, headers={"host": "rebound.example"})
    assert got.status == 403
    assert got.json()["code"] == "host_not_allowed"


async def test_where_the_town_has_the_same_port_its_routes_stay_closed_to_pages() -> None:
    async def answers(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send_answer(json_answer(200, {}), send, head=False)

    covers = of_routes(OPERATIONS)
    settings = EdgeSettings(hosts=host_rule("127.0.0.1"), stopping=asyncio.Event(), open_to_pages=covers)
    app = Cors(Edge(answers, settings), origins=(), covers=covers)
    foreign = {"origin": ORIGIN, "sec-fetch-site": "cross-site"}
    for path in ("/agents", f"/agents/{A_UUID}/memory/a", "/tokens"):
        got = await ask(app, "POST", path, headers=foreign)
        assert (got.status, got.headers["access-control-allow-origin"]) == (200, "*")
    for path in ("/v1/backlog", "/v1/agents", "/", "/agentsx", "//agents"):
        got = await ask(app, "POST", path, headers=foreign)
        assert (got.status, got.json()["code"]) == (403, "cross_origin")
        for method in ("GET", "OPTIONS"):
            got = await ask(app, method, path, headers={**PREFLIGHT, **foreign})
            assert not [name for name in got.headers if name.startswith("access-control-")]


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        (("GET", "/nothing", {}), 404, "not_found"),
        (("PATCH", "/agents", {}), 405, "method_not_allowed"),
        (("POST", "/agents", {"body": b"{"}), 400, "invalid_request"),
        (("POST", "/agents", {"json": {"manifest_yaml": 7}}), 400, "invalid_request"),
        (("POST", "/agents", {"json": []}), 400, "invalid_request"),
        (("POST", "/agents", {"json": {}}), 400, "invalid_request"),
        (("POST", "/agents", {"body": b"{}", "type": "text/plain"}), 415, "unsupported_media_type"),
        (("GET", "/agents/not-a-uuid", {}), 404, "agent_not_found"),
        (("GET", f"/agents/{A_UUID}", {}), 404, "agent_not_found"),
        (("GET", f"/agents/{A_UUID}/audit?limit=x", {}), 400, "invalid_request"),
        (("GET", f"/agents/{A_UUID}/audit?since=yesterday", {}), 400, "invalid_request"),
        (("GET", "/agents/%ff", {}), 400, "invalid_request"),
        (("POST", "/agents", {"json": {"manifest_yaml": "nonsense"}}), 422, "invalid_manifest"),
    ],
)
async def test_refusals_are_told_in_the_gateway_s_words(
    here: Installation, asked: tuple[str, str, dict[str, Any]], status: int, code: str
) -> None:
    method, target, given = asked[0], asked[1], dict(asked[2])
    headers = {"content-type": given.pop("type", "application/json")} if "body" in given else {}
    got = await here.http(method, target, headers=headers, **given)
    body = got.json()
    assert (got.status, body["code"]) == (status, code), body
    assert body["error"]
    assert body["request_id"] == got.headers["x-request-id"]
    assert got.headers["content-type"] == "application/json"


async def test_a_wrong_method_is_told_the_right_ones(here: Installation) -> None:
    got = await here.http("PATCH", "/agents")
    assert {method.strip() for method in got.headers["allow"].split(",")} == {"GET", "HEAD", "POST"}


async def test_a_body_of_more_than_eight_mebibytes_is_refused_before_it_is_read(here: Installation) -> None:
    headers = {"content-type": "application/json", "content-length": str(8 * 1_048_576 + 1)}
    got = await here.http("POST", "/agents", body=b"{}", headers=headers)
    assert (got.status, got.json()["code"]) == (413, "too_large")


async def test_head_is_get_without_a_body(here: Installation) -> None:
    got = await here.http("HEAD", "/agents")
    assert got.status == 200
    assert got.body == b""


async def test_a_given_request_id_comes_back(here: Installation) -> None:
    got = await here.http("GET", f"/agents/{A_UUID}", headers={"x-request-id": "mine-1"})
    assert got.headers["x-request-id"] == got.json()["request_id"] == "mine-1"


# -- documents ---------------------------------------------------------------------------------------------------------


def test_the_document_is_one_and_is_checked_in() -> None:
    OpenAPIV31SpecValidator(gateway_document()).validate()
    for path, make in DOCUMENTS.items():
        assert yaml.safe_load((Path(__file__).parent.parent.parent / path).read_text()) == make(), "run: make openapi"


async def test_the_document_and_a_page_are_served_to_anybody(here: Installation) -> None:
    served = (await here.http("GET", "/openapi.json", token=None)).json()
    assert served == gateway_document()
    in_yaml = await here.http("GET", "/openapi.yaml", token=None)
    assert yaml.safe_load(in_yaml.body) == served
    page = await here.http("GET", "/docs", token=None)
    assert page.headers["content-type"].startswith("text/html")
    assert b"/agents/{id}" in page.body


def test_the_document_knows_the_gateway_s_words() -> None:
    answers = gateway_document()["paths"]["/agents"]["get"]["responses"]
    assert "unauthorized" in answers["401"]["description"]
    assert list(answers["401"]["content"]) == ["application/json"]
    assert gateway_document()["paths"]["/agents"]["get"]["security"] == [{"bearer": []}]
