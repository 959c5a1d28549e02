"""Published ports without privilege: this program listens, and speaks into a machine's own network namespace.

There is no bridge then. A machine has only what its engine gives it, and no way out but the proxy; what is said to a
published port arrives at the machine's own loopback.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping

import structlog

from borough.core.errors import BoroughError
from borough.fleet.vms import VmId

Connect = Callable[[VmId, int], Awaitable[socket.socket]]
"""Returns a socket that is connected to a port inside a machine; raises ``OSError`` or ``Unavailable``."""

_CHUNK_BYTES = 65_536
_MOST_CONNECTIONS = 256
"""Of one port at the same time; more are closed at once."""

_log = structlog.get_logger(__name__)


class Forwarder:
    """Listens at ports of the host for machines. Use it from one event loop; ``close`` it before the loop ends."""

    def __init__(self, connect: Connect, *, address: str) -> None:
        self._connect = connect
        self._address = address
        self._open: dict[int, _Published] = {}

    async def publish(self, wanted: Mapping[int, tuple[VmId, int]]) -> Mapping[VmId, str]:
        """Listen for exactly these: port of the host → machine and port in it.

        Return the machines that lack one of their ports, and why: others have the port. It is tried again each time.
        """
        lacking: dict[VmId, str] = {}
        for port in [*self._open]:
            if wanted.get(port) != self._open[port].leads_to:
                await self._open.pop(port).close()
        for port, leads_to in wanted.items():
            if port not in self._open:
                published = _Published(leads_to, self._connect)
                try:
                    await published.listen(self._address, port)
                except OSError as failure:
                    lacking[leads_to[0]] = f"port {port} cannot be published: {failure.strerror or failure}"
                else:
                    self._open[port] = published
        return lacking

    async def close(self) -> None:
        """Stop listening and end every connection."""
        await self.publish({})


class _Published:
    def __init__(self, leads_to: tuple[VmId, int], connect: Connect) -> None:
        self.leads_to = leads_to
        self._connect = connect
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, address: str, port: int) -> None:
        self._server = await asyncio.start_server(self._accept, address, port)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= _MOST_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.close())  # however it ends, also before it began

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        vm_id, port = self.leads_to
        try:
            inner = await self._connect(vm_id, port)
            inner_reader, inner_writer = await asyncio.open_connection(sock=inner)
        except (OSError, BoroughError) as failure:
            # As if nobody listened: whoever calls sees the connection end, as on any machine whose service is down.
            _log.debug("published_port_unanswered", vm_id=vm_id, port=port, reason=str(failure))
            writer.transport.abort()
            return
        try:
            await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
        except OSError as end:
            _log.debug("published_connection_broke", vm_id=vm_id, port=port, reason=str(end))
        finally:
            inner_writer.close()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while part := await source.read(_CHUNK_BYTES):
        target.write(part)
        await target.drain()
    with contextlib.suppress(OSError):  # the other side has gone already, and needs no end told
        target.write_eof()
