"""Addresses of servers and of what is asked of them."""

from collections.abc import Mapping
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from borough.core.errors import Invalid

Query = Mapping[str, str | int | bool | None]
"""Names and values; what is ``None`` is left out."""


def segment(text: str) -> str:
    """Return ``text`` as one segment of a path."""
    return quote(text, safe="")


def split(url: str) -> SplitResult:
    """Return the parts of a server's address; raises ``Invalid`` (``invalid_address``)."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
        parts = urlsplit("")
    if not good or parts.username is not None or parts.query:
        raise Invalid(
            f"{url!r} is not a server's address",
            code="invalid_address",
            reason="an address is http://HOST:PORT or https://HOST:PORT, without user, password or query",
            resolution="for example --server http://127.0.0.1:8080",
        )
    return parts


def target_of(server: SplitResult, path: str, query: Query | None) -> str:
    """Return what a request for ``path`` names, below the path of the server's own address."""
    given = {name: _word(value) for name, value in (query or {}).items() if value is not None}
    return server.path.rstrip("/") + path + (f"?{urlencode(given)}" if given else "")


def _word(value: str | int | bool | None) -> str:  # noqa: FBT001 - a value of a query, not a switch
    return str(value).lower() if isinstance(value, bool) else str(value)
