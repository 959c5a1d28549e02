"""The port ``Web``: pages for agents. Every hop is judged as the way out of a box is, and connected to as judged."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlencode, urlsplit

from borough.adapters.egress.judging import Judge, Passage, Refusal
from borough.adapters.search_results import read_results
from borough.adapters.web_failures import unavailable
from borough.core.errors import Forbidden, Invalid, Unavailable
from borough.governance.hosts import NetworkPolicy, parse_allowed, reaches
from borough.governance.manifests import Network
from borough.governance.ports.outside import Page
from borough.governance.tool_needs import SEARCH_ENDPOINT, endpoint_of

MOST_REDIRECTS = 5
LONGEST_FETCH_S = 30.0
LARGEST_BODY_BYTES = 1_048_576
SEARCH_URL = "https://lite.duckduckgo.com/lite/"
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
            raise unavailable("timeout", f"no whole answer within {min(timeout_s, LONGEST_FETCH_S):g} s") from None

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
        raise unavailable("too_many_redirects", f"it redirects more than {MOST_REDIRECTS} times")

    async def _judged(self, network: Network, url: str) -> Passage:
        host, port = endpoint_of(url)
        way = await self._judge.judge(network, host, port)
        if isinstance(way, Passage):
            return way
        raise _denied(way.reason) if way.code == "network_denied" else _not_resolved(way)

    async def _get(self, passage: Passage, url: str, headers: dict[str, str], limit_bytes: int) -> Page | str:
        """Return the page, or the address that it redirects to."""
        from borough.adapters.fetching import fetched  # noqa: PLC0415 - it takes long, and many daemons fetch nothing

        return await fetched(passage, _spelt(url, passage), headers, tls=self._tls, limit_bytes=limit_bytes)


def _spelt(url: str, passage: Passage) -> str:
    """Return ``url`` with its host as it was judged, so that nothing can read another host in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{passage.host}:{passage.port}", fragment="").geturl()


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
    return unavailable("not_resolved", refusal.reason)
