"""What must hold before a server opens its port. Pure: certificate files are read by who serves them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from borough.auth.credentials import ONLY_KEY_ID, ApiKey, check_phc, is_usable, scopes_of
from borough.config.sections import AuthSection, TownhallSection
from borough.core.errors import Invalid

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsPlan:
    """The files to serve TLS with; they still have to be checked."""

    cert_file: Path
    key_file: Path
    ca_file: Path | None = None
    """Set: clients' certificates are checked against it."""
    client_certificate_required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StartPlan:
    """How a server may start, and what its operator ought to know."""

    bind: Address
    tls: TlsPlan | None
    rate_limited: bool
    warnings: tuple[str, ...]


def parse_bind(text: str) -> Address:
    """Return the address to bind: IPv4, IPv6 (with or without brackets) or ``localhost``.

    Raises:
        Invalid: it is none (``invalid_bind``).
    """
    wanted = text.strip()
    if wanted.lower() == "localhost":
        return IPv4Address("127.0.0.1")
    bare = wanted[1:-1] if wanted.startswith("[") and wanted.endswith("]") else wanted
    try:
        return ip_address(bare)
    except ValueError:
        raise Invalid(
            f"cannot bind to {text!r}",
            code="invalid_bind",
            reason="it is neither an IPv4 or IPv6 address nor 'localhost'",
            resolution="write an address such as 127.0.0.1, 0.0.0.0 or ::1; the port goes into --port",
        ) from None


def is_loopback(address: Address) -> bool:
    """Tell whether only this machine can reach ``address``."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def host_and_port(address: Address, port: int) -> str:
    """Return both as they stand in a URL."""
    return f"[{address}]:{port}" if isinstance(address, IPv6Address) else f"{address}:{port}"


def api_keys(auth: AuthSection) -> tuple[ApiKey, ...]:
    """Return every key that the settings know, whatever the mode."""
    keys = [
        ApiKey(
            id=key.id,
            phc=key.hash,
            scopes=scopes_of(key.scopes),
            expires_at=key.expires_at,
            not_before=key.not_before,
        )
        for key in auth.keys
    ]
    if auth.api_key_hash and auth.api_key_hash.strip():
        only = ApiKey(id=ONLY_KEY_ID, phc=auth.api_key_hash.strip(), scopes=scopes_of(auth.api_key_scopes))
        keys.insert(0, only)
    return tuple(keys)


def start_plan(townhall: TownhallSection, *, bind: Address, root: Path, at: datetime) -> StartPlan:
    """Return how the server may start.

    Raises:
        Invalid: it must not: ``unsafe_bind``, ``tls_incomplete``, ``mtls_without_tls`` or ``mtls_incomplete``.
    """
    auth = townhall.auth
    if not is_loopback(bind) and auth.mode == "none":
        raise Invalid(
            f'refusing to bind to {bind} with townhall.auth.mode = "none"',
            code="unsafe_bind",
            reason="anybody who reaches that address could run programs on this machine",
            resolution='bind to 127.0.0.1, or set townhall.auth.mode = "api_key" (see: tt auth gen-key)',
        )
    tls = _tls_plan(townhall, root=root)
    wanted = townhall.rate_limit.enabled
    return StartPlan(
        bind=bind,
        tls=tls,
        rate_limited=wanted if wanted is not None else not (is_loopback(bind) and auth.mode == "none"),
        warnings=(*_auth_warnings(auth, bind=bind, at=at), *_tls_warnings(townhall, bind=bind)),
    )


def _tls_plan(townhall: TownhallSection, *, root: Path) -> TlsPlan | None:
    tls, mtls = townhall.tls, townhall.mtls
    if tls.enabled:
        for name, written in (("cert_file", tls.cert_file), ("key_file", tls.key_file)):
            if not written:
                raise Invalid(
                    f"townhall.tls.enabled is true, but townhall.tls.{name} is not set",
                    code="tls_incomplete",
                    resolution=f"set townhall.tls.{name} to a PEM file, or townhall.tls.enabled to false",
                )
    if mtls.required and not tls.enabled:
        raise Invalid(
            "townhall.mtls.required is true, but townhall.tls.enabled is not",
            code="mtls_without_tls",
            reason="clients show certificates in TLS only",
            resolution="set townhall.tls.enabled, cert_file and key_file, or townhall.mtls.required to false",
        )
    if mtls.required and not mtls.ca_file:
        raise Invalid(
            "townhall.mtls.required is true, but townhall.mtls.ca_file is not set",
            code="mtls_incomplete",
            resolution="set townhall.mtls.ca_file to the PEM file of the authority that signs clients' certificates",
        )
    if not tls.enabled or not tls.cert_file or not tls.key_file:
        return None
    checks_clients = (mtls.enabled or mtls.required) and mtls.ca_file
    return TlsPlan(
        cert_file=root / Path(tls.cert_file).expanduser(),
        key_file=root / Path(tls.key_file).expanduser(),
        ca_file=root / Path(mtls.ca_file).expanduser() if checks_clients and mtls.ca_file else None,
        client_certificate_required=mtls.required,
    )


def _tls_warnings(townhall: TownhallSection, *, bind: Address) -> Sequence[str]:
    tls, mtls = townhall.tls, townhall.mtls
    warnings = []
    if mtls.enabled and not mtls.required and not tls.enabled:
        warnings.append("townhall.mtls.enabled has no effect: townhall.tls.enabled is false")
    if mtls.enabled and not mtls.required and tls.enabled and not mtls.ca_file:
        warnings.append("townhall.mtls.enabled has no effect: townhall.mtls.ca_file is not set")
    if not tls.enabled and not is_loopback(bind):
        warnings.append(f"{bind} is served without TLS: keys and work cross the network in clear text")
    return warnings


def _auth_warnings(auth: AuthSection, *, bind: Address, at: datetime) -> Sequence[str]:
    if auth.mode == "oidc":
        return _oidc_warnings(auth)
    if auth.mode != "api_key":
        return ()
    warnings = []
    keys = api_keys(auth)
    if not keys:
        warnings.append('townhall.auth.mode is "api_key", but no key is set: every request is answered 401')
    elif not any(is_usable(key, at=at) and _is_sound(key) for key in keys):
        warnings.append("no API key is valid now (expired, not yet valid, or a broken hash): requests are answered 401")
    warnings.extend(
        f"the hash of the API key {key.id!r} is broken: nobody can use it" for key in keys if not _is_sound(key)
    )
    if not is_loopback(bind):
        warnings.append(f"{bind} is guarded by API keys only; oidc gives each caller an identity of its own")
    return warnings


def _oidc_warnings(auth: AuthSection) -> Sequence[str]:
    if not auth.issuer:
        return ('townhall.auth.mode is "oidc", but no issuer is set: every request is answered 401',)
    if not auth.audience:
        return ("townhall.auth.audience is not set: tokens that the issuer made for other services are accepted",)
    return ()


def _is_sound(key: ApiKey) -> bool:
    try:
        check_phc(key.phc)
    except Invalid:
        return False
    return True
