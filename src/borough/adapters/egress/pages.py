"""A plain request passed on, and its answer passed back; read and written anew by h11, so that both sides agree."""

import asyncio

import h11

from borough.adapters.egress.limits import EgressLimits, Idle, Meter
from borough.adapters.egress.requests import Asked, end_to_end
from borough.adapters.egress.wire import Streams, Wire
from borough.auth.machines import MACHINE_HEADER

_SAID_BY_PROXIES = (b"forwarded", b"x-forwarded-", b"x-real-ip", MACHINE_HEADER.encode())


async def pass_on(
    client: Wire, upstream: Streams, request: h11.Request, asked: Asked, *, limits: EgressLimits, meter: Meter
) -> None:
    """Send ``request`` to ``upstream`` and its answer back; one request a connection.

    Raises:
        h11.RemoteProtocolError: one of them does not speak HTTP/1.1.
        TimeoutError: nothing moved for too long.
        LimitReached: the box has used up its bytes.
    """
    async with asyncio.timeout(limits.idle_timeout_s) as timeout:
        idle = Idle(timeout, limits.idle_timeout_s)

        def moved(size: int) -> None:
            meter.count(size)
            idle.moved()

        server = Wire(h11.CLIENT, upstream, head_bytes=limits.head_bytes, moved=moved)
        client.on_moved(moved)
        await server.send(_rewritten(request, asked))
        sending = asyncio.ensure_future(_request_body(client, server))
        answering = asyncio.ensure_future(_answer(server, client, idle))
        try:
            await asyncio.wait({sending, answering}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and isinstance(failure := sending.exception(), h11.RemoteProtocolError):
                raise failure
            await answering
        finally:
            # A server may answer before it has read the body; then the rest of it is nobody's.
            sending.cancel()
            answering.cancel()
            await asyncio.gather(sending, answering, return_exceptions=True)


def _rewritten(request: h11.Request, asked: Asked) -> h11.Request:
    headers = [(name, value) for name, value in end_to_end(request.headers) if name != b"host"]
    host = asked.host if asked.port == 80 else f"{asked.host}:{asked.port}"  # noqa: PLR2004 - the port of http
    if asked.added:
        headers = [(name, value) for name, value in headers if not name.startswith(_SAID_BY_PROXIES)]
    added = [(name.encode(), value.encode()) for name, value in asked.added]
    headers = [(b"Host", host.encode()), *headers, *added, (b"Connection", b"close")]
    return h11.Request(method=request.method, target=asked.target or b"/", headers=headers)


async def _request_body(client: Wire, server: Wire) -> None:
    if client.state.they_are_waiting_for_100_continue:
        await client.send(h11.InformationalResponse(status_code=100, headers=[]))
    while True:
        event = await client.receive()
        if isinstance(event, h11.Data | h11.EndOfMessage):
            await server.send(_plain(event))
        if isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            return


async def _answer(server: Wire, client: Wire, idle: Idle) -> None:
    while True:
        event = await server.receive()
        if isinstance(event, h11.Response):
            headers = [*end_to_end(event.headers), (b"Connection", b"close")]
            await client.send(h11.Response(status_code=event.status_code, headers=headers, reason=event.reason))
        elif isinstance(event, h11.Data | h11.EndOfMessage):
            await client.send(_plain(event))
        elif isinstance(event, h11.ConnectionClosed):
            raise h11.RemoteProtocolError("the server closed the connection without an answer")
        idle.moved()
        if isinstance(event, h11.EndOfMessage):
            return


def _plain(event: h11.Data | h11.EndOfMessage) -> h11.Data | h11.EndOfMessage:
    """Return a part of a body without trailers, which could say about the body what the headers did not."""
    return h11.EndOfMessage() if isinstance(event, h11.EndOfMessage) else h11.Data(data=bytes(event.data))
