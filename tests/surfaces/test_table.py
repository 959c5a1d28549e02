"""The operation table: routing, validation, authorisation, rendering."""

import asyncio

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from borough.http.routes import Routes
from borough.http.surfaces import Policies, Surface
from borough.http.table import OperationTable
from tests.surfaces.asgi import Got, ask
from tests.surfaces.demo import OPERATIONS, DemoState, as_, authenticate, demo_table, grant_is_live

pytestmark = pytest.mark.anyio


@pytest.fixture
def state() -> DemoState:
    return DemoState()


def refused(got: Got, status: int, code: str) -> dict[str, object]:
    assert got.status == status, got.body
    assert got.headers["content-type"] == "application/problem+json"
    problem = got.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["type"] == f"urn:borough:error:{code}"
    assert problem["request_id"]
    return problem


async def test_an_open_route_needs_no_credential(state: DemoState) -> None:
    got = await ask(demo_table(state), "GET", "/health")
    assert (got.status, got.json()) == (200, {"value": "ok"})
    assert got.headers["content-type"] == "application/json"
    assert got.headers["content-length"] == str(len(got.body))


async def test_head_is_get_without_a_body(state: DemoState) -> None:
    got = await ask(demo_table(state), "HEAD", "/health")
    assert (got.status, got.body) == (200, b"")
    assert got.headers["content-length"] == "14"


async def test_head_of_a_stream_ends(state: DemoState) -> None:
    got = await ask(demo_table(state), "HEAD", "/events", headers=as_("reader"))
    assert (got.status, got.body) == (200, b"")
    assert got.headers["content-type"].startswith("text/event-stream")


async def test_unknown_paths_and_methods_are_problems(state: DemoState) -> None:
    table = demo_table(state)
    refused(await ask(table, "GET", "/nothing"), 404, "route_not_found")
    refused(await ask(table, "GET", "/things/"), 404, "route_not_found")
    refused(await ask(table, "GET", "/"), 404, "route_not_found")
    assert "reason" not in (await ask(table, "GET", "/nothing")).json(), "no program has it"
    got = await ask(table, "PATCH", "/things")
    refused(got, 405, "method_not_allowed")
    assert got.headers["allow"] == "GET, HEAD, POST"
    head = await ask(table, "HEAD", "/nothing")
    assert (head.status, head.body) == (404, b"")


@pytest.mark.parametrize(
    ("target", "value"),
    [("/things/a", "a"), ("/things/a%2Fb", "a/b"), ("/things/%C3%A9", "é"), ("/things/%25", "%"), ("/things/+", "+")],
)
async def test_parameters_are_percent_decoded_once(state: DemoState, target: str, value: str) -> None:
    got = await ask(demo_table(state), "GET", target, headers=as_("reader"))
    assert got.json() == {"value": value}


async def test_several_parameters(state: DemoState) -> None:
    got = await ask(demo_table(state), "GET", "/things/a%20b/parts/7", headers=as_("reader"))
    assert got.json() == {"value": "a b/7"}


@pytest.mark.parametrize(
    ("target", "note"),
    [
        ("/things/a/notes/b", "b"),
        ("/things/a/notes/b/c", "b/c"),
        ("/things/a/notes/b%2Fc", "b/c"),
        ("/things/a/notes/b%2Fc/d%20e", "b/c/d e"),
        ("/things/a/notes//b//c", "/b//c"),
        ("/things/a/notes/b/", "b/"),
        ("/things/a/notes/%25", "%"),
        ("/things/a/notes/parts/7", "parts/7"),
    ],
)
async def test_a_tail_is_all_that_is_left_of_the_path(state: DemoState, target: str, note: str) -> None:
    got = await ask(demo_table(state), "GET", target, headers=as_("reader"))
    assert got.json() == {"value": f"a: {note}"}


async def test_a_tail_is_never_empty_and_gives_way_to_what_is_named(state: DemoState) -> None:
    table = demo_table(state)
    refused(await ask(table, "GET", "/things/a/notes/", headers=as_("reader")), 404, "route_not_found")
    assert (await ask(table, "GET", "/things/a/notes", headers=as_("reader"))).json() == {"value": "a"}
    refused(await ask(table, "DELETE", "/things/a/notes/b/c", headers=as_("admin")), 405, "method_not_allowed")
    routes: Routes[str] = Routes()
    routes.add("GET", "/{a}/fixed", "fixed")
    routes.add("GET", "/{all...}", "tail")
    match = routes.find({"path": "/x/fixed/more"})
    assert match is not None
    assert match.target("GET") == ("tail", {"all": "x/fixed/more"})
    with pytest.raises(ValueError, match="goes on after its tail"):
        routes.add("GET", "/{all...}/more", "never")


