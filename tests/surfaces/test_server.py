"""A real server in a process of its own: how it starts, how it ends, and what it does with broken clients."""

import asyncio
import datetime as dt
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from borough.core.errors import Invalid, Unavailable
from borough.http.binding import bind, bound_port, holder, server_url
from tests.conftest import eventually

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]


@dataclass
class Running:
    process: subprocess.Popen[bytes]
    ready: Path
    url: str
    opened: list[http.client.HTTPConnection] = field(default_factory=list)

    def connection(self, context: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        assert parts.hostname
        if context is not None:
            made: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.hostname, parts.port, context=context, timeout=10
            )
        else:
            made = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
        self.opened.append(made)
        return made

    def raw(self, data: bytes) -> bytes:
        parts = urlsplit(self.url)
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as connected:
            connected.sendall(data)
            got = b""
            while chunk := connected.recv(65_536):
                got += chunk
            return got


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Running] = []

    def run(*options: str) -> Running:
        ready = tmp_path / f"ready-{len(started)}.json"
        argv = [sys.executable, "-m", "tests.surfaces.demo_server", str(ready), *options]
        process = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        started.append(Running(process, ready, ""))
        return started[-1]

    yield run
    for running in started:
        for connection in running.opened:
            connection.close()
        if running.process.poll() is None:
            running.process.kill()
        running.process.communicate()


async def up(running: Running) -> Running:
    async def written() -> bool:
        if running.process.poll() is not None and running.process.stderr is not None:
            pytest.fail(running.process.stderr.read().decode())
        return running.ready.exists() and "url" in running.ready.read_text()

    await eventually(written)
    running.url = json.loads(running.ready.read_text())["url"]
    return running


async def ended(running: Running) -> int:
    await asyncio.wait_for(asyncio.to_thread(running.process.wait), 60)
    return int(running.process.returncode)


AS_WRITER = {"authorization": "Bearer writer"}


async def test_a_signal_lets_the_running_request_finish(start: Start) -> None:
    running = await up(start("--release-after-stop"))
    connection = running.connection()
    connection.request("POST", "/wait", headers=AS_WRITER)
    probe = running.connection()
    probe.request("GET", "/health")
    assert probe.getresponse().read() == b'{"value":"ok"}'
    running.process.send_signal(signal.SIGTERM)
    answer = await asyncio.to_thread(connection.getresponse)
    assert (answer.status, json.loads(answer.read())) == (200, {"value": "released"})
    assert await ended(running) == 0
    assert json.loads(running.ready.read_text()) == {"closed": True}


async def test_a_signal_ends_streams_at_once(start: Start) -> None:
    running = await up(start())
    connection = running.connection()
    connection.request("GET", "/events", headers=AS_WRITER)
    answer = connection.getresponse()
    assert answer.readline() == b": \n"
    began = asyncio.get_running_loop().time()
    running.process.send_signal(signal.SIGTERM)
    rest = await asyncio.to_thread(answer.read)
    assert b"id: 1-0\nevent: tick\n" in rest
    assert await ended(running) == 0
    assert asyncio.get_running_loop().time() - began < 5


async def test_a_request_that_never_ends_is_cut_when_the_time_to_drain_is_over(start: Start) -> None:
    running = await up(start("--drain", "1"))
    connection = running.connection()
    connection.request("POST", "/wait", headers=AS_WRITER)
    probe = running.connection()
    probe.request("GET", "/health")
    probe.getresponse().read()
    running.process.send_signal(signal.SIGTERM)
    assert await ended(running) == 0


async def test_a_taken_port_names_who_has_it(start: Start) -> None:
    running = await up(start())
    port = urlsplit(running.url).port
    assert port
    with pytest.raises(Unavailable) as caught:
        bind("127.0.0.1", port)
    command = f"{sys.executable} -m tests.surfaces.demo_server"[:40]
    assert caught.value.code == "port_in_use"
    assert f"port {port} on 127.0.0.1 is in use by pid {running.process.pid} (" in caught.value.message
    assert command in caught.value.message


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("localhost", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
    ],
)
def test_addresses_are_taken_as_people_write_them(host: str, url: str) -> None:
    sockets = bind(host, 0)
    try:
        port = bound_port(sockets)
        assert server_url(sockets, tls=False) == f"http://{url}:{port}"
        assert {opened.getsockname()[1] for opened in sockets} == {port}
        assert holder(port).startswith(f"pid {os.getpid()} (")
    finally:
        for opened in sockets:
            opened.close()


@pytest.mark.parametrize("host", ["", "192.0.2.1", "no.such.name.invalid", "1.2.3.4.5"])
def test_what_is_no_address_here_is_refused(host: str) -> None:
    with pytest.raises(Invalid) as caught:
        bind(host, 0)
    assert caught.value.code == "invalid_bind"


BROKEN: list[tuple[bytes, int]] = [
    (b"NONSENSE\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    (b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"GET /%00 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
    (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
    (b"GET /health HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 403),
    (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 414),
]


async def test_broken_requests_end_as_clean_refusals(start: Start) -> None:
    running = await up(start())
    for data, status in BROKEN:
        head, _, body = running.raw(data).partition(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ".encode()), (data[:60], head)
        assert b"application/problem+json" in head
        assert json.loads(body)["status"] == status


async def test_the_head_of_a_request_has_a_limit(start: Start) -> None:
    running = await up(start())
    long = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: " + b"a" * 40_000 + b"\r\n\r\n"
    assert running.raw(long).startswith(b"HTTP/1.1 200 ")
    parts = urlsplit(running.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as connected:
        connected.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_for_ever(connected)


def send_for_ever(connected: socket.socket) -> None:
    while True:
        connected.sendall(b"a" * 10_000)


@dataclass(frozen=True)
class Certificates:
    authority: Path
    cert: Path
    key: Path


def make_certificates(folder: Path) -> Certificates:
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)

    def certificate(name: str, public: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")]))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]),
                critical=False,
            )
        )
        return builder.sign(authority_key, hashes.SHA256())

    made = Certificates(folder / "authority.pem", folder / "cert.pem", folder / "key.pem")
    made.authority.write_bytes(
        certificate("authority", authority_key.public_key(), ca=True).public_bytes(serialization.Encoding.PEM)
    )
    made.cert.write_bytes(certificate("peer", key.public_key(), ca=False).public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


def read_health(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/health")
    return connection.getresponse().read()


async def test_tls_is_served_and_a_demanded_client_certificate_reaches_the_application(
    start: Start, tmp_path: Path
) -> None:
    made = make_certificates(tmp_path)
    options = ("--cert", str(made.cert), "--key", str(made.key), "--client-ca", str(made.authority))
    running = await up(start(*options))
    assert running.url.startswith("https://")
    context = ssl.create_default_context(cafile=str(made.authority))
    without = running.connection(context)
    with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
        read_health(without)
    context.load_cert_chain(made.cert, made.key)
    connection = running.connection(context)
    connection.request("GET", "/peer")
    answer = connection.getresponse()
    assert answer.status == 200
    assert json.loads(answer.read()) == {"value": "CN=peer"}
