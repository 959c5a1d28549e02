"""Serves the demo table as a program: ``python -m tests.surfaces.demo_server ready.json [tls options]``."""

import argparse
import asyncio
import json
import ssl
from pathlib import Path

import uvloop
from cryptography import x509
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from borough.http.binding import bind, server_url
from borough.http.guards import host_rule
from borough.http.limits import LoginThrottle, RateLimits
from borough.http.middleware import Edge, EdgeSettings
from borough.http.server import serve
from borough.http.surfaces import Policies
from tests.surfaces.demo import DemoState, demo_table


async def run(options: argparse.Namespace) -> None:
    stopping = asyncio.Event()
    state = DemoState()
    policies = Policies(
        stopping=stopping,
        limits=RateLimits(reads_per_minute=10**9, writes_per_minute=10**9) if options.limits else None,
        logins=LoginThrottle(),
    )
    hosts = host_rule("127.0.0.1")
    app = Edge(
        _with_peer(demo_table(state, policies)),
        EdgeSettings(hosts=hosts, stopping=stopping, access_log=options.access_log),
    )
    context = None
    if options.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.cert, options.key)
        if options.client_ca:
            context.load_verify_locations(options.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    sockets = bind("127.0.0.1", options.port)
    url = server_url(sockets, tls=context is not None)

    def ready() -> None:
        Path(options.ready).write_text(json.dumps({"url": url}))

    watch = asyncio.ensure_future(_release_after(stopping, state)) if options.release_after_stop else None
    await serve(app, sockets, stopping=stopping, tls=context, on_ready=ready, drain_s=options.drain)
    if watch is not None:
        await watch
    Path(options.ready).write_text(json.dumps({"closed": True}))


def _with_peer(app: ASGIApp) -> ASGIApp:
    """Add a path that tells whose certificate the client has."""

    async def serve_peer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/peer":
            await app(scope, receive, send)
            return
        certificate = x509.load_der_x509_certificate(scope["extensions"]["tls"]["client_cert"])
        await JSONResponse({"value": certificate.subject.rfc4514_string()})(scope, receive, send)

    return serve_peer


async def _release_after(stopping: asyncio.Event, state: DemoState) -> None:
    """Let a request that runs take a second longer than the signal to stop."""
    await stopping.wait()
    await asyncio.sleep(1.0)
    state.released.set()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("ready")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--drain", type=int, default=30)
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--client-ca")
    parser.add_argument("--access-log", action="store_true")
    parser.add_argument("--limits", action="store_true")
    parser.add_argument("--release-after-stop", action="store_true")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
