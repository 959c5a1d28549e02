"""One connection of a box, from its request to its end."""

import asyncio
import contextlib
from dataclasses import replace

import h11
import structlog

from borough.adapters.egress.judging import Judge, Passage, Refusal
from borough.adapters.egress.limits import EgressLimits, LimitReached, Meter
from borough.adapters.egress.pages import pass_on
from borough.adapters.egress.requests import Asked, read_request
from borough.adapters.egress.tunnels import run_tunnel
from borough.adapters.egress.verdicts import VerdictBook
from borough.adapters.egress.wire import Streams, Wire
from borough.auth.machines import MACHINE_HEADER, SERVER_NAME
from borough.core.errors import BoroughError, Forbidden, Invalid
from borough.governance.manifests import Network

_BAD_REQUEST, _FORBIDDEN, _TIMEOUT, _TOO_LARGE = 400, 403, 408, 413
_BAD_GATEWAY, _UNAVAILABLE, _GATEWAY_TIMEOUT = 502, 503, 504
_STATUS = {"network_denied": _FORBIDDEN, "not_resolved": _BAD_GATEWAY, "invalid_host": _BAD_REQUEST}
_NO_TUNNEL = f"{SERVER_NAME} is asked for pages, as in http://{SERVER_NAME}/health, not for a tunnel"
_USED_UP = "the box has used up the bytes that it may transfer"

log = structlog.get_logger("borough.egress")


class BoxProxy:
    """The proxy of one box: everything that arrives at its listener is this box's, whatever it says of itself."""

    def __init__(
        self, *, network: Network, judge: Judge, book: VerdictBook, limits: EgressLimits, machine: str | None = None
    ) -> None:
        """``machine`` is whom Borough's own server is told that a request is from."""
        self._machine = machine
        self._network, self._judge, self._book, self._limits = network, judge, book, limits
        self._meter = Meter(limits)
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection; for ``asyncio.start_server``."""
        task = asyncio.get_running_loop().create_task(self._serve(Streams(reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End every connection, and tell what was let out."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._book.close()

    async def _serve(self, client: Streams) -> None:
        wire = Wire(h11.SERVER, client, head_bytes=self._limits.head_bytes, moved=_Nobody.moved)
        try:
            if len(self._tasks) > self._limits.connections:
                await wire.answer(_UNAVAILABLE, f"egress: more than {self._limits.connections} connections at once")
                return
            await self._answer_one(wire)
        except (OSError, LimitReached, h11.ProtocolError) as end:
            # The client, the server or the limit ended it in the middle; what was sent so far cannot be taken back.
            log.debug("egress connection ended", reason=str(end) or type(end).__name__)
        except BoroughError as error:
            log.warning("egress verdict could not be recorded; its connection is closed", reason=error.message)
        finally:
            await _shut(client.writer)

    async def _answer_one(self, wire: Wire) -> None:
        try:
            async with asyncio.timeout(self._limits.head_timeout_s):
                request = await wire.receive()
        except TimeoutError:
            await wire.answer(_TIMEOUT, f"egress: no whole request within {self._limits.head_timeout_s:g} s")
            return
        except h11.RemoteProtocolError as error:
            await _try_answer(wire, error.error_status_hint, f"egress: {error}")
            return
        if not isinstance(request, h11.Request):
            return
        try:
            asked = read_request(request)
        except Invalid as error:
            await self._book.refused("", 0, error.message)
            await wire.answer(_BAD_REQUEST, f"egress: {error.message}")
            return
        await self._let_out(wire, request, asked)

    async def _let_out(self, wire: Wire, request: h11.Request, asked: Asked) -> None:
        way = await self._judge.judge(self._network, asked.host, asked.port)
        if isinstance(way, Passage) and way.connect_to is not None and asked.target is None:
            # In a tunnel it could say whatever it likes of where it comes from.
            way = Refusal(host=way.host, port=way.port, code="network_denied", reason=_NO_TUNNEL)
        try:
            if isinstance(way, Refusal):
                await self._book.refused(way.host, way.port, way.reason)
            else:
                await self._book.allowed(way.host, way.port, way.rule)
        except BoroughError as error:
            await wire.answer(_UNAVAILABLE, f"egress: what cannot be recorded does not happen: {error.message}")
            return
        if isinstance(way, Refusal):
            await wire.answer(_STATUS[way.code], f"egress denied: {way.reason}")
            return
        upstream = await self._connect(wire, way)
        if upstream is None:
            return
        try:
            added = [] if way.connect_to is None else [(MACHINE_HEADER, self._machine or "")]
            await self._carry(wire, upstream, request, replace(asked, added=tuple(added)))
        finally:
            await _shut(upstream.writer)

    async def _connect(self, wire: Wire, way: Passage) -> Streams | None:
        """Return a connection to one of the judged addresses, and to no other; or answer why there is none."""
        failure = "no address answered"
        for address in way.addresses:
            try:
                async with asyncio.timeout(self._limits.connect_timeout_s):
                    return Streams(*await asyncio.open_connection(str(address), way.connect_to or way.port))
            except TimeoutError:
                failure = f"{address} did not answer within {self._limits.connect_timeout_s:g} s"
            except OSError as error:
                failure = f"{address}: {error.strerror or error}"
        await wire.answer(_BAD_GATEWAY, f"egress: {way.host}:{way.port} cannot be reached: {failure}")
        return None

    async def _carry(self, wire: Wire, upstream: Streams, request: h11.Request, asked: Asked) -> None:
        if asked.target is not None:
            await self._carry_page(wire, upstream, request, asked)
            return
        await wire.send(h11.Response(status_code=200, headers=[], reason=b"Connection established"))
        early, _ = wire.state.trailing_data
        try:
            await run_tunnel(
                wire.streams,
                upstream,
                early=early,
                host=asked.host,
                port=asked.port,
                limits=self._limits,
                meter=self._meter,
            )
        except Forbidden as error:
            await self._book.refused(asked.host, asked.port, error.reason or error.message)
        except LimitReached:
            await self._book.refused(asked.host, asked.port, _USED_UP)

    async def _carry_page(self, wire: Wire, upstream: Streams, request: h11.Request, asked: Asked) -> None:
        try:
            await pass_on(wire, upstream, request, asked, limits=self._limits, meter=self._meter)
        except TimeoutError:
            await _try_answer(wire, _GATEWAY_TIMEOUT, f"egress: {asked.host} sent nothing for too long")
        except LimitReached:
            await self._book.refused(asked.host, asked.port, _USED_UP)
            await _try_answer(wire, _TOO_LARGE, f"egress: {_USED_UP}")
        except (OSError, h11.RemoteProtocolError) as error:
            await _try_answer(wire, _BAD_GATEWAY, f"egress: {asked.host}: {error}")


class _Nobody:
    """Is told of what is read before there is a request to count it for."""

    @staticmethod
    def moved(size: int) -> None:
        """Take no notice."""


async def _try_answer(wire: Wire, status: int, text: str) -> None:
    """Answer if nothing was answered yet."""
    if wire.state.our_state in (h11.IDLE, h11.SEND_RESPONSE):
        await wire.answer(status, text)


async def _shut(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):  # the other side was faster; it is closed either way
        await writer.wait_closed()
