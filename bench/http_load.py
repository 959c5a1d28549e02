"""A lean HTTP/1.1 client: one kept connection, one request at a time, little processor time of its own."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, cast

import httptools


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    body: bytes

    def expect(self, *statuses: int) -> Self:
        """Return self; raise if the status is none of these."""
        if self.status not in statuses:
            raise RuntimeError(f"answered {self.status}, expected {statuses}: {self.body[:500]!r}")
        return self

    def json(self) -> Any:
        return json.loads(self.body)


class Connection(asyncio.Protocol):
    """One connection. httptools calls the ``on_`` methods."""

    def __init__(self, host: str, token: str | None) -> None:
        self._host = host
        self._head = self._head_with(token)
        self._waiting: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []

    @classmethod
    async def open(cls, host: str, port: int, *, token: str | None = None) -> "Connection":
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: cls(f"{host}:{port}", token), host, port)
        return connection

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _head_with(self, token: str | None) -> bytes:
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        return f"Host: {self._host}\r\n{authorization}".encode()

    async def get(self, path: str) -> Answer:
        return await self._ask(b"GET %b HTTP/1.1\r\n%b\r\n" % (path.encode(), self._head))

    async def post(self, path: str, body: object, *, token: str | None = None) -> Answer:
        """POST ``body``; ``token`` instead of the connection's own."""
        head = self._head if token is None else self._head_with(token)
        data = b"" if body is None else json.dumps(body).encode()
        kind = b"Content-Type: application/json\r\n" if data else b""
        return await self._ask(
            b"POST %b HTTP/1.1\r\n%b%bContent-Length: %d\r\n\r\n%b" % (path.encode(), head, kind, len(data), data)
        )

    def _ask(self, request: bytes) -> Awaitable[Answer]:
        if self._transport is None or self._waiting is not None:
            raise RuntimeError("this connection is closed or busy")
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiting

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error or ConnectionResetError("the server closed the connection"))

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        answer = Answer(status=self._parser.get_status_code(), body=b"".join(self._body))
        waiting, self._waiting = self._waiting, None
        self._body.clear()
        self._parser = httptools.HttpResponseParser(self)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)


@dataclass(slots=True)
class Run:
    """What a run took."""

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies_s) / self.seconds


async def drive(
    connections: Sequence[Connection], count: int, step: Callable[[Connection, int], Awaitable[object]]
) -> Run:
    """Take ``count`` steps over ``connections``, one at a time on each; measure each and all."""
    run = Run()
    numbers = iter(range(count))

    async def work(connection: Connection) -> None:
        for number in numbers:
            began = time.perf_counter()
            await step(connection, number)
            run.latencies_s.append(time.perf_counter() - began)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(work(connection))
    run.seconds = time.perf_counter() - began
    return run