@pytest.mark.parametrize("target", ["/things/%00", "/things/%FF", "/things/a%0Ab", "/things/\x00", "/things/\udc80"])
async def test_paths_that_are_no_text_are_refused(state: DemoState, target: str) -> None:
    refused(await ask(demo_table(state), "GET", target, headers=as_("reader")), 400, "invalid_path")


async def test_a_route_belongs_to_one_operation() -> None:
    surface = Surface(
        operations=[OPERATIONS[0], OPERATIONS[0]],
        state=None,
        authenticate=authenticate,
        grant_is_live=grant_is_live,
    )
    with pytest.raises(ValueError, match="two operations for GET /health"):
        OperationTable([surface], Policies())


async def test_who_calls_is_settled_before_the_body_is_read(state: DemoState) -> None:
    table = demo_table(state)
    bad = b"{" * 10
    missing = await ask(table, "POST", "/things", body=bad)
    refused(missing, 401, "authentication_required")
    assert missing.headers["www-authenticate"].startswith("Bearer")
    assert missing.json()["error"] == "Authentication required"
    wrong = await ask(table, "POST", "/things", body=bad, headers=as_("nobody"))
    refused(wrong, 401, "invalid_credentials")
    assert "invalid_token" in wrong.headers["www-authenticate"]
    poor = await ask(table, "POST", "/things", body=bad, headers=as_("reader"))
    problem = refused(poor, 403, "insufficient_scope")
    assert problem["error"] == "Insufficient permissions"
    assert problem["reason"] == "the scopes of reader are: town.read"


async def test_admin_covers_every_scope_and_no_worker_route(state: DemoState) -> None:
    table = demo_table(state)
    assert (await ask(table, "DELETE", "/things/a", headers=as_("admin"))).status == 204
    refused(await ask(table, "POST", "/work", headers=as_("admin")), 403, "worker_token_required")
    assert (await ask(table, "POST", "/work", headers=as_("worker"))).json() == {"value": "worker:a"}
    refused(await ask(table, "DELETE", "/things/a", headers=as_("worker")), 403, "not_for_attempts")


async def test_the_token_of_an_attempt_reads_and_does_what_is_meant_for_it(state: DemoState) -> None:
    table = demo_table(state)
    assert (await ask(table, "GET", "/things", headers=as_("attempt-2"))).status == 200
    refused(await ask(table, "GET", "/things", headers=as_("attempt-1")), 409, "stale_epoch")
    assert (await ask(table, "POST", "/strict", headers=as_("attempt-2"))).status == 202
    refused(await ask(table, "POST", "/strict", headers=as_("attempt-1")), 409, "stale_epoch")
    refused(await ask(table, "POST", "/things", headers=as_("attempt-2")), 403, "not_for_attempts")
    refused(await ask(table, "POST", "/work", headers=as_("attempt-2")), 403, "not_for_attempts")


async def test_reads_that_were_let_in_are_told_of(state: DemoState) -> None:
    seen: list[tuple[str, str]] = []
    surface = Surface(
        operations=OPERATIONS,
        state=state,
        authenticate=authenticate,
        grant_is_live=grant_is_live,
        note_read=lambda call, route: seen.append((call.principal.id, route)),
    )
    table = OperationTable([surface], Policies())
    await ask(table, "GET", "/health")
    await ask(table, "GET", "/things/a", headers=as_("reader"))
    await ask(table, "GET", "/things/b")
    await ask(table, "POST", "/things", headers=as_("writer"), json={"name": "c"})
    assert seen == [("reader", "/things/{thing}")]


async def test_no_body_has_no_content_type(state: DemoState) -> None:
    got = await ask(demo_table(state), "DELETE", "/things/a", headers=as_("admin"))
    assert (got.status, got.body) == (204, b"")
    assert "content-type" not in got.headers
    assert "content-length" not in got.headers


