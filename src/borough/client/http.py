"""A thin synchronous HTTP client: JSON in and out, refusals as ``core.errors``, event streams that reconnect.

Every POST carries an ``Idempotency-Key``, so a request whose answer was lost is repeated without being done twice.
"""

import http.client
import json
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Final, Self

from borough.client.answers import SUCCESS, Answer, checked, read_answer
from borough.client.discovery import NoServer, ServerAddress
from borough.client.problems import error_from
from borough.client.sse import ServerSentEvent, read_events
from borough.client.tls import tls_connection
from borough.client.urls import Query, split, target_of
from borough.core.errors import BoroughError, Unavailable
from borough.core.ids import new_id

if TYPE_CHECKING:
    from borough.client.websocket import WebSocket

DEFAULT_TIMEOUT_S: Final = 60.0
STREAM_SILENCE_S: Final = 60.0
"""A stream that says nothing, not even a comment, for this long is taken for dead and opened again."""
DEFAULT_PATIENCE_S: Final = 60.0
_PART_BYTES: Final = 1 << 16
_DROPPED: Final = (http.client.HTTPException, ConnectionError, TimeoutError)


class Client:
    """One server, one connection, one caller."""

    def __init__(
        self,
        address: ServerAddress,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        """``trace`` is told each request and what came of it."""
        self._trace = trace
        self._address = address
        self._parts = split(address.url)
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None

    @property
    def url(self) -> str:
        """The server's address."""
        return self._address.url

    def again(self) -> Self:
        """Return another client of the same server, with a connection of its own."""
        return type(self)(self._address, timeout_s=self._timeout_s, trace=self._trace)

    @property
    def token(self) -> str | None:
        """The credential that is sent; never to be printed."""
        return self._address.token

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, path: str, query: Query | None = None) -> Any:
        """Return the document at ``path``."""
        return self.request("GET", path, query=query).json()

    def post(self, path: str, body: Mapping[str, object] | None = None, *, key: str | None = None) -> Any:
        """Return the answer to ``body``; ``key`` names the deed, so that repeating it changes nothing."""
        return self.request("POST", path, body=body, headers={"Idempotency-Key": key or new_id()}).json()

    def delete(self, path: str) -> Any:
        """Return the answer to a deletion."""
        return self.request("DELETE", path).json()

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Return a success; raise what a refusal means.

        Raises:
            NoServer: nobody listens there, or the connection was lost twice.
            BoroughError: the server refused; the kind follows from its status.
        """
        content = None if body is None else json.dumps(body).encode()
        target = target_of(self._parts, path, query)
        sent = self._headers(headers, has_body=content is not None)
        try:
            answer = self._exchange(method, target, content, sent)
        except _DROPPED as problem:
            # Deleting again what is gone would answer 404 to a success; everything else may be said twice.
            if method == "DELETE" or isinstance(problem, ConnectionRefusedError | TimeoutError):
                raise self._lost(problem) from problem
            answer = self._again(method, target, content, sent)
        self._said(f"{method} {self.url}{target}: {answer.status}, {len(answer.body)} bytes")
        if answer.status not in SUCCESS:
            raise error_from(answer.status, answer.headers, answer.body)
        return answer

    def stream(
        self, path: str, query: Query | None = None, *, last_event_id: str | None = None
    ) -> Generator[ServerSentEvent]:
        """Yield events from one connection of its own until the server ends it; closing the iterator ends it.

        Raises:
            NoServer: the connection could not be opened or was lost.
        """
        wanted = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if last_event_id:
            wanted["Last-Event-ID"] = last_event_id
        with self._another(STREAM_SILENCE_S) as connection:
            connection.request(
                "GET", target_of(self._parts, path, query), headers=self._headers(wanted, has_body=False)
            )
            with connection.getresponse() as response:
                yield from read_events(checked(response))

    def parts(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Mapping[str, object] | None = None,
        silence_s: float | None = None,
    ) -> Generator[bytes]:
        """Yield an answer as it comes, over a connection of its own; closing the iterator ends it.

        ``silence_s``: how long nothing may come before the server is taken for lost; ``None``: for ever.

        Raises:
            NoServer: the connection could not be opened or was lost before the end.
        """
        content = None if body is None else json.dumps(body).encode()
        with self._another(self._timeout_s) as connection:
            if connection.sock is not None:
                connection.sock.settimeout(silence_s)
            headers = self._headers({"Accept": "*/*"}, has_body=content is not None)
            connection.request(method, target_of(self._parts, path, query), body=content, headers=headers)
            # One after which the server closes holds the socket itself: to close the connection is not enough.
            with connection.getresponse() as response:
                checked(response)
                while part := response.read1(_PART_BYTES):
                    yield part

    def send(self, method: str, path: str, content: Iterable[bytes], *, query: Query | None = None) -> Any:
        """Send ``content`` as it comes, over a connection of its own; return the answer's document.

        Raises:
            NoServer: the connection could not be opened or was lost; it is not known whether all came.
        """
        with self._another(self._timeout_s) as connection:
            headers = self._headers({"Content-Type": "application/octet-stream"}, has_body=False)
            try:
                connection.request(method, target_of(self._parts, path, query), body=content, headers=headers)
            except (BrokenPipeError, ConnectionResetError):
                # A server that refuses does not wait for the rest: what it said may still be read.
                self._said("the upload was cut off")
            with connection.getresponse() as response:
                return read_answer(checked(response)).json()

    @contextmanager
    def download(self, path: str, query: Query | None = None) -> Iterator[IO[bytes]]:
        """Hand out the body at ``path`` as a file to read from, however long it is.

        Raises:
            NoServer: the connection could not be opened or was lost.
            BoroughError: the server refused.
        """
        with self._another(self._timeout_s) as connection:
            headers = self._headers({"Accept": "*/*"}, has_body=False)
            connection.request("GET", target_of(self._parts, path, query), headers=headers)
            with connection.getresponse() as response:
                yield checked(response)

    def conversation(self, path: str) -> "WebSocket":
        """Open a WebSocket at ``path``, over a connection of its own.

        Raises:
            NoServer: the connection could not be opened or was lost.
            BoroughError: the server refused.
        """
        from borough.client.websocket import WebSocket  # noqa: PLC0415 - few commands need it

        connection = self._connect(self._timeout_s)
        sock, connection.sock = connection.sock, None
        headers = {name: value for name, value in self._headers(None, has_body=False).items() if name != "Accept"}
        scheme = "ws" if self._parts.scheme == "http" else "wss"
        try:
            opened = WebSocket.open(
                sock, f"{scheme}://{self._parts.netloc}{target_of(self._parts, path, None)}", headers
            )
        except OSError as problem:
            raise self._lost(problem) from problem
        sock.settimeout(None)
        return opened

    def follow(
        self,
        path: str,
        query: Query | None = None,
        *,
        last_event_id: str = "",
        patience_s: float = DEFAULT_PATIENCE_S,
    ) -> Iterator[ServerSentEvent]:
        """Yield events after ``last_event_id`` for ever: a lost stream is opened again after the last event seen.

        Raises:
            NoServer: the server stayed away for ``patience_s``.
        """
        last_id, lost_at, pause_s = last_event_id, 0.0, 0.2
        while True:
            try:
                for event in self.stream(path, query, last_event_id=last_id):
                    last_id, lost_at, pause_s = event.id or last_id, 0.0, 0.2
                    yield event
            except Unavailable:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > patience_s:
                    raise
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 5.0)

    def _exchange(self, method: str, target: str, content: bytes | None, headers: Mapping[str, str]) -> Answer:
        try:
            if self._connection is None:
                self._connection = self._connect(self._timeout_s)
            self._connection.request(method, target, body=content, headers=dict(headers))
            with self._connection.getresponse() as response:
                return read_answer(response)
        except BaseException:
            self.close()  # a connection that was left in mid-answer cannot be used again
            raise

    def _again(self, method: str, target: str, content: bytes | None, headers: Mapping[str, str]) -> Answer:
        try:
            return self._exchange(method, target, content, headers)
        except _DROPPED as problem:
            raise self._lost(problem) from problem

    @contextmanager
    def _another(self, timeout_s: float) -> Iterator[http.client.HTTPConnection]:
        """Hand out a connection of its own, closed in the end; losing it means that the server is lost."""
        connection = self._connect(timeout_s)
        try:
            yield connection
        except _DROPPED as problem:
            raise self._lost(problem) from problem
        finally:
            connection.close()

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "http":
            connection = http.client.HTTPConnection(host, port or 80, timeout=timeout_s)
        else:
            connection = tls_connection(host, port or 443, self._address.tls, timeout_s)
        try:
            connection.connect()
        except OSError as problem:
            raise self._lost(problem) from problem
        return connection

    def _headers(self, more: Mapping[str, str] | None, *, has_body: bool) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": "borough"}
        if has_body:
            headers["Content-Type"] = "application/json"
        if self._address.token:
            headers["Authorization"] = f"Bearer {self._address.token}"
        return headers | dict(more or {})

    def _said(self, text: str) -> None:
        if self._trace is not None:
            self._trace(text)

    def _lost(self, problem: Exception) -> BoroughError:
        if isinstance(problem, TimeoutError):
            return Unavailable(
                f"{self.url} did not answer in time",
                code="server_timeout",
                reason=str(problem) or "the server accepted the request and then said nothing",
                resolution="see the server's log; 'tt doctor' checks what it needs",
            )
        reason = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
        return NoServer(
            f"no server answers at {self.url}",
            reason=reason,
            resolution="start one with 'townhall' in the town's folder, or name another with --server",
        )
