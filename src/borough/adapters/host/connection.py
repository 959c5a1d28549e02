"""The connection to one host: requests that are answered, answers that last, WebSockets, and what goes wrong with them.

With a fingerprint the host has to show the certificate that has it, before anything is sent to it.

A call whose answer does not come has perhaps been carried out: that is ``Unavailable`` with ``host_unreachable``. What
may be sent twice without harm is sent again once when its connection breaks; a command is not.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import aiohttp
import msgspec

from borough.adapters.host import terminals, wire
from borough.core.errors import Unavailable

CONNECT_S: Final = 5.0
MOST_LINE_BYTES: Final = 16 * 1_048_576
_OK: Final = 200
_FIRST_ERROR: Final = 400
_NOT_IT: Final = (aiohttp.ServerFingerprintMismatch, aiohttp.ClientSSLError)
_BROKEN: Final = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError)

Answer = TypeVar("Answer")
Wire = TypeVar("Wire")


class HostConnection:
    """Everything that is said to one address."""

    def __init__(self, addr: str, *, credential: str | None, fingerprint: str | None, answer_s: float) -> None:
        """``fingerprint`` is the SHA-256 of the host's certificate (DER), in hexadecimal; ``None``: plain HTTP.

        ``answer_s``: how long an answer may take, unless a call says otherwise.
        """
        self.addr = addr
        self.answer_s = answer_s
        self._credential = credential
        self._fingerprint = fingerprint
        self._opened: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Let go of connections."""
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    async def get(self, path: str, wanted: type[Answer], *, params: Mapping[str, str] | None = None) -> Answer:
        """Return what is at ``path``."""
        return await self.call("GET", path, wanted, params=params)

    async def call(
        self,
        method: str,
        path: str,
        wanted: type[Answer],
        *,
        params: Mapping[str, str] | None = None,
        json: object = None,
        within_s: float | None = None,
        again: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Return the answer to one request; ``again``: it may be sent twice.

        Raises:
            BoroughError: the host refused.
            Unavailable: it does not answer, or is not the one that was joined.
        """
        body = None if json is None else encoded(json)
        limit_s = self.answer_s if within_s is None else within_s
        timeout = aiohttp.ClientTimeout(total=limit_s, sock_connect=CONNECT_S)
        sent = ({} if body is None else {"content-type": "application/json"}) | dict(headers or {})
        again = again and method == "POST"  # the client does so by itself for methods that are idempotent
        while True:
            try:
                async with self._session.request(
                    method, path, params=params, data=body, headers=sent, timeout=timeout, allow_redirects=False
                ) as response:
                    return self.said(response.status, await response.read(), wanted)
            except TimeoutError:
                raise self.unreachable(f"no answer within {limit_s:g} s") from None
            except _NOT_IT as error:
                raise self._not_it(error) from None
            except _BROKEN as error:
                if not again:
                    raise self.unreachable(str(error) or type(error).__name__) from error
                again = False

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, *, silent_s: float | None = None, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield an answer that lasts, once it is known to be one; ``silent_s``: how long nothing of it may come."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=silent_s)
        headers = {"content-type": "application/json"} if isinstance(more.get("data"), bytes) else {}
        try:
            async with self._session.request(
                method, path, headers=headers, timeout=timeout, allow_redirects=False, **more
            ) as response:
                if response.status >= _FIRST_ERROR:
                    self.said(response.status, await response.read(), msgspec.Raw)
                yield response
        except TimeoutError:
            raise self.unreachable("no answer in time") from None
        except _NOT_IT as error:
            raise self._not_it(error) from None
        except _BROKEN as error:
            raise self.unreachable(str(error) or type(error).__name__) from error

    @asynccontextmanager
    async def socket(self, path: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Yield a WebSocket; leaving the context closes it, which ends what was begun over it."""
        try:
            async with self._session.ws_connect(
                path, max_msg_size=terminals.MOST_MESSAGE_BYTES, heartbeat=terminals.HEARTBEAT_S
            ) as socket:
                yield socket
        except aiohttp.WSServerHandshakeError as error:
            # A handshake that is refused has no body: the plain request is refused for the same reason, and says it.
            await self.call("GET", path, msgspec.Raw)
            raise self.unreachable(f"it answered {error.status} and opened no terminal") from error
        except TimeoutError:
            raise self.unreachable("no answer in time") from None
        except _BROKEN as error:
            raise self.unreachable(str(error) or type(error).__name__) from error

    def said(self, status: int, body: bytes, wanted: type[Answer]) -> Answer:
        """Return what the host says; what is no answer of a host is told as such."""
        try:
            said = msgspec.json.decode(body, type=wire.Said)
            refused = not said.ok or status >= _FIRST_ERROR
            found: Any = said.data if refused or wanted is msgspec.Raw else msgspec.json.decode(said.data, type=wanted)
        except (msgspec.MsgspecError, ValueError):
            raise self._no_host(status) from None
        if said.code in wire.OF_ANOTHER_SERVER:
            raise self._no_host(status)
        if refused:
            raise wire.refusal(status, said)
        answer: Answer = found
        return answer

    def meant(self, read: Callable[[Wire], Answer], said: Wire) -> Answer:
        """Return what an answer means; one whose values cannot be is no answer of a host."""
        try:
            return read(said)
        except (ValueError, OverflowError):
            raise self._no_host(_OK) from None

    def _no_host(self, status: int) -> Unavailable:
        return Unavailable(
            f"what answers at {self.addr} is no host",
            code="not_a_host",
            reason=f"it answered {status}, and not as a host does",
            resolution="check the address: it is that of a tt-agent, as in 10.0.0.2:9100",
        )

    def _not_it(self, error: aiohttp.ServerFingerprintMismatch | aiohttp.ClientSSLError) -> Unavailable:
        anew = f"if its certificate is another on purpose: tt-agent --invite there, then tt host add {self.addr} again"
        if isinstance(error, aiohttp.ServerFingerprintMismatch):
            return Unavailable(
                f"what answers at {self.addr} is not the host that was joined there",
                code="host_certificate_changed",
                reason=f"its certificate is {error.got.hex()}, and not {self._fingerprint}",
                resolution=f"see who answers there; {anew}",
            )
        return Unavailable(
            f"what answers at {self.addr} does not speak TLS as the host does that was joined there",
            code="host_tls_failed",
            reason=" ".join(str(error).split()),
            resolution=f"see who answers there; {anew}",
        )

    def unreachable(self, reason: str) -> Unavailable:
        """Return the error for a host that does not answer."""
        return Unavailable(
            f"the host at {self.addr} does not answer",
            code="host_unreachable",
            reason=reason,
            resolution="see whether its tt-agent runs and can be reached; it is asked again by itself",
        )

    @property
    def _pin(self) -> aiohttp.Fingerprint | bool:
        return True if self._fingerprint is None else aiohttp.Fingerprint(bytes.fromhex(self._fingerprint))

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            headers = {} if self._credential is None else {"authorization": f"Bearer {self._credential}"}
            self._opened = aiohttp.ClientSession(
                f"{'http' if self._fingerprint is None else 'https'}://{self.addr}",
                headers=headers,
                connector=aiohttp.TCPConnector(limit=0, limit_per_host=64, ssl=self._pin),
                auto_decompress=False,
                trust_env=False,
            )
        return self._opened


class Once:
    """Content that is sent once: what is left of it after a broken connection must not be taken for all of it."""

    def __init__(self, content: AsyncIterator[bytes]) -> None:
        self._content: AsyncIterator[bytes] | None = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        content, self._content = self._content, None
        if content is None:
            raise ConnectionError("the connection broke while the content was sent")
        return content


def encoded(value: object) -> bytes:
    """Return ``value`` as JSON."""
    return msgspec.json.encode(value)


async def lines_of(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield whole lines, however the connection cuts them."""
    rest = b""
    async for part in response.content.iter_any():
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            if line:
                yield line
        if len(rest) > MOST_LINE_BYTES:
            raise aiohttp.ClientPayloadError("a line of the answer is too long")