async def test_queries_are_parsed_into_their_struct(state: DemoState) -> None:
    target = "/things?limit=5&deep=true&colour=red&tag=a&tag=b%26c"
    got = await ask(demo_table(state), "GET", target, headers=as_("reader"))
    assert got.json() == {"limit": 5, "deep": True, "colour": "red", "tag": ["a", "b&c"]}


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("limit=1e2", "limit"),
        ("limit=", "limit"),
        ("limit=99999999999999999999999", "limit"),
        ("limit=1&limit=2", "limit"),
        ("deep=1", "deep"),
        ("deep=True", "deep"),
        ("colour=green", "colour"),
        ("colour=null", "colour"),
        ("colour=", "colour"),
        ("size=1", "size"),
        ("limit=%FF", ""),
        ("tag=%00", ""),
        ("&".join(["tag=a"] * 101), ""),
    ],
)
async def test_wrong_queries_are_400_and_say_where(state: DemoState, query: str, parameter: str) -> None:
    got = await ask(demo_table(state), "GET", f"/things?{query}", headers=as_("reader"))
    problem = refused(got, 400, "invalid_query")
    assert [error["parameter"] for error in problem["errors"]] == [parameter]


async def test_unknown_parameters_are_ignored_where_the_struct_says_so(state: DemoState) -> None:
    got = await ask(demo_table(state), "GET", "/loose?what=ever&deep=true", headers=as_("reader"))
    assert got.json() == {"value": "True"}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"{}", "#/name"),
        (b'{"name": ""}', "#/name"),
        (b'{"name": 5}', "#/name"),
        (b'{"name": "a", "tags": ["b", "far too long"]}', "#/tags/1"),
        (b'{"name": "a", "parts": {"x": {"size": 0}}}', "#/parts"),
        (b'{"name": "a", "weight": 1e999}', "#/weight"),
        (b"[]", "#"),
        (b"null", "#"),
    ],
)
async def test_bodies_that_do_not_fit_are_422_with_a_pointer(state: DemoState, body: bytes, pointer: str) -> None:
    headers = as_("writer", content_type="application/json")
    problem = refused(await ask(demo_table(state), "POST", "/things", body=body, headers=headers), 422, "invalid_body")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert state.made == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"name": "a",}',
        b'{"name": "a"} x',
        b'{"name": NaN}',
        b'{"name": "a", "weight": Infinity}',
        b'{"name": "\xff"}',
        b'{"name": "\\ud800"}',
        b'{"name": 5, ',
        b"\xff\xfe",
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
async def test_malformed_json_is_400(state: DemoState, body: bytes) -> None:
    headers = as_("writer", content_type="application/json")
    refused(await ask(demo_table(state), "POST", "/things", body=body, headers=headers), 400, "malformed_json")


