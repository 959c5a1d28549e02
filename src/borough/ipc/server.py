"""The two sockets: one for operators of this machine, one for agents.

On a connection, requests are answered in their order, one at a time. A client that leaves ends what it waits for; one
that does not read its answers is cut off.
"""

import asyncio
import contextlib
import os
import select
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from borough.core.errors import BoroughError, Forbidden
from borough.core.ids import new_id
from borough.governance.tokens import OPERATOR
from borough.http.governance.authentication import principal_of
from borough.ipc.dispatch import Dispatcher, Speaker
from borough.ipc.frames import BadFrame, frame, message_of, read_frame
from borough.ipc.identity import NonceRegistry, Run
from borough.ipc.peers import Peer, peer_of
from borough.ipc.refusals import told
from borough.ipc.rows import invalid

MOST_CONNECTIONS = 512
"""For each socket; who comes later is told so and let go."""
HELLO_WITHIN_S = 10.0
ANSWER_TAKEN_WITHIN_S = 30.0
CLOSED_WITHIN_S = 1.0
LOOKED_FOR_EVERY_S = 1.0
"""How often a client that has said all it had to say is looked for, while it waits for an answer."""
_FIRST = "Hello"

_log = structlog.get_logger(__name__)

OnRefused = Callable[[str, str], None]
"""Told of each connection that was not let in: who it was, and why. It may only take note."""
Admit = Callable[["Connection"], Awaitable[Speaker | None]]


