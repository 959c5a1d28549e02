"""Pages for agents, from real servers."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from borough.adapters.egress.judging import Judge
from borough.adapters.search_results import read_results
from borough.adapters.web import HttpWeb
from borough.core.errors import Forbidden, Invalid, Unavailable
from borough.governance.hosts import NetworkPolicy
from borough.governance.manifests import Network
from borough.governance.ports.outside import Page, Web
from tests.services.loopback import Handler, Names, allowing, certified, serving

pytestmark = pytest.mark.anyio
NAMES = {"good_example": ["127.0.0.2"], "other_example": ["127.0.0.2"], "inside_example": ["10.0.0.9"]}


@asynccontextmanager
async def site(handler: Handler) -> AsyncIterator[tuple[HttpWeb, Network, str]]:
    async with serving(handler, host="127.0.0.2") as port:
        network = allowing(f"good.example:{port}", f"other.example:{port}", f"127.0.0.2:{port}", "inside.example:80")
        yield HttpWeb(Judge(Names(**{name: [*texts] for name, texts in NAMES.items()}))), network, str(port)


async def fetch(pages: Web, network: Network, url: str, **headers: str) -> Page:
    return await pages.fetch(network, url, headers=headers, timeout_s=10, limit_bytes=1_000)


async def test_a_page_of_any_status_is_a_page_in_its_charset() -> None:
    async def handle(request: web.Request) -> web.Response:
        if request.path == "/missing":
            raise web.HTTPNotFound(text="gone")
        if request.path == "/odd":
            return web.Response(body=b"ok", headers={"Content-Type": "text/plain; charset=rot13"})
        return web.Response(body="größe".encode("latin-1"), headers={"Content-Type": "text/plain; charset=latin-1"})

    async with site(handle) as (pages, network, port):
        assert (await fetch(pages, network, f"http://good.example:{port}/")).body == "größe"
        assert (await fetch(pages, network, f"http://good.example:{port}/odd")).body == "ok"
        missing = await fetch(pages, network, f"http://127.0.0.2:{port}/missing")
        assert (missing.status, missing.body, missing.truncated) == (404, "gone", False)


@pytest.mark.parametrize(
    ("location", "error", "code"),
    [
        ("http://elsewhere.example/", Forbidden, "network_denied"),
        ("http://inside.example/", Forbidden, "network_denied"),
        ("http://169.254.169.254/latest", Forbidden, "network_denied"),
        ("http://127.0.0.1:1/", Forbidden, "network_denied"),
        ("file:///etc/passwd", Invalid, "invalid_url"),
        ("http://user@other.example/", Invalid, "invalid_url"),
        ("/again", Unavailable, "too_many_redirects"),
    ],
)
async def test_each_redirect_is_judged(location: str, error: type[Exception], code: str) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": location})

    async with site(handle) as (pages, network, port):
        with pytest.raises(error) as refusal:
            await fetch(pages, network, f"http://good.example:{port}/")
    assert getattr(refusal.value, "code", "") == code


async def test_headers_that_may_hold_secrets_do_not_follow_to_another_host() -> None:
    seen: list[tuple[str, str | None, str | None]] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.path, request.headers.get("X-Api-Key"), request.headers.get("Accept")))
        to = {"/": "/same", "/same": f"http://other.example:{request.url.port}/other"}.get(request.path)
        return web.Response(status=307, headers={"Location": to}) if to else web.Response(text="done")

    async with site(handle) as (pages, network, port):
        page = await fetch(pages, network, f"http://good.example:{port}/", **{"X-Api-Key": "k", "Accept": "a/b"})
    assert page.body == "done"
    assert seen == [("/", "k", "a/b"), ("/same", "k", "a/b"), ("/other", None, "a/b")]


@pytest.mark.parametrize("name", ["Host", "Proxy-Authorization", "Transfer-Encoding", "Bad Name", "Connection"])
async def test_headers_of_the_connection_cannot_be_set(name: str) -> None:
    pages = HttpWeb(Judge(Names()))
    with pytest.raises(Invalid) as refusal:
        await fetch(pages, allowing("good.example:80"), "http://good.example/", **{name: "x"})
    assert refusal.value.code == "invalid_header"


async def test_a_long_page_is_cut_and_a_bomb_stays_small() -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    small = b"".join(bomb.compress(b"\0" * 2**20) for _ in range(64)) + bomb.flush()
    bodies = {
        "/long": (b"x" * 5_000, ""),
        "/bomb": (small, "gzip"),
        "/gzip": (gzip.compress(b"fine"), "gzip"),
        "/deflate": (zlib.compress(b"fine"), "deflate"),
        "/raw": (zlib.compress(b"fine")[2:-4], "deflate"),
        "/br": (b"?", "br"),
    }

    async def handle(request: web.Request) -> web.Response:
        body, encoding = bodies[request.path]
        return web.Response(body=body, headers={"Content-Encoding": encoding} if encoding else {})

    async with site(handle) as (pages, network, port):
        for path in ("/long", "/bomb"):
            page = await fetch(pages, network, f"http://good.example:{port}{path}")
            assert (len(page.body), page.truncated) == (1_000, True)
        for path in ("/gzip", "/deflate", "/raw"):
            page = await fetch(pages, network, f"http://good.example:{port}{path}")
            assert (page.body, page.truncated) == ("fine", False)
        with pytest.raises(Unavailable) as failure:
            await fetch(pages, network, f"http://good.example:{port}/br")
    assert failure.value.code == "unknown_encoding"


async def test_what_cannot_be_had_says_why() -> None:
    async def never(request: web.Request) -> web.Response:
        await request.read()
        raise web.HTTPGatewayTimeout

    async with site(never) as (_, network, port):
        closed = int(port)
    pages = HttpWeb(Judge(Names(good_example=["127.0.0.2"], nowhere_example=[])))
    with pytest.raises(Unavailable) as refused:
        await fetch(pages, network, f"http://good.example:{closed}/")
    assert refused.value.code == "connection_refused"
    with pytest.raises(Unavailable) as unknown:
        await fetch(pages, allowing("nowhere.example:80"), "http://nowhere.example/")
    assert unknown.value.code == "not_resolved"


async def test_a_slow_page_ends_at_the_timeout() -> None:
    over = asyncio.Event()

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        await over.wait()
        return response

    async with site(drip) as (pages, network, port):
        with pytest.raises(Unavailable) as failure:
            await pages.fetch(network, f"http://good.example:{port}/", headers={}, timeout_s=0.3, limit_bytes=10_000)
        over.set()
    assert failure.value.code == "timeout"


async def test_tls_is_verified_for_the_name_that_was_asked(tmp_path: Path) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(text="secured")

    server, client = certified(tmp_path, "good.example")
    async with serving(handle, host="127.0.0.2", tls=server) as port:
        names = {"good_example": ["127.0.0.2"], "other_example": ["127.0.0.2"]}
        network = allowing(f"*.example:{port}", f"127.0.0.2:{port}")
        pages = HttpWeb(Judge(Names(**names)), tls=client)
        assert (await fetch(pages, network, f"https://good.example:{port}/")).body == "secured"
        for pages_of, name in ((pages, "other.example"), (HttpWeb(Judge(Names(**names))), "good.example")):
            with pytest.raises(Unavailable) as failure:
                await fetch(pages_of, network, f"https://{name}:{port}/")
            assert failure.value.code == "tls_failed"


RESULTS = """<html><form action="/lite/" method="post"><input class="query" name="q" value="towns"></form><table>
<tr><td>1.&nbsp;</td><td>
<a rel="nofollow" href="//duckduckgo.com/l/?uddg=https%3A%2F%2Fone.example%2Fa%3Fb%3D1&amp;rut=x"
 class='result-link'>One &amp; <b>only</b></a></td></tr>
