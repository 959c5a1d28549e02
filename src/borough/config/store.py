"""Where the town's state is kept, decided once from file and environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from borough.config import environment
from borough.config.sections import RedisSection
from borough.core.errors import Invalid

_SCHEMES = frozenset({"redis", "rediss", "unix", "valkey", "valkeys"})
_LONGEST_SOCKET_PATH_BYTES = 107


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePlace:
    """Either ``url`` (a server that runs already) or the embedded server on ``socket_path``."""

    url: str | None = field(repr=False)
    """May hold a password; show ``redacted(url)``."""
    socket_path: Path
    """Of the embedded server."""
    server_binary: Path | None = None
    """A server program to be used instead of the one that comes with the package (``TT_VALKEY_BIN``)."""
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None

    @property
    def embedded(self) -> bool:
        """Tell whether the server is ours to start."""
        return self.url is None


def store_place(redis: RedisSection, *, root: Path, environ: Mapping[str, str], file: str) -> StorePlace:
    """Return where the state of the town at ``root`` is kept.

    ``REDIS_URL`` beats ``redis.url``, which beats the socket, which beats host and port.

    Raises:
        Invalid: the URL is none of a server (``invalid_setting``).
    """
    from_environment = environment.text(environ, "REDIS_URL")
    url = from_environment or (redis.url or "").strip() or None
    if url is not None:
        _check_url(url, where="REDIS_URL" if from_environment else f"{file}: redis.url")
    elif not redis.use_socket and not environment.flag(environ, "TT_USE_SOCKET"):
        url = _tcp_url(redis, password=environment.text(environ, "TINYTOWN_REDIS_PASSWORD") or redis.password)
    binary = environment.text(environ, "TT_VALKEY_BIN")
    return StorePlace(
        url=url,
        socket_path=root / redis.socket_path,
        server_binary=Path(binary) if binary else None,
        tls_ca_file=root / redis.tls_ca_cert if redis.tls_ca_cert else None,
        tls_cert_file=root / redis.tls_cert if redis.tls_cert else None,
        tls_key_file=root / redis.tls_key if redis.tls_key else None,
    )


def socket_path_fits(path: Path) -> bool:
    """Tell whether a Unix socket can be bound at ``path`` by its full name (unix(7): 108 bytes with the zero)."""
    return len(str(path).encode()) <= _LONGEST_SOCKET_PATH_BYTES


def redacted(url: str) -> str:
    """Return ``url`` with its password as ``****``; works on texts that are no URLs, too."""
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    userinfo, at, host = authority.rpartition("@")
    if not (separator and at):
        return url
    user, colon, _ = userinfo.partition(":")
    return f"{scheme}://{user}{':****' if colon else ''}@{host}{slash}{path}"


def _check_url(url: str, *, where: str) -> None:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in _SCHEMES and bool(parts.path if parts.scheme == "unix" else parts.hostname)
        sound = sound and (parts.scheme == "unix" or parts.port != 0)
    except ValueError:
        sound = False
    if not sound:
        raise Invalid(
            f"{where}: {redacted(url)!r} is not the address of a Valkey or Redis server",
            code="invalid_setting",
            resolution="write redis://host:6379, rediss://host:6379 or unix:///path/to/socket",
        )


def _tcp_url(redis: RedisSection, *, password: str | None) -> str:
    scheme = "rediss" if redis.tls_enabled else "redis"
    host = f"[{redis.host}]" if ":" in redis.host else redis.host
    login = f":{quote(password, safe='')}@" if password else ""
    return f"{scheme}://{login}{host}:{redis.port}"
