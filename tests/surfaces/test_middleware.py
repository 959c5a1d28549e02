"""The edge: ids in and out, guards, the end of the server, headers, and what is logged."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import HTMLResponse
from starlette.types import Receive, Scope, Send

from borough.http.guards import check_origin, host_name, host_rule, is_loopback_bind
from borough.http.middleware import Edge, EdgeSettings
from borough.http.tracing import continue_trace, request_id_from
from tests.surfaces.asgi import ask
from tests.surfaces.demo import DemoState, as_, demo_table

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        yield lines


def edge(*, bind: str = "127.0.0.1", allowed: tuple[str, ...] = (), stopping: asyncio.Event | None = None) -> Edge:
    settings = EdgeSettings(hosts=host_rule(bind, allowed), stopping=stopping or asyncio.Event())
    return Edge(demo_table(DemoState()), settings)


@pytest.mark.anyio
async def test_ids_come_in_and_go_out_and_are_in_the_log(logged: list[Any]) -> None:
    headers = as_("reader", x_request_id="req-1.a", traceparent=TRACE)
    got = await ask(edge(), "GET", "/things/gone?secret=1", headers=headers)
    assert got.headers["x-request-id"] == "req-1.a"
    assert got.json()["request_id"] == "req-1.a"
    version, trace, span, flags = got.headers["traceparent"].split("-")
    assert (version, trace, flags) == ("00", "0af7651916cd43dd8448eb211c80319c", "01")
    assert span != "b7ad6b7169203331"
    (line,) = logged
    assert line["request_id"] == "req-1.a"
    assert line["trace_id"] == trace
    assert (line["method"], line["path"], line["route"]) == ("GET", "/things/gone", "/things/{thing}")
    assert (line["status"], line["code"], line["principal"]) == (404, "thing_not_found", "reader")
    assert "secret" not in str(line)
    assert "Bearer" not in str(line)


def test_only_sane_request_ids_are_kept() -> None:
    assert request_id_from("a-1") == "a-1"
    for bad in (None, "", " ", "a b", "a\nb", "é", "x" * 129, "-a", "<script>"):
        made = request_id_from(bad)
        assert made != bad
        assert len(made) == 32


@pytest.mark.parametrize(
    "bad",
    [
        None,
        "",
        "nonsense",
        TRACE.upper(),
        f"ff{TRACE[2:]}",
        f"{TRACE}-more",
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
    ],
)
def test_broken_traces_start_anew(bad: str | None) -> None:
    begun = continue_trace(bad)
    assert begun.trace_id != "0af7651916cd43dd8448eb211c80319c"
    assert str(continue_trace(str(begun))).startswith(f"00-{begun.trace_id}-")


def test_later_versions_of_a_trace_may_have_more() -> None:
    assert continue_trace(f"01{TRACE[2:]}-more").trace_id == "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("bind", "allowed", "host", "status"),
    [
        ("127.0.0.1", (), "localhost", 200),
        ("127.0.0.1", (), "LOCALHOST:8080", 200),
        ("127.0.0.1", (), "127.5.4.3:1", 200),
        ("::1", (), "[::1]:8080", 200),
        ("localhost", (), "evil.example", 403),
        ("127.0.0.1", (), "evil.example:8080", 403),
        ("127.0.0.1", (), "localhost.evil.example", 403),
        ("127.0.0.1", (), "", 403),
        ("127.0.0.1", (), "localhost, evil.example", 403),
        ("127.0.0.1", (), "townhall:8080", 403),
        ("127.0.0.1", ("townhall",), "townhall:8080", 200),
        ("127.0.0.1", ("TownHall:9999",), "townhall:8080", 200),
        ("0.0.0.0", (), "townhall:8080", 200),
        ("0.0.0.0", ("townhall",), "townhall:8080", 200),
        ("0.0.0.0", ("townhall",), "other:8080", 403),
        ("0.0.0.0", ("townhall",), "localhost:8080", 200),
    ],
)
async def test_names_of_the_server(bind: str, allowed: tuple[str, ...], host: str, status: int) -> None:
    got = await ask(edge(bind=bind, allowed=allowed), "GET", "/health", headers={"host": host})
    assert got.status == status
    if status == 403:
        assert got.json()["code"] == "host_not_allowed"
        assert got.headers["x-request-id"]


def test_loopback_is_known_in_every_spelling() -> None:
    assert all(is_loopback_bind(bind) for bind in ("localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]"))
    assert not any(is_loopback_bind(bind) for bind in ("0.0.0.0", "::", "[::]", "10.0.0.1", "example.org", ""))


@given(st.text(max_size=40))
def test_no_host_header_breaks_the_check(host: str) -> None:
    name = host_name(host)
    assert name is None or name == name.lower()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://localhost"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:3000"}, 403),
        ({"origin": "http://[bad"}, 403),
        ({"sec-fetch-site": "same-origin", "origin": "http://localhost"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
async def test_pages_of_other_origins_change_nothing(headers: dict[str, str], status: int) -> None:
    got = await ask(edge(), "POST", "/strict", headers=as_("writer") | headers)
    assert got.status == (202 if status == 200 else status)
    assert not any(name.startswith("access-control-") for name in got.headers)


def test_reading_is_no_change() -> None:
    assert check_origin("GET", host="localhost", origin="http://evil.example", fetch_site="cross-site") is None


@pytest.mark.anyio
async def test_a_stopping_server_refuses_new_requests() -> None:
    stopping = asyncio.Event()
    stopping.set()
    got = await ask(edge(stopping=stopping), "GET", "/health")
    assert (got.status, got.json()["code"], got.headers["retry-after"]) == (503, "stopping", "5")
    assert got.headers["connection"] == "close"


@pytest.mark.anyio
async def test_addresses_have_a_limit() -> None:
    got = await ask(edge(), "GET", "/health?" + "a" * 20_000)
    assert (got.status, got.json()["code"]) == (414, "uri_too_long")


@pytest.mark.anyio
async def test_html_is_served_with_a_strict_policy() -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await HTMLResponse("<p>hello")(scope, receive, send)

    app = Edge(page, EdgeSettings(hosts=host_rule("127.0.0.1"), stopping=asyncio.Event()))
    got = await ask(app, "GET", "/docs")
    assert got.headers["content-security-policy"].startswith("default-src 'none'")
    assert got.headers["x-frame-options"] == "DENY"
    assert got.headers["x-content-type-options"] == "nosniff"
    plain = await ask(edge(), "GET", "/health")
    assert "content-security-policy" not in plain.headers
    assert plain.headers["cache-control"] == "no-store"


@pytest.mark.anyio
async def test_an_exception_is_answered_once_and_logged_whole(logged: list[Any]) -> None:
    async def failing(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError("the inner secret")

    app = Edge(failing, EdgeSettings(hosts=host_rule("127.0.0.1"), stopping=asyncio.Event()))
    got = await ask(app, "GET", "/", headers={"x-request-id": "r-1"})
    assert (got.status, got.json()["code"]) == (500, "internal_error")
    assert b"secret" not in got.body
    assert got.headers["x-request-id"] == "r-1"
    trouble, access = logged
    assert trouble["request_id"] == access["request_id"] == "r-1"
    assert "RuntimeError: the inner secret" in trouble["exception"]
    assert access["code"] == "internal_error"


@pytest.mark.anyio
async def test_an_exception_amid_an_answer_leaves_it_unfinished(logged: list[Any]) -> None:
    async def failing(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("too late")

    app = Edge(failing, EdgeSettings(hosts=host_rule("127.0.0.1"), stopping=asyncio.Event()))
    with pytest.raises(AssertionError, match="left unfinished"):
        await ask(app, "GET", "/")
    assert [line["log_level"] for line in logged] == ["error", "info"]
    assert logged[1]["cut"] is True


@pytest.mark.anyio
async def test_nothing_of_a_request_stays_behind_for_the_next() -> None:
    await ask(edge(), "GET", "/health", headers={"x-request-id": "r-1"})
    assert structlog.contextvars.get_contextvars() == {}
