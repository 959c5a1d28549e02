"""The worker's line to its server: one kept connection, patience while the server is away, errors as values to act on.

Every request that a worker makes may be repeated: the server recognises the repetition by lease, epoch or offset.
So whatever looks like "not now" is tried again, with growing, scattered pauses, for ``give_up_s``.
"""

import contextlib
import http.client
import random
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec

from borough.client.tls import tls_context
from borough.core.errors import Invalid

Body = TypeVar("Body")

ANSWER_WITHIN_S = 10.0
"""How long an answer may take beyond the wait that was asked for."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 1.0
"""Well below a third of a lease: that long a restarted server waits for renewals before it ends leases."""
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
_REFUSED_FROM = 400


class Away(Exception):
    """The server did not answer for as long as we were told to be patient."""


class BrokenOff(Exception):
    """Another thread needs this one: the request was broken off and may or may not have been served."""


class Refused(Exception):
    """The server said no, and will say so again."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """Where the server is and how to trust it."""

    url: str
    ca_file: Path | None = None
    own_certificate: Path | None = None
    """The very certificate that the server shows, trusted alone and whatever name it is for."""
    certificate: Path | None = None
    """Our own, where the server asks for one; ``key`` is its private key."""
    key: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A successful answer."""

    status: int
    body: bytes

    def read(self, kind: type[Body]) -> Body:
        """Return the body as a value of ``kind``."""
        return msgspec.json.decode(self.body, type=kind)


class Connection:
    """Requests to one server with one token. For one thread; only ``break_off`` and ``be_brief`` are for others."""

    def __init__(self, address: ServerAddress, token: str | None, *, give_up_s: float) -> None:
        parts = urlsplit(address.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Invalid(
                f"{address.url!r} is not a server's address",
                resolution="give it as http://HOST:PORT or https://HOST:PORT",
            )
        self._host, self._port, self._prefix = parts.hostname, parts.port, parts.path.rstrip("/")
        self._proxy = _proxy(parts.scheme, parts.hostname)
        if self._proxy is not None and parts.scheme == "http":
            self._prefix = f"http://{parts.netloc}{self._prefix}"
        self._tls = _tls(address) if parts.scheme == "https" else None
        self._headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._give_up_s = give_up_s
        self._http: http.client.HTTPConnection | None = None
        self._broken_off = threading.Event()

    def post(
        self,
        path: str,
        body: msgspec.Struct | bytes | None = None,
        *,
        wait_s: float = 0,
        headers: Mapping[str, str] | None = None,
        give_up_s: float | None = None,
    ) -> Answer:
        """POST and return the answer.

        Raises:
            Refused: the server will not do it.
            Away: no answer within the patience (``give_up_s``, or this connection's).
            BrokenOff: ``break_off`` was called, now or since the last request.
        """
        if isinstance(body, msgspec.Struct):
            kind, content = "application/json", msgspec.json.encode(body)
        else:
            kind, content = "application/octet-stream", body or b""
        sent = {**self._headers, **(headers or {})} | ({"Content-Type": kind} if body is not None else {})
        return self._patiently("POST", path, content, sent, wait_s=wait_s, give_up_s=give_up_s)

    def get(self, path: str, *, give_up_s: float | None = None) -> Answer:
        """GET and return the answer; raises as ``post``."""
        return self._patiently("GET", path, None, self._headers, wait_s=0, give_up_s=give_up_s)

    def break_off(self) -> None:
        """End the request under way, or the next one, in the thread that makes it."""
        self._broken_off.set()
        connection = self._http
        sock = connection.sock if connection is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):  # closed meanwhile: then nobody waits on it
                # The plain method also for TLS: it wakes the reader and leaves the TLS state to its own thread.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def mend(self) -> None:
        """Forget a ``break_off`` that came too late to break anything off."""
        self._broken_off.clear()

    def be_brief(self, give_up_s: float) -> None:
        """Be no longer patient than this from now on, also with the request under way."""
        self._give_up_s = min(self._give_up_s, give_up_s)

    def close(self) -> None:
        """Close the connection; a later request opens a new one."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def _patiently(
        self,
        method: str,
        path: str,
        content: bytes | None,
        headers: Mapping[str, str],
        *,
        wait_s: float,
        give_up_s: float | None,
    ) -> Answer:
        began = time.monotonic()
        pause = FIRST_PAUSE_S
        while True:
            asked_for = 0.0
            reused = self._http is not None
            try:
                status, fields, body = self._once(method, path, content, headers, wait_s)
            except (OSError, http.client.HTTPException) as failure:
                self.close()
                self._raise_if_broken_off(failure)
                if reused:
                    continue  # servers close idle connections; that is no trouble yet
                trouble: Exception = failure
            else:
                if status < _REFUSED_FROM:
                    return Answer(status=status, body=body)
                refusal = _refusal(status, body)
                if status not in _LATER:
                    raise refusal
                trouble, asked_for = refusal, _retry_after(fields)
            patience = self._give_up_s if give_up_s is None else give_up_s
            if time.monotonic() - began + pause > patience:
                raise Away(f"no answer from the server for {patience:g} s: {trouble}") from trouble
            if self._broken_off.wait(max(asked_for, pause * random.uniform(0.5, 1))):  # noqa: S311 - scatter, no secret
                self._raise_if_broken_off(trouble)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    def _once(
        self, method: str, path: str, content: bytes | None, headers: Mapping[str, str], wait_s: float
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        timeout = wait_s + ANSWER_WITHIN_S
        if self._http is None:
            self._http = self._fresh(timeout)
        connection = self._http
        if connection.sock is None:
            connection.timeout = timeout
            connection.connect()
        connection.sock.settimeout(timeout)
        # Looked at only now: a break-off from here on finds the socket and shuts it.
        if self._broken_off.is_set():
            raise ConnectionAbortedError("broken off")
        connection.request(method, self._prefix + path, body=content, headers=dict(headers))
        response = connection.getresponse()
        return response.status, response.headers, response.read()

    def _fresh(self, timeout: float) -> http.client.HTTPConnection:
        host, port = self._proxy or (self._host, self._port)
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=timeout)
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=self._tls)
        if self._proxy is not None:
            connection.set_tunnel(self._host, self._port)
        return connection

    def _raise_if_broken_off(self, cause: Exception) -> None:
        if self._broken_off.is_set():
            self._broken_off.clear()
            raise BrokenOff from cause


def _proxy(scheme: str, host: str) -> tuple[str, int | None] | None:
    """Return the proxy that the environment names for a server elsewhere, as there is one inside of machines."""
    if host == "localhost" or host.startswith("127.") or host == "::1" or proxy_bypass(host):
        return None
    named = urlsplit(getproxies().get(scheme, ""))
    return (named.hostname, named.port) if named.hostname else None


class _Problem(msgspec.Struct):
    code: str = ""
    title: str = ""
    detail: str = ""


def _refusal(status: int, body: bytes) -> Refused:
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except msgspec.MsgspecError:
        problem = _Problem(code="unreadable", detail="the answer is no problem document")
    return Refused(status, problem.code, problem.detail or problem.title)


def _retry_after(fields: http.client.HTTPMessage) -> float:
    told = fields.get("Retry-After", "")
    return min(float(told), 60.0) if told.isdigit() else 0.0


def _tls(address: ServerAddress) -> ssl.SSLContext:
    ca_file, own = address.ca_file, address.own_certificate
    context = tls_context(None if ca_file is None else str(ca_file), None if own is None else str(own))
    if address.certificate is not None:
        context.load_cert_chain(address.certificate, address.key)
    return context
