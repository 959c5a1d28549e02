"""The port ``Web``: pages for agents. Every hop is judged as the way out of a box is, and connected to as judged."""

import asyncio
import codecs
import socket
import ssl
import zlib
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlencode, urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from borough.adapters.egress.judging import Judge, Passage, Refusal
from borough.adapters.search_results import read_results
from borough.core.errors import Forbidden, Invalid, Unavailable
from borough.governance.hosts import NetworkPolicy, parse_allowed, reaches
from borough.governance.manifests import Network
from borough.governance.ports.outside import Page
from borough.governance.tool_needs import SEARCH_ENDPOINT, endpoint_of

MOST_REDIRECTS = 5
LONGEST_FETCH_S = 30.0
LARGEST_BODY_BYTES = 1_048_576
SEARCH_URL = "https://lite.duckduckgo.com/lite/"
_CHUNK_BYTES = 65_536
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OURS = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "upgrade", "te", "trailer",
     "expect", "keep-alive"}
)  # fmt: skip
"""Headers that belong to the connection, not to who asks."""
_FOLLOW_ANYWHERE = frozenset({"accept", "accept-language", "user-agent"})
"""Headers that may follow a redirect to another host; any other may hold a secret meant for the first one."""


class HttpWeb:
    """Fetches with aiohttp, one connection a hop, nothing kept between calls."""

    def __init__(self, judge: Judge, *, tls: ssl.SSLContext | None = None, search_url: str = SEARCH_URL) -> None:
        """``tls`` says which servers are trusted; the system's authorities unless given."""
        self._judge = judge
        self._tls = tls or ssl.create_default_context()
        self._search_url = search_url

    async def fetch(
        self, network: Network, url: str, *, headers: Mapping[str, str], timeout_s: float, limit_bytes: int
    ) -> Page:
        """GET ``url``, as the port says; an answer of any status is a page."""
        try:
            async with asyncio.timeout(min(timeout_s, LONGEST_FETCH_S)):
                return await self._follow(network, url, _checked(headers), min(limit_bytes, LARGEST_BODY_BYTES))
        except TimeoutError:
            raise _unavailable("timeout", f"no whole answer within {min(timeout_s, LONGEST_FETCH_S):g} s") from None

    async def search(self, network: Network, query: str, *, timeout_s: float) -> tuple[Mapping[str, str], ...]:
        """Return results for ``query``, as the port says."""
        host, port = SEARCH_ENDPOINT
        if reaches(network.policy, network.allowlist, host=host, port=port) is None:
            raise _denied(f"the network policy {network.policy.value!r} does not reach {host}:{port}")
        page = await self.fetch(
            self._search_network(network),
            f"{self._search_url}?{urlencode({'q': query})}",
            headers={"Accept": "text/html"},
            timeout_s=timeout_s,
            limit_bytes=LARGEST_BODY_BYTES,
        )
        return read_results(page.body)

    def _search_network(self, network: Network) -> Network:
        """Return what reaches the search service's own server, for whoever may reach the service by its name."""
        host, port = endpoint_of(self._search_url)
        if network.policy is not NetworkPolicy.ALLOWLIST:
            return network
        return replace(network, allowlist=(*network.allowlist, parse_allowed(f"{host}:{port}")))

    async def _follow(self, network: Network, url: str, headers: dict[str, str], limit_bytes: int) -> Page:
        for _ in range(MOST_REDIRECTS + 1):
            passage = await self._judged(network, url)
            page = await self._get(passage, url, headers, limit_bytes)
            if isinstance(page, Page):
                return page
            if endpoint_of(page) != (passage.host, passage.port):
                headers = {name: value for name, value in headers.items() if name.lower() in _FOLLOW_ANYWHERE}
            url = page
        raise _unavailable("too_many_redirects", f"it redirects more than {MOST_REDIRECTS} times")

    async def _judged(self, network: Network, url: str) -> Passage:
        host, port = endpoint_of(url)
        way = await self._judge.judge(network, host, port)
        if isinstance(way, Passage):
            return way
        raise _denied(way.reason) if way.code == "network_denied" else _not_resolved(way)

    async def _get(self, passage: Passage, url: str, headers: dict[str, str], limit_bytes: int) -> Page | str:
        """Return the page, or the address that it redirects to."""
        connector = aiohttp.TCPConnector(resolver=_Judged(passage), use_dns_cache=False, ssl=self._tls, limit=1)
        try:
            async with (
                aiohttp.ClientSession(
                    connector=connector,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    trust_env=False,
                    auto_decompress=False,
                    timeout=aiohttp.ClientTimeout(total=None),
                ) as session,
                session.get(
                    _spelt(url, passage), headers={**headers, "Accept-Encoding": "gzip, deflate"}, allow_redirects=False
                ) as response,
            ):
                if response.status in _REDIRECTS and (to := response.headers.get("Location")):
                    return urljoin(url, to).partition("#")[0]
                return await _page(response, limit_bytes)
        except aiohttp.ClientConnectorCertificateError as error:
            raise _unavailable("tls_failed", f"{passage.host}: {error.certificate_error}") from None
        except (aiohttp.ClientError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise _unavailable("connection_refused", f"{passage.host}:{passage.port}: {reason}") from None


def _spelt(url: str, passage: Passage) -> str:
    """Return ``url`` with its host as it was judged, so that nothing can read another host in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{passage.host}:{passage.port}", fragment="").geturl()


class _Judged(AbstractResolver):
    """Knows one name and the addresses that were judged for it; whatever else is asked has none."""

    def __init__(self, passage: Passage) -> None:
        self._passage = passage

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - all that were judged are given
    ) -> list[ResolveResult]:
        if host.lower().removesuffix(".") != self._passage.host:
            raise OSError(f"{host} was not judged")
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,  # noqa: PLR2004 - the IP version
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._passage.addresses
        ]

    async def close(self) -> None:
        """Hold nothing."""


async def _page(response: aiohttp.ClientResponse, limit_bytes: int) -> Page:
    body = bytearray()
    opened = _Opened(response.headers.get("Content-Encoding", ""))
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        body += opened.take(chunk, limit_bytes + 1 - len(body))
        if len(body) > limit_bytes:
            break
    truncated = len(body) > limit_bytes
    text = bytes(body[:limit_bytes]).decode(_charset(response), errors="replace")
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Page(status=response.status, body=text, truncated=truncated, headers=headers)


class _Opened:
    """Decompresses step by step and never makes more than it was asked for: a bomb stays small."""

    def __init__(self, encoding: str) -> None:
        kind = encoding.strip().lower()
        if kind not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise _unavailable("unknown_encoding", f"it is encoded as {kind[:40]!r}, which was not asked for")
        # 32: gzip or zlib, as the data itself says.
        self._open = zlib.decompressobj(32 + zlib.MAX_WBITS) if kind in ("gzip", "x-gzip", "deflate") else None
        self._raw_deflate = kind == "deflate"

    def take(self, data: bytes, most: int) -> bytes:
        if self._open is None:
            return data[:most]
        try:
            return self._open.decompress(data, most)
        except zlib.error as error:
            if self._raw_deflate:
                # Some servers mean the format without its header (RFC 9110, 8.4.1.2).
                self._raw_deflate = False
                self._open = zlib.decompressobj(-zlib.MAX_WBITS)
                return self.take(data, most)
            raise _unavailable("connection_refused", f"its compressed body is broken: {error}") from None


def _charset(response: aiohttp.ClientResponse) -> str:
    name = response.charset or "utf-8"
    try:
        known = codecs.lookup(name)
    except (LookupError, ValueError):
        return "utf-8"
    # Python knows encodings of bytes to bytes too, which are no charsets.
    return known.name if known._is_text_encoding else "utf-8"  # noqa: SLF001 - the only place that tells


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        plain = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
        if not plain or name.lower() in _OURS or name.lower().startswith("proxy-") or not value.isprintable():
            raise Invalid(
                f"the header {name[:80]!r} cannot be set",
                code="invalid_header",
                resolution="leave it out; it belongs to the connection, or holds what no header may",
            )
    return dict(headers)


def _denied(reason: str) -> Forbidden:
    return Forbidden(
        "network policy denies outbound",
        code="network_denied",
        reason=reason,
        resolution="add the host to spec.network.allowlist, or fetch one that is there",
    )


def _not_resolved(refusal: Refusal) -> Unavailable:
    return _unavailable("not_resolved", refusal.reason)


_TOLD = {"timeout": "timeout", "not_resolved": "the name is not known"}


def _unavailable(code: str, reason: str) -> Unavailable:
    return Unavailable(
        _TOLD.get(code, "connection refused" if code == "connection_refused" else "the page cannot be had"),
        code=code,
        reason=reason,
        resolution="check the address; try again later",
    )
