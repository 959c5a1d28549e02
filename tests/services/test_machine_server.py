"""``borough.internal``: the one way of a machine to Borough's own server."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from borough.adapters.egress.judging import Judge, ServerPlace
from borough.adapters.egress.limits import EgressLimits
from borough.adapters.egress.proxy import BoxProxy
from borough.adapters.egress.verdicts import EgressVerdict, VerdictBook
from borough.core.ids import AgentId
from borough.worker.connection import Connection, ServerAddress
from tests.services.loopback import Names, allowing, serving

pytestmark = pytest.mark.anyio
VM = "1b9d6bcd-bbf"
LISTED = "borough.internal:80"


async def told_back(request: web.Request) -> web.Response:
    return web.json_response({"path": request.path_qs, "headers": dict(request.headers), "body": await request.text()})


@asynccontextmanager
async def way_out(*listed: str, server: ServerPlace | None) -> AsyncIterator[tuple[int, list[EgressVerdict]]]:
    """Yield the port of a machine's proxy, and its verdicts."""
    told: list[EgressVerdict] = []

    async def record(verdict: EgressVerdict) -> None:
        told.append(verdict)

    proxy = BoxProxy(
        network=allowing(*listed), judge=Judge(Names(), server=server), book=VerdictBook(AgentId(VM), "e", record),
        limits=EgressLimits(), machine=VM,
    )  # fmt: skip
    listening = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1], told
    finally:
        listening.close()
        await proxy.close()


async def said(port: int, head: str) -> tuple[int, bytes]:
    """Return status and body of what the proxy answers to a request's head."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    return int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2]


def page(path: str = "/health", host: str = "borough.internal", more: str = "") -> str:
    return f"GET http://{host}{path} HTTP/1.1\nHost: {host}{more}"


async def test_the_server_is_reached_by_its_name_and_told_which_machine_asks() -> None:
    forged = "\nX-Forwarded-For: 127.0.0.1\nX-Borough-Machine: another\nForwarded: for=127.0.0.1\nX-Own: 1"
    async with (
        serving(told_back, host="127.0.0.1") as port,
        way_out(LISTED, server=ServerPlace(host="127.0.0.1", port=port)) as (proxy, verdicts),
    ):
        status, body = await said(proxy, page("/v1/x?y=1", more=forged))
    assert status == 200
    seen: Mapping[str, str] = {name.lower(): value for name, value in json.loads(body)["headers"].items()}
    assert (seen["host"], seen["x-borough-machine"], seen["x-own"]) == ("borough.internal", VM, "1")
    assert not {"x-forwarded-for", "forwarded"} & set(seen)
    assert [(each.host, each.port, each.allowed, each.reason) for each in verdicts] == [
        ("borough.internal", 80, True, LISTED)
    ]


@pytest.mark.parametrize("listed", ["*:*", "*.internal:80", "borough.internal:443", "127.0.0.0/8:1", "other:80"])
async def test_nothing_but_its_own_name_on_the_list_opens_it(listed: str) -> None:
    async with (
        serving(told_back, host="127.0.0.1") as port,
        way_out(listed, server=ServerPlace(host="127.0.0.1", port=port)) as (proxy, _),
    ):
        assert (await said(proxy, page()))[0] == 403


async def test_nothing_else_of_the_host_is_reached_by_it() -> None:
    async with (
        serving(told_back, host="127.0.0.1") as port,
        serving(told_back, host="127.0.0.1") as other,
        way_out("borough.internal:*", server=ServerPlace(host="127.0.0.1", port=port)) as (proxy, _),
    ):
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"borough.internal:{other}", f"[::1]:{port}"):
            assert (await said(proxy, page(host=host)))[0] == 403, host
        # A tunnel could say of itself what it likes: that it asks for another name, or comes for another machine.
        assert (await said(proxy, f"CONNECT {LISTED} HTTP/1.1\nHost: {LISTED}"))[0] == 403
        assert (await said(proxy, page(more="\nHost: localhost")))[0] == 400


async def test_a_host_that_was_not_told_where_it_is_says_so() -> None:
    async with way_out(LISTED, server=None) as (proxy, _):
        status, body = await said(proxy, page())
    assert (status, b"was not told where" in body) == (502, True)


async def test_a_worker_inside_comes_by_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        serving(told_back, host="127.0.0.1") as port,
        way_out(LISTED, server=ServerPlace(host="127.0.0.1", port=port)) as (proxy, _),
    ):
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy}")
        connection = Connection(ServerAddress(url="http://borough.internal/t"), "bwk_x", give_up_s=5)
        for _ in range(2):
            answer = await asyncio.to_thread(connection.post, "/v1/take", b"hello")
            told = json.loads(answer.body)
            assert (told["path"], told["body"]) == ("/t/v1/take", "hello")
            assert told["headers"]["Authorization"] == "Bearer bwk_x"
        connection.close()
        nowhere = socket.create_server(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{nowhere.getsockname()[1]}")
        own = Connection(ServerAddress(url=f"http://127.0.0.1:{port}"), None, give_up_s=5)
        assert (await asyncio.to_thread(own.get, "/health")).status == 200, "its own machine needs no proxy"
        own.close()
        nowhere.close()