async def test_unknown_members_are_refused_only_by_strict_bodies(state: DemoState) -> None:
    table = demo_table(state)
    assert (await ask(table, "POST", "/things", json={"name": "a", "x": 1}, headers=as_("writer"))).status == 201
    got = await ask(table, "POST", "/strict", json={"name": "a", "x~/y": 1}, headers=as_("writer"))
    assert refused(got, 422, "invalid_body")["errors"][0]["pointer"] == "#/x~0~1y"


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", ""]
)
async def test_other_content_types_are_415(state: DemoState, content_type: str | None) -> None:
    headers = as_("writer") | ({} if content_type is None else {"content-type": content_type})
    got = await ask(demo_table(state), "POST", "/things", body=b'{"name": "a"}', headers=headers)
    refused(got, 415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=UTF-8", "application/x+json"])
async def test_json_types_are_accepted(state: DemoState, content_type: str) -> None:
    headers = as_("writer", content_type=content_type)
    assert (await ask(demo_table(state), "POST", "/things", body=b'{"name": "a"}', headers=headers)).status == 201


async def test_an_optional_body_may_be_empty(state: DemoState) -> None:
    table = demo_table(state)
    got = await ask(table, "POST", "/strict", headers=as_("writer"))
    assert (got.status, got.json(), got.headers["x-seen"]) == (202, {"value": "nameless"}, "yes")
    refused(await ask(table, "POST", "/strict", body=b"x", headers=as_("writer")), 415, "unsupported_media_type")


async def test_bodies_over_the_limit_are_413_even_unannounced(state: DemoState) -> None:
    table = demo_table(state, Policies(body_limit_bytes=1000))
    headers = as_("writer", content_type="application/json")
    long = msgspec.json.encode({"name": "a" * 2000})
    refused(await ask(table, "POST", "/things", body=long, headers=headers), 413, "too_large")
    chunked = headers | {"transfer-encoding": "chunked", "content-length": "5"}
    refused(await ask(table, "POST", "/things", body=long, headers=chunked), 413, "too_large")
    absurd = headers | {"content-length": "1" * 19}
    refused(await ask(table, "POST", "/things", body=b"{}", headers=absurd), 413, "too_large")


@pytest.mark.parametrize("length", ["abc", "-1", "1" * 30, "", "1e3", "٣"])
async def test_absurd_lengths_are_refused(state: DemoState, length: str) -> None:
    headers = [*as_("writer", content_type="application/json").items(), ("content-length", "X")]
    headers[-1] = ("content-length", length.encode().decode("latin-1"))
    refused(await ask(demo_table(state), "POST", "/things", body=b"{}", headers=headers), 400, "invalid_content_length")


async def test_one_mebibyte_of_text_fits_however_it_is_escaped(state: DemoState) -> None:
    table = demo_table(state)
    body = b'{"name": "' + b"\\u0007" * 1_048_576 + b'"}'
    got = await ask(table, "POST", "/things", body=body, headers=as_("writer", content_type="application/json"))
    assert got.status == 201
    assert state.made == ["\a" * 1_048_576]


async def test_raw_bodies_come_as_bytes_within_their_own_limit(state: DemoState) -> None:
    table = demo_table(state)
    headers = as_("writer", content_type="application/octet-stream")
    assert (await ask(table, "PUT", "/things/a/log", body=b"\0\xff", headers=headers)).json() == {"value": "2"}
    refused(await ask(table, "PUT", "/things/a/log", body=b"x" * 65, headers=headers), 413, "too_large")


@pytest.mark.parametrize("name", ["authorization", "content-type", "host", "idempotency-key"])
async def test_doubled_headers_are_refused(state: DemoState, name: str) -> None:
    headers = [*as_("reader").items(), (name, "Bearer reader"), (name, "Bearer reader")]
    refused(await ask(demo_table(state), "GET", "/things", headers=headers), 400, "duplicate_header")


async def test_a_route_may_refine_the_status_of_a_code(state: DemoState) -> None:
    table = demo_table(state)
    gone = refused(await ask(table, "GET", "/things/gone", headers=as_("reader")), 404, "thing_not_found")
    assert (gone["title"], gone["detail"], gone["reason"], gone["resolution"]) == (
        "Not Found", "no such thing", "it went", "make one",
    )  # fmt: skip
    teapot = refused(await ask(table, "GET", "/things/teapot", headers=as_("reader")), 418, "teapot")
    assert teapot["details"] == {"size": 3}


async def test_an_unexpected_exception_is_a_500_without_its_inside(state: DemoState) -> None:
    got = await ask(demo_table(state), "POST", "/broken", headers=as_("writer"))
    refused(got, 500, "internal_error")
    assert b"secret" not in got.body


async def test_too_slow_is_408(state: DemoState) -> None:
    got = await ask(demo_table(state, Policies(timeout_s=0.01)), "POST", "/wait", headers=as_("writer"))
    refused(got, 408, "request_timeout")


async def test_a_wait_ends_when_the_client_leaves_or_the_server_stops(state: DemoState) -> None:
    left, stopping = asyncio.Event(), asyncio.Event()
    table = demo_table(state, Policies(stopping=stopping, timeout_s=0.01))
    for event in (left, stopping):
        state.entered.clear()
        asking = asyncio.ensure_future(ask(table, "POST", "/until-gone", headers=as_("writer"), leaves_after=left))
        await state.entered.wait()
        event.set()
        assert (await asyncio.wait_for(asking, 60)).json() == {"value": "gone"}
        left.clear()


TARGETS = st.sampled_from([operation.path for operation in OPERATIONS if operation.handler.__name__ != "broken"])
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["content-type", "content-length", "idempotency-key", "authorization", "accept", "x-y"]),
        st.text(st.characters(max_codepoint=255), max_size=20) | st.sampled_from(["application/json", "Bearer writer"]),
    ),
    max_size=4,
)


@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "X"]),
    target=TARGETS,
    part=st.binary(max_size=12),
    query=st.binary(max_size=40),
    body=st.binary(max_size=60) | st.sampled_from([b'{"name":1}', b'{"name":"a"}']),
    headers=HEADERS,
    known=st.booleans(),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_bytes_make_the_parsers_fail(
    *, method: str, target: str, part: bytes, query: bytes, body: bytes, headers: list[tuple[str, str]], known: bool
) -> None:
    path = target.replace("{thing}", part.decode("utf-8", "surrogateescape")).partition("?")[0]
    listed = headers + ([("authorization", "Bearer writer")] if known else [])

    async def run() -> None:
        state = DemoState()
        state.released.set()
        gone = asyncio.Event()
        gone.set()
        asked = f"{path}?{query.decode('utf-8', 'surrogateescape')}"
        got = await ask(demo_table(state), method, asked, body=body, headers=listed, leaves_after=gone)
        assert got.status < 500 or (got.status == 503 and b"store_unavailable" in got.body)

    asyncio.run(run())
