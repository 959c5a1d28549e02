"""A tunnel: bytes in both directions, once the client's first ones agree with the host that it asked for."""

import asyncio

from borough.adapters.egress.hello import NotTls, begins_like_tls, read_hello
from borough.adapters.egress.limits import EgressLimits, Idle, Meter
from borough.adapters.egress.wire import CHUNK_BYTES, Streams
from borough.core.errors import Forbidden, Invalid
from borough.governance.hosts import canonical_host

HTTPS_PORT = 443


class _Tunnel:
    def __init__(self, client: Streams, upstream: Streams, *, meter: Meter, idle: Idle) -> None:
        self._client, self._upstream = client, upstream
        self._meter, self._idle = meter, idle

    async def run(self, early: bytes, host: str, port: int) -> None:
        async with asyncio.TaskGroup() as directions:
            directions.create_task(self._out(early, host, port))
            directions.create_task(self._copy(self._upstream.reader, self._client.writer))

    async def _out(self, early: bytes, host: str, port: int) -> None:
        first = await self._agreed(early, host, port)
        self._meter.count(len(early))
        self._upstream.writer.write(first)
        await self._upstream.writer.drain()
        await self._copy(self._client.reader, self._upstream.writer)

    async def _agreed(self, data: bytes, host: str, port: int) -> bytes:
        """Return what the client said first, as soon as it is clear that it may be passed on."""
        while True:
            if data and not begins_like_tls(data) and port != HTTPS_PORT:
                return data
            try:
                hello = read_hello(data)
            except NotTls as error:
                raise _refused(f"what goes to {host}:{port} is not TLS as it should be: {error}") from None
            if hello is not None:
                _check_name(hello.server_name, host)
                return data
            more = await self._read(self._client.reader)
            if not more:
                # A hello that ends early is passed on nowhere; nothing at all is a client that only listens.
                if data:
                    raise _refused(f"the TLS hello to {host} ended early")
                return data
            data += more

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await self._read(reader):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        data = await reader.read(CHUNK_BYTES)
        self._meter.count(len(data))
        self._idle.moved()
        return data


async def run_tunnel(
    client: Streams, upstream: Streams, *, early: bytes, host: str, port: int, limits: EgressLimits, meter: Meter
) -> None:
    """Carry bytes until both sides are done.

    Raises:
        Forbidden: the client speaks to another host than it asked for, or no TLS to port 443 (``network_denied``).
        TimeoutError: nothing moved for too long.
        LimitReached: the box has used up its bytes.
    """
    try:
        async with asyncio.timeout(limits.idle_timeout_s) as timeout:
            tunnel = _Tunnel(client, upstream, meter=meter, idle=Idle(timeout, limits.idle_timeout_s))
            await tunnel.run(early, host, port)
    except ExceptionGroup as group:
        # One direction failed and ended the other: what it says is what counts.
        raise group.exceptions[0] from None


def _check_name(server_name: str | None, host: str) -> None:
    if host.startswith("[") or host.replace(".", "").isdigit():
        # An address cannot be a server's name (RFC 6066, 3); then a name would be one that was not asked for.
        if server_name is not None:
            raise _refused(f"TLS asks for {server_name[:200]} at the address {host}")
        return
    if server_name is None:
        raise _refused(f"TLS does not say that it asks for {host}")
    try:
        asked = canonical_host(server_name)
    except Invalid:
        asked = ""
    if asked != host:
        raise _refused(f"TLS asks for {server_name[:200]}, the tunnel was for {host}")


def _refused(reason: str) -> Forbidden:
    return Forbidden(
        "the tunnel is refused",
        code="network_denied",
        reason=reason,
        resolution="open a tunnel for each host by its own name",
    )
