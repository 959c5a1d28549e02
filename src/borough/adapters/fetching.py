"""One hop to a page, over a connection of its own to one of the addresses that were judged."""

import codecs
import socket
import ssl
import zlib
from collections.abc import Mapping
from urllib.parse import urljoin

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from borough.adapters.egress.judging import Passage
from borough.adapters.web_failures import unavailable
from borough.governance.ports.outside import Page

_CHUNK_BYTES = 65_536
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


async def fetched(
    passage: Passage, url: str, headers: Mapping[str, str], *, tls: ssl.SSLContext, limit_bytes: int
) -> Page | str:
    """Return the page at ``url``, whose host was judged, or the address that it redirects to.

    Raises:
        Unavailable: it cannot be had (``tls_failed``, ``connection_refused``, ``unknown_encoding``).
    """
    connector = aiohttp.TCPConnector(resolver=_Judged(passage), use_dns_cache=False, ssl=tls, limit=1)
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
                url, headers={**headers, "Accept-Encoding": "gzip, deflate"}, allow_redirects=False
            ) as response,
        ):
            if response.status in _REDIRECTS and (to := response.headers.get("Location")):
                return urljoin(url, to).partition("#")[0]
            return await _page(response, limit_bytes)
    except aiohttp.ClientConnectorCertificateError as error:
        raise unavailable("tls_failed", f"{passage.host}: {error.certificate_error}") from None
    except (aiohttp.ClientError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise unavailable("connection_refused", f"{passage.host}:{passage.port}: {reason}") from None


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
            raise unavailable("unknown_encoding", f"it is encoded as {kind[:40]!r}, which was not asked for")
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
            raise unavailable("connection_refused", f"its compressed body is broken: {error}") from None


def _charset(response: aiohttp.ClientResponse) -> str:
    name = response.charset or "utf-8"
    try:
        known = codecs.lookup(name)
    except (LookupError, ValueError):
        return "utf-8"
    # Python knows encodings of bytes to bytes too, which are no charsets.
    return known.name if known._is_text_encoding else "utf-8"  # noqa: SLF001 - the only place that tells
