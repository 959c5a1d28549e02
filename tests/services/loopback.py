"""Real servers on this machine's own addresses, and a resolver that knows their names."""

import asyncio
import ipaddress
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from borough.governance.hosts import Address, NetworkPolicy, parse_allowed
from borough.governance.manifests import Network

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Names:
    """A resolver: each name has answers, given in turn; the last one stays."""

    def __init__(self, **answers: list[str]) -> None:
        self.answers: dict[str, list[str]] = {name.replace("_", "."): list(texts) for name, texts in answers.items()}
        self.asked: dict[str, int] = defaultdict(int)

    async def __call__(self, name: str, _port: int) -> tuple[Address, ...]:
        self.asked[name] += 1
        texts = self.answers.get(name)
        if not texts:
            raise OSError(f"{name} has no address")
        text = texts.pop(0) if len(texts) > 1 else texts[0]
        return tuple(ipaddress.ip_address(part) for part in text.split())


def allowing(*lines: str) -> Network:
    return Network(policy=NetworkPolicy.ALLOWLIST, allowlist=tuple(parse_allowed(line) for line in lines))


@asynccontextmanager
async def serving(
    handler: Handler, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve every path by ``handler``; yields the port."""
    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, 0, ssl_context=tls)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def speaking(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], *, host: str = "127.0.0.1"
) -> AsyncIterator[int]:
    """Serve raw connections; yields the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def certified(folder: Path, *names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return what a server of ``names`` uses and what a client uses that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem.write_bytes(secret + certificate.public_bytes(Encoding.PEM))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cadata=certificate.public_bytes(Encoding.PEM).decode())
