"""Tokens of an OpenID Connect issuer (RFC 7519, RFC 9068): signature, issuer, audience, times and scopes."""

import hashlib
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from joserfc import jws
from joserfc.errors import BadSignatureError, JoseError, SecurityWarning
from joserfc.jwk import ECKey, RSAKey
from joserfc.jwt import decode

from borough.adapters.credentials.https import Fetch, fetch_json
from borough.adapters.credentials.jwks import KeySetCache, PublicKey
from borough.auth.credentials import known_scopes
from borough.auth.principals import Principal
from borough.core.errors import Forbidden, Invalid

ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
)
"""Asymmetric all: with a shared secret, whoever verifies could also sign."""

_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_REMEMBERED = 1024
_LONGEST_TOKEN = 16_384
_LONGEST_SUBJECT = 200
_MOST_CANDIDATES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verified:
    principal: Principal
    until: float
    generation: int


class OidcTokens:
    """Verifies the tokens of one issuer. Verified ones are remembered by hash until they expire."""

    def __init__(
        self,
        *,
        issuer: str,
        audience: str | None,
        jwks_url: str | None = None,
        required_scopes: Sequence[str] = (),
        clock_skew_s: int = 60,
        algorithms: Sequence[str] = (),
        now: Callable[[], float] = time.time,
        fetch: Fetch = fetch_json,
        keys: KeySetCache | None = None,
    ) -> None:
        """Check the settings; nothing is fetched yet.

        Raises:
            Invalid: an address is not safe (``insecure_issuer``), or an algorithm is not one of ``ALGORITHMS``
                (``unsafe_algorithm``).
        """
        if unsafe := sorted(set(algorithms) - set(ALGORITHMS)):
            raise Invalid(
                f"townhall.auth.algorithms: {unsafe[0]!r} is not accepted",
                code="unsafe_algorithm",
                reason="only asymmetric signatures prove that the issuer itself made a token",
                resolution=f"choose from {', '.join(ALGORITHMS)}",
            )
        self._keys = keys or KeySetCache(issuer=issuer, jwks_url=jwks_url, fetch=fetch)
        self._issuer = issuer
        self._audience = audience
        self._required = frozenset(required_scopes)
        self._skew_s = clock_skew_s
        self._algorithms = frozenset(algorithms or ALGORITHMS)
        self._now = now
        self._remembered: OrderedDict[bytes, _Verified] = OrderedDict()

    async def verify(self, secret: str) -> Principal:
        """Return whom the token ``secret`` speaks for.

        Raises:
            Forbidden: it is not good (``invalid_credentials``) or lacks a required scope (``insufficient_scope``).
            Unavailable: the issuer's keys cannot be had (``issuer_unavailable``).
        """
        if len(secret) > _LONGEST_TOKEN or not secret.isascii():
            raise _refused("it is too long or not a token")
        keys = await self._keys.current()
        digest = hashlib.sha256(secret.encode()).digest()
        known = self._remembered.get(digest)
        if known is not None and known.generation == self._keys.generation and self._now() < known.until:
            return known.principal
        header = self._header(secret)
        generation = self._keys.generation
        claims = _claims(secret, header, keys)
        if claims is None and await self._keys.newer_than(generation):
            generation = self._keys.generation
            claims = _claims(secret, header, await self._keys.current())
        if claims is None:
            raise _refused("no key of the issuer made its signature")
        until = self._check_claims(claims)
        principal = self._principal(claims)
        self._remember(digest, _Verified(principal=principal, until=until, generation=generation))
        return principal

    def _header(self, token: str) -> Mapping[str, Any]:
        """Return the token's header, unverified, if its algorithm is one that we accept."""
        try:
            header = jws.extract_compact(token.encode()).headers()
        except (JoseError, ValueError, TypeError):
            raise _refused("it is not a signed token") from None
        if header.get("alg") not in self._algorithms:
            raise _refused("its signature algorithm is not accepted")
        if "crit" in header:
            raise _refused("it demands extensions that are not understood")
        return header

    def _check_claims(self, claims: Mapping[str, Any]) -> float:
        """Return when the token ends (seconds since the epoch, skew included); refuse what does not fit."""
        if claims.get("iss") != self._issuer:
            raise _refused("another issuer made it")
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if self._audience is not None and self._audience not in audiences:
            raise _refused("it was made for another audience")
        now, skew = self._now(), self._skew_s
        expires = _seconds(claims, "exp")
        if expires is None:
            raise _refused("it has no time of expiry")
        if now >= expires + skew:
            raise _refused("it has expired")
        for name in ("nbf", "iat"):
            starts = _seconds(claims, name)
            if starts is not None and starts > now + skew:
                raise _refused(f"it is not valid yet ({name})")
        return expires + skew

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_SUBJECT or not subject.isprintable():
            raise _refused("it names no subject")
        names = _scope_names(claims)
        if missing := sorted(self._required - names):
            raise Forbidden(
                "Insufficient permissions",
                code="insufficient_scope",
                reason=f"the token lacks the scope {missing[0]!r}, which townhall.auth.required_scopes demands",
                resolution="ask the issuer for a token with that scope",
            )
        return Principal(id=f"oidc:{subject}", scopes=known_scopes(names))

    def _remember(self, digest: bytes, verified: _Verified) -> None:
        self._remembered[digest] = verified
        self._remembered.move_to_end(digest)
        while len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)


def _claims(token: str, header: Mapping[str, Any], keys: Sequence[PublicKey]) -> Mapping[str, Any] | None:
    """Return what the token says if one of ``keys`` made its signature, else ``None``."""
    algorithm = str(header["alg"])
    fitting = [key for key in keys if _fits(key, algorithm, header.get("kid"))]
    for key in fitting[:_MOST_CANDIDATES]:
        try:
            with warnings.catch_warnings():
                # RFC 9864 renames EdDSA; issuers still send the old name, and the key decides which curve it is.
                warnings.simplefilter("ignore", SecurityWarning)
                return decode(token, key, algorithms=[algorithm]).claims
        except BadSignatureError:
            continue
        except (JoseError, ValueError, TypeError):
            raise _refused("it cannot be read") from None
    return None


def _fits(key: PublicKey, algorithm: str, key_id: object) -> bool:
    """Tell whether ``key`` may have made a signature of that kind: its own words and its type must agree."""
    if key_id is not None and key.kid is not None and key.kid != key_id:
        return False
    if key.alg is not None and key.alg != algorithm:
        return False
    if isinstance(key, RSAKey):
        return algorithm[:2] in {"RS", "PS"}
    if isinstance(key, ECKey):
        return _CURVES.get(algorithm) == key.curve_name
    return algorithm.startswith("Ed") and key.curve_name in {"Ed25519", "Ed448"}


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:  # noqa: PLR2004 - no time of ours is that far off
        raise _refused(f"its {name} is not a time")
    return float(value)


def _scope_names(claims: Mapping[str, Any]) -> frozenset[str]:
    """Return every scope that the token names: ``scope`` as words (RFC 8693), ``scp`` as words or a list."""
    names: set[str] = set()
    for claim in ("scope", "scp"):
        value = claims.get(claim)
        words = value.split() if isinstance(value, str) else value if isinstance(value, list) else ()
        names.update(word for word in words if isinstance(word, str))
    return frozenset(names)


def _refused(reason: str) -> Forbidden:
    return Forbidden(
        "Invalid credentials",
        code="invalid_credentials",
        reason=f"the token is refused: {reason}",
        resolution="get a new token from the issuer",
    )
