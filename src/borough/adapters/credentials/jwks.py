"""An issuer's public keys: fetched when needed, kept for a while, fetched again when a token hints at new ones."""

import asyncio
import base64
import time
from collections.abc import Callable, Mapping
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from borough.adapters.credentials.https import Fetch, check_url
from borough.core.errors import Invalid, Unavailable

PublicKey = RSAKey | ECKey | OKPKey

KEEP_S = 300.0
"""How long a key set is used without asking again."""
KEEP_IF_SILENT_S = 3600.0
"""How long it is used when the issuer does not answer."""
LEAST_PAUSE_S = 10.0
"""Between two fetches, whatever tokens say: made-up key ids must not turn into a flood."""
_MOST_KEYS = 100
_LEAST_RSA_BITS = 2048
_PUBLIC = frozenset({"kty", "kid", "alg", "n", "e", "crv", "x", "y"})
_DISCOVERY = "/.well-known/openid-configuration"


class KeySetCache:
    """The keys of one issuer. All methods run on one event loop; fetches run in a thread, one at a time."""

    def __init__(
        self,
        *,
        issuer: str,
        jwks_url: str | None,
        fetch: Fetch,
        monotonic: Callable[[], float] = time.monotonic,
        least_pause_s: float = LEAST_PAUSE_S,
        keep_s: float = KEEP_S,
    ) -> None:
        self._issuer = check_url(issuer, setting="townhall.auth.issuer")
        self._jwks_url = check_url(jwks_url, setting="townhall.auth.jwks_url") if jwks_url else None
        self._fetch = fetch
        self._monotonic = monotonic
        self._least_pause_s = least_pause_s
        self._keep_s = keep_s
        self._lock = asyncio.Lock()
        self._keys: tuple[PublicKey, ...] = ()
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._problem: Unavailable | None = None
        self.generation = 0
        """Rises whenever the keys may have changed."""

    async def current(self) -> tuple[PublicKey, ...]:
        """Return the keys, fetched if there are none yet or they are old.

        Raises:
            Unavailable: there are none that may still be used (``issuer_unavailable``).
        """
        if self._is_older_than(self._keep_s):
            async with self._lock:
                if self._is_older_than(self._keep_s) and self._may_fetch():
                    await self._refresh()
        if self._is_older_than(KEEP_IF_SILENT_S):
            raise self._problem or Unavailable("the issuer's keys are not known yet", code="issuer_unavailable")
        return self._keys

    async def newer_than(self, generation: int) -> bool:
        """Fetch again, unless that was done a moment ago; return whether there are newer keys than ``generation``."""
        async with self._lock:
            if self.generation == generation and self._may_fetch():
                await self._refresh()
        return self.generation > generation

    def _is_older_than(self, seconds: float) -> bool:
        return self._fetched_at is None or self._monotonic() - self._fetched_at >= seconds

    def _may_fetch(self) -> bool:
        return self._tried_at is None or self._monotonic() - self._tried_at >= self._least_pause_s

    async def _refresh(self) -> None:
        self._tried_at = self._monotonic()
        try:
            keys = await asyncio.to_thread(self._load)
        except Unavailable as problem:
            self._problem = problem
            return
        self._keys = keys
        self._fetched_at = self._monotonic()
        self._problem = None
        self.generation += 1

    def _load(self) -> tuple[PublicKey, ...]:
        return public_keys(self._fetch(self._jwks_url or self._discovered()))

    def _discovered(self) -> str:
        document = self._fetch(self._issuer.rstrip("/") + _DISCOVERY)
        url = document.get("jwks_uri")
        if document.get("issuer") != self._issuer or not isinstance(url, str):
            raise Unavailable(
                "the issuer's discovery document does not fit",
                code="issuer_unavailable",
                reason=f"it has to name the issuer {self._issuer!r} itself and a jwks_uri",
                resolution="write townhall.auth.issuer exactly as the document has it, or set townhall.auth.jwks_url",
            )
        try:
            return check_url(url, setting="jwks_uri of the discovery document")
        except Invalid as refusal:
            raise Unavailable(
                refusal.message,
                code="issuer_unavailable",
                reason=refusal.reason,
                resolution="ask the issuer's operator",
            ) from None


def public_keys(document: Mapping[str, Any]) -> tuple[PublicKey, ...]:
    """Return the keys of a JWK set (RFC 7517) that can verify signatures; what else is in it is passed over."""
    found = document.get("keys")
    if not isinstance(found, list):
        raise Unavailable(
            "the issuer's key set does not fit",
            code="issuer_unavailable",
            reason="it has no member 'keys' with a list",
            resolution="check townhall.auth.jwks_url",
        )
    keys = (_public_key(entry) for entry in found[:_MOST_KEYS] if isinstance(entry, dict))
    return tuple(key for key in keys if key is not None)


def _public_key(entry: dict[str, Any]) -> PublicKey | None:
    kinds: dict[str, type[RSAKey | ECKey | OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    kind = kinds.get(str(entry.get("kty")))
    operations = entry.get("key_ops", ["verify"])
    if kind is None or entry.get("use", "sig") != "sig" or "verify" not in operations:
        return None
    # Only what belongs to the public half is taken: a set that leaks private halves is used no differently.
    public: dict[str, str | list[str]] = {name: text for name, text in entry.items() if name in _PUBLIC}
    try:
        # Looked at first: the library only warns of short keys, and after it has taken them.
        if kind is RSAKey and _bits(str(public.get("n", ""))) < _LEAST_RSA_BITS:
            return None
        return kind.import_key(public)
    except (JoseError, ValueError, TypeError):
        return None


def _bits(number: str) -> int:
    """Return the size of a number written as RFC 7518 does."""
    return int.from_bytes(base64.urlsafe_b64decode(number + "=" * (-len(number) % 4))).bit_length()