@dataclass(slots=True, kw_only=True)
class Connection:
    """One client."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    peer: Peer
    stopping: asyncio.Event
    run: Run | None = None
    waiting: "asyncio.Task[bytes | None] | None" = field(default=None)

    async def next(self) -> bytes | None:
        """Return the next frame, or ``None`` at the end."""
        reading, self.waiting = self.waiting or self._begin(), None
        return await reading

    def ahead(self) -> "asyncio.Task[bytes | None]":
        """Begin to read the next frame while the last one is being answered; no further than that."""
        self.waiting = self.waiting or self._begin()
        return self.waiting

    async def send(self, message: object) -> None:
        """Send a message; raises ``TimeoutError`` when the client does not take it."""
        self.writer.write(frame(message))
        async with asyncio.timeout(ANSWER_TAKEN_WITHIN_S):
            await self.writer.drain()

    async def departure(self) -> None:
        """Return when the client has left, its run has ended, or the daemon stops."""
        waits: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(self._left()),
            asyncio.ensure_future(self.stopping.wait()),
        ]
        if self.run is not None:
            waits.append(asyncio.ensure_future(self.run.ended.wait()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _left(self) -> None:
        """Return when the client has closed; one that only says no more still waits for its answer."""
        with contextlib.suppress(BadFrame):  # it is told when its turn comes
            await asyncio.shield(self.ahead())
        while not has_hung_up(self.writer):  # noqa: ASYNC110 - asyncio tells of no hang-up while nothing is read
            # Only where there is nothing left to read: another request is here already, or there will be none.
            await asyncio.sleep(LOOKED_FOR_EVERY_S)

    def _begin(self) -> "asyncio.Task[bytes | None]":
        return asyncio.ensure_future(read_frame(self.reader))

    async def close(self) -> None:
        """Let go of the client."""
        if self.waiting is not None:
            self.waiting.cancel()
            await asyncio.gather(self.waiting, return_exceptions=True)
        self.writer.close()
        try:
            async with asyncio.timeout(CLOSED_WITHIN_S):
                await self.writer.wait_closed()
        except TimeoutError:
            self.writer.transport.abort()  # what it was sent and does not read would keep it open for ever
        except ConnectionError as gone:
            _log.debug("socket.gone", pid=self.peer.pid, why=str(gone))


class Listener:
    """Serves one socket. ``admit`` says who a new connection is, or refuses it."""

    def __init__(self, dispatcher: Dispatcher, admit: Admit, *, on_refused: OnRefused) -> None:
        self._dispatcher = dispatcher
        self._admit = admit
        self._on_refused = on_refused
        self._stopping = asyncio.Event()
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, listening: socket.socket) -> None:
        """Serve connections from now on."""
        self._server = await asyncio.start_unix_server(self._serve, sock=listening)

    async def stop(self, *, drain_s: float = 5.0) -> None:
        """Take no more connections, let running requests finish for ``drain_s``, and close."""
        if self._server is not None:
            self._server.close()
        self._stopping.set()
        if self._open:
            _done, late = await asyncio.wait(self._open, timeout=drain_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a connection is served by a task")
        self._open.add(task)
        connection = Connection(reader=reader, writer=writer, peer=_peer(writer), stopping=self._stopping)
        try:
            await self._talk(connection)
        except BadFrame as bad:
            with contextlib.suppress(ConnectionError, TimeoutError):
                await connection.send(told(invalid(str(bad)), new_id()))
        except (ConnectionError, TimeoutError) as gone:
            _log.info("socket.cut", pid=connection.peer.pid, why=str(gone) or "it does not read its answers")
        finally:
            await connection.close()
            self._open.discard(task)

    async def _talk(self, connection: Connection) -> None:
        if len(self._open) > MOST_CONNECTIONS:
            await connection.send({"Error": {"message": "too many connections", "code": "too_many_connections"}})
            return
        try:
            speaker = await self._admit(connection)
        except Forbidden as refusal:
            self._on_refused(f"pid {connection.peer.pid} of uid {connection.peer.uid}", refusal.reason or refusal.code)
            await connection.send(told(refusal, new_id()))
            return
        except BoroughError as failure:
            await connection.send(told(failure, new_id()))
            return
        if speaker is None:
            return
        while not self._stopping.is_set() and not (connection.run and connection.run.ended.is_set()):
            body = await self._request(connection)
            if body is None:
                return
            answer = await self._answer(connection, speaker, body)
            if answer is None:
                return
            await connection.send(answer)

    async def _request(self, connection: Connection) -> bytes | None:
        """Return the next request; ``None`` when there will be none."""
        reading = connection.ahead()
        ends = asyncio.ensure_future(connection.departure())
        try:
            await asyncio.wait({reading, ends}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ends.cancel()
            await asyncio.gather(ends, return_exceptions=True)
        return await connection.next() if reading.done() else None

    async def _answer(self, connection: Connection, speaker: Speaker, body: bytes) -> object | None:
        """Return the answer; ``None`` when the client left before there was one, and what it asked for was ended."""
        name, fields = message_of(body)
        working = asyncio.ensure_future(
            self._dispatcher.answer(speaker, name, fields, disconnected=connection.departure)
        )
        leaving = asyncio.ensure_future(connection.departure())
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done() and self._stopping.is_set():
                # Long waits end by ``disconnected``; what is really under way is let finish within the drain.
                await asyncio.wait({working})
            return working.result() if working.done() else None
        finally:
            for task in (working, leaving):
                task.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)


def operators_only(*, own_uid: int | None = None) -> Admit:
    """Return what admits the user who runs the daemon, and root."""
    allowed = {os.geteuid() if own_uid is None else own_uid, 0}

    async def admit(connection: Connection) -> Speaker:
        if connection.peer.uid not in allowed:
            raise Forbidden(
                "permission denied",
                code="denied",
                reason=f"this socket is for uid {min(allowed - {0}, default=0)} and root",
                resolution="run as the user who started the daemon, or use the gateway with a key",
            )
        return Speaker(principal=principal_of(OPERATOR))

    return admit


def agents_only(runs: NonceRegistry) -> Admit:
    """Return what admits agents: the first message has to be ``{"Hello": {"nonce": "…"}}``."""

    async def admit(connection: Connection) -> Speaker | None:
        async with asyncio.timeout(HELLO_WITHIN_S):
            body = await connection.next()
        if body is None:
            return None
        name, fields = message_of(body)
        if name != _FIRST:
            raise Forbidden(
                "permission denied",
                code="denied",
                reason="the first message has to say which run this is",
                resolution='send {"Hello": {"nonce": "<what the daemon handed over>"}} first',
            )
        connection.run = await runs.claim(fields.get("nonce"), connection.peer)
        await connection.send("Ok")
        return Speaker(principal=connection.run.principal, agent_id=connection.run.agent_id)

    return admit


def has_hung_up(writer: asyncio.StreamWriter) -> bool:
    """Tell whether the other side has closed its socket for both directions (poll(2), ``POLLHUP``)."""
    if writer.is_closing():
        return True
    poller = select.poll()
    poller.register(writer.get_extra_info("socket").fileno(), 0)
    return any(event & (select.POLLHUP | select.POLLERR) for _descriptor, event in poller.poll(0))


def _peer(writer: asyncio.StreamWriter) -> Peer:
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as connection:
        return peer_of(connection)
