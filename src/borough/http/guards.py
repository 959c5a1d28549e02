"""Who may talk to the server at all, before any route is looked at: the ``Host`` and where a web page comes from.

No route answers CORS. A page of another site can still *send* simple requests, and a name that points to this
machine can carry a page past the same-origin rule; so the name it was called by and the page's origin are checked.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from borough.auth.machines import SERVER_NAME
from borough.core.errors import Forbidden, Invalid

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES = frozenset({"same-origin", "none"})
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._~-]+))(?::[0-9]{0,5})?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRule:
    """Which names of the server are good ones. ``allowed`` are names without ports, beside those of loopback."""

    loopback: bool
    """The server is bound to loopback only."""
    allowed: frozenset[str] = frozenset()

    def check(self, host: str | None) -> None:
        """Refuse a request that was meant for another name.

        Raises:
            Forbidden: the name is not one of ours (``host_not_allowed``).
        """
        if not self.loopback and not self.allowed:
            return
        name = host_name(host or "")
        if name is not None and (name in self.allowed or name == SERVER_NAME or _is_loopback(name)):
            return
        raise Forbidden(
            "this server does not answer to that name",
            code="host_not_allowed",
            reason=f"the Host header is {host!r}" if host else "there is no Host header",
            resolution="call it by localhost, or add the name to allowed_hosts",
        )


def host_rule(bind: str, allowed_hosts: Collection[str] = ()) -> HostRule:
    """Return the rule for a server bound to ``bind``; a port in an entry of ``allowed_hosts`` is ignored."""
    names = (host_name(entry) or entry.strip("[]").lower() for entry in allowed_hosts)
    return HostRule(loopback=is_loopback_bind(bind), allowed=frozenset(names))


def is_loopback_bind(bind: str) -> bool:
    """Tell whether only this machine can reach a server bound to ``bind``."""
    return _is_loopback(bind.strip("[]").lower())


@lru_cache(maxsize=1024)
def host_name(host: str) -> str | None:
    """Return the name in a ``Host`` header, lower-case, without port and brackets; ``None`` if it is none."""
    found = _HOST.match(host.strip())
    if found is None:
        return None
    return (found["six"] or found["name"]).lower().rstrip(".")


def check_origin(method: str, *, host: str | None, origin: str | None, fetch_site: str | None) -> None:
    """Refuse a changing request that a web page of another origin sends. Programs send none of these headers.

    Raises:
        Forbidden: it comes from elsewhere (``cross_origin``).
    """
    if method in _SAFE:
        return
    if fetch_site is not None:
        foreign = fetch_site not in _OWN_SITES
    else:
        foreign = origin is not None and _authority(origin) != (host or "").lower()
    if foreign:
        raise Forbidden(
            "a web page of another origin may not do this",
            code="cross_origin",
            reason=f"the request comes from {origin!r}" if origin else "the browser says so",
            resolution="open the page from this server, or call the API from a program",
        )


def check_target(path: bytes, query_string: bytes, *, limit_bytes: int) -> None:
    """Refuse an absurd address.

    Raises:
        Invalid: path and query are longer than ``limit_bytes`` (``uri_too_long``).
    """
    if len(path) + len(query_string) > limit_bytes:
        raise Invalid(
            f"path and query are longer than {limit_bytes} bytes", code="uri_too_long", resolution="shorten the address"
        )


def _authority(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


@lru_cache(maxsize=1024)
def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
