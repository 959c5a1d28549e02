"""Where a store is: URLs as people write them, and how they may be shown."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from valkey.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection, parse_url

from borough.core.errors import Unavailable

HIDDEN = "****"
SCHEMES = ("unix", "valkey", "valkeys", "redis", "rediss")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Files for ``rediss://`` and ``valkeys://``; the system's authorities are trusted besides ``ca``."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A store's address, parsed. ``options`` holds the password: it is never shown."""

    shown: str
    kind: type[Connection] | type[UnixDomainSocketConnection]
    options: Mapping[str, object]

    @property
    def is_socket(self) -> bool:
        """Whether it is a Unix socket."""
        return self.kind is UnixDomainSocketConnection

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection uses TLS."""
        return self.kind is SSLConnection

    def __repr__(self) -> str:
        """Show the address without its password, also where a value is logged whole."""
        return f"Address({self.shown!r})"


def redact_url(url: str) -> str:
    """Return ``url`` with its password as ``****`` and its user as it is, whether it can be parsed or not.

    Where the text is ambiguous, more is hidden rather than less.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    rest = re.sub(r"((?:^|[?&])(?:password|ssl_password)=)[^&]*", rf"\g<1>{HIDDEN}", rest)
    credentials, at, place = rest.rpartition("@")
    if at:
        user, colon, _ = credentials.partition(":")
        rest = f"{user}:{HIDDEN}@{place}" if colon else rest
    elif separator and scheme != "unix":
        rest = _hide_misplaced_password(rest)
    return f"{scheme}{separator}{rest}"


def parse_address(url: str, *, tls: TlsFiles | None = None) -> Address:
    """Return the address that ``url`` names.

    Raises:
        Unavailable: it names none (``store_url_invalid``).
    """
    shown = redact_url(url)
    scheme = url.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise _invalid(shown, f"it starts with none of {', '.join(f'{name}://' for name in SCHEMES)}")
    try:
        options = dict(parse_url(url))
    except (ValueError, TypeError):
        # The parser's own words may quote a piece of the password.
        raise _invalid(shown, "a part of it cannot be read") from None
    if scheme != "unix" and not urlsplit(url).hostname:
        raise _invalid(shown, "it names no host")
    if scheme == "unix" and not options.get("path"):
        raise _invalid(shown, "it names no socket")
    kind = options.pop("connection_class", Connection)
    if kind is SSLConnection:
        options = {**_tls_options(tls or TlsFiles()), **options}
    return Address(shown=shown, kind=kind, options=options)


def _tls_options(files: TlsFiles) -> dict[str, object]:
    """The certificate must be valid for the host, unless the URL itself says otherwise."""
    return {
        "ssl_check_hostname": True,
        "ssl_ca_certs": files.ca,
        "ssl_certfile": files.certificate,
        "ssl_keyfile": files.key,
    }


def _hide_misplaced_password(rest: str) -> str:
    """Hide what stands where a port should: ``redis://:secret`` has forgotten its ``@host``."""
    host, colon, port = rest.partition(":")
    if rest.startswith("[") or not colon or re.fullmatch(r"\d*(?:[/?#].*)?", port):
        return rest
    return f"{host}:{HIDDEN}"


def _invalid(shown: str, reason: str) -> Unavailable:
    return Unavailable(
        f"{shown} is not the address of a store",
        code="store_url_invalid",
        reason=reason,
        resolution="write unix:///path/to/socket or redis://[user:password@]host:port; percent-encode the password",
    )
