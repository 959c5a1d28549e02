"""Credentials: what a request presents, what a key allows and when. Nothing here looks anything up."""

import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from borough.auth.principals import Principal
from borough.auth.scopes import ALL_SCOPES, Scope
from borough.core.errors import Invalid

KEY_BYTES = 32
"""An API key is this many random bytes, as 64 hex characters."""
ONLY_KEY_ID = "api_key"
"""What the key of ``townhall.auth.api_key_hash`` is known as."""
LONGEST_CREDENTIAL = 16_384
"""Characters; what is longer is refused unread."""

_BEARER = "Bearer "
_PHC = re.compile(
    r"\$argon2id\$v=19\$m=(?P<memory_kib>\d{1,8}),t=(?P<passes>\d{1,4}),p=(?P<lanes>\d{1,3})"
    r"\$(?P<salt>[A-Za-z0-9+/]{11,86})\$(?P<digest>[A-Za-z0-9+/]{16,172})"
)
_LEAST_MEMORY_KIB = 8
_MOST_MEMORY_KIB = 1_048_576
_MOST_PASSES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key that may be presented; its secret is known only by its Argon2id hash."""

    id: str
    phc: str = field(repr=False)
    scopes: frozenset[Scope] = ALL_SCOPES
    expires_at: datetime | None = None
    not_before: datetime | None = None

    @property
    def principal(self) -> Principal:
        """Return who presents this key."""
        name = self.id if self.id == ONLY_KEY_ID else f"{ONLY_KEY_ID}:{self.id}"
        return Principal(id=name, scopes=self.scopes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """A credential as it came, not verified."""

    secret: str = field(repr=False)
    header: str
    """Which header it came in: ``authorization`` or ``x-api-key``."""


def format_key(random: bytes) -> str:
    """Return the key that ``random`` makes; raises ``ValueError`` for too few bytes."""
    if len(random) != KEY_BYTES:
        raise ValueError(f"a key takes {KEY_BYTES} random bytes, got {len(random)}")
    return random.hex()


def presented(headers: Mapping[str, str]) -> Presented | None:
    """Return the credential in ``headers`` (names in lower case), if there is one.

    ``Authorization: Bearer`` wins over ``X-API-Key`` also when it is wrong. The word ``Bearer`` is matched in its
    case, as the reference page's server does; another scheme is not ours and leaves the word to ``X-API-Key``.
    """
    authorization = headers.get("authorization", "")
    if authorization.startswith(_BEARER) and (secret := authorization[len(_BEARER) :].strip()):
        return Presented(secret=secret, header="authorization")
    if secret := headers.get("x-api-key", "").strip():
        return Presented(secret=secret, header="x-api-key")
    return None


def scopes_of(names: Iterable[Scope | str]) -> frozenset[Scope]:
    """Return the scopes called so; none at all means all four.

    Raises:
        Invalid: a name is none of the four (``unknown_scope``).
    """
    scopes = set()
    for name in names:
        try:
            scopes.add(Scope(name))
        except ValueError:
            raise Invalid(
                f"there is no scope {str(name)!r}",
                code="unknown_scope",
                resolution=f"choose from {', '.join(sorted(ALL_SCOPES))}",
            ) from None
    return frozenset(scopes) or ALL_SCOPES


def known_scopes(names: Iterable[str]) -> frozenset[Scope]:
    """Return those of ``names`` that are scopes of ours; a token's others mean nothing here."""
    known = {scope.value: scope for scope in Scope}
    return frozenset(known[name] for name in names if name in known)


def usable_keys(keys: Iterable[ApiKey], *, at: datetime) -> tuple[ApiKey, ...]:
    """Return the keys whose time it is."""
    return tuple(key for key in keys if is_usable(key, at=at))


def is_usable(key: ApiKey, *, at: datetime) -> bool:
    """Tell whether ``key`` holds at ``at``: from ``not_before`` on, until just before ``expires_at``."""
    started = key.not_before is None or key.not_before <= at
    return started and (key.expires_at is None or at < key.expires_at)


def same_secret(left: str, right: str) -> bool:
    """Compare in a time that does not tell where two secrets differ."""
    return hmac.compare_digest(left.encode(), right.encode())


def check_phc(phc: str) -> str:
    """Return ``phc`` if it is an Argon2id hash that can be verified at a bearable cost.

    Raises:
        Invalid: it is not (``invalid_hash``).
    """
    found = _PHC.fullmatch(phc)
    bearable = (
        found is not None
        and _LEAST_MEMORY_KIB <= int(found["memory_kib"]) <= _MOST_MEMORY_KIB
        and 1 <= int(found["passes"]) <= _MOST_PASSES
        and int(found["lanes"]) >= 1
    )
    if not bearable:
        raise Invalid(
            "the hash is not an Argon2id hash in PHC form",
            code="invalid_hash",
            reason="it has to read $argon2id$v=19$m=…,t=…,p=…$<salt>$<digest> with at most 1 GiB and 64 passes",
            resolution="make a key and its hash with 'tt auth gen-key'",
        )
    return phc