<tr><td></td><td class='result-snippet'>A   <b>town</b>
 of one.</td></tr><tr><td><span class='link-text'>one.example</span></td></tr>
<tr><td><a rel="nofollow" href="https://two.example/" class='result-link'>Two</a></td></tr>
<tr><td><a href="javascript:alert(1)" class='result-link'>Three</a></td></tr></table></html>"""
NOTHING = '<html><input name="q" value="zxq"><span>No results found for <b>zxq</b></span></html>'


async def test_a_search_gives_titles_links_and_snippets() -> None:
    asked: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.query["q"])
        return web.Response(text=NOTHING if request.query["q"] == "zxq" else RESULTS, content_type="text/html")

    async with serving(handle, host="127.0.0.2") as port:
        search_url = f"http://lite.search.example:{port}/lite/"
        pages = HttpWeb(Judge(Names(lite_search_example=["127.0.0.2"])), search_url=search_url)
        network = allowing("duckduckgo.com:443", f"127.0.0.2:{port}")
        found = await pages.search(network, "small towns & villages", timeout_s=10)
        assert await pages.search(network, "zxq", timeout_s=10) == ()
        with pytest.raises(Forbidden) as refusal:
            await pages.search(allowing("one.example:443"), "towns", timeout_s=10)
        with pytest.raises(Forbidden):
            await pages.search(Network(policy=NetworkPolicy.NONE), "towns", timeout_s=10)
    assert refusal.value.code == "network_denied"
    assert asked == ["small towns & villages", "zxq"]
    assert found == (
        {"title": "One & only", "link": "https://one.example/a?b=1", "snippet": "A town of one."},
        {"title": "Two", "link": "https://two.example/", "snippet": ""},
    )


@pytest.mark.parametrize("page", ["", "<html>are you human?</html>", "<input name=q>", "no results"])
def test_another_page_is_a_parse_error(page: str) -> None:
    with pytest.raises(Unavailable) as failure:
        read_results(page)
    assert failure.value.code == "parse_error"
