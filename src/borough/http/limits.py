"""How often one may ask: token buckets a caller, reads and writes apart; failed logins an address.

Buckets live in this process and are bounded in number: the longest unused goes first. A caller is its principal, or
its address where it has none. ``X-Forwarded-For`` counts only when the peer is a trusted proxy.
"""

import hashlib
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address

from borough.core.errors import Forbidden, Unavailable

PERIOD_S = 60
READS_PER_MINUTE = 600
WRITES_PER_MINUTE = 300
FAILED_LOGINS_PER_MINUTE = 10
MAX_CALLERS = 10_000

Network = IPv4Network | IPv6Network
Monotonic = Callable[[], float]


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class TokenBuckets:
    """Buckets that get ``per_minute`` tokens evenly; at most ``max_callers`` of them are remembered.

    A full one holds ``burst`` tokens, but never more than a minute's: that is what callers are told.
    """

    def __init__(
        self,
        per_minute: int,
        *,
        burst: int | None = None,
        max_callers: int = MAX_CALLERS,
        now: Monotonic = time.monotonic,
    ) -> None:
        self.per_minute = per_minute
        self._full = float(per_minute if burst is None else min(burst, per_minute))
        self._rate = per_minute / PERIOD_S
        self._max_callers = max_callers
        self._now = now
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, caller: str) -> float:
        """Take a token if there is one; return the tokens left, negative when there was none."""
        bucket = self._filled(caller)
        if bucket.tokens < 1:
            return bucket.tokens - 1
        bucket.tokens -= 1
        return bucket.tokens

    def left(self, caller: str) -> float:
        """Return the tokens that are left."""
        return self._filled(caller).tokens if caller in self._buckets else self._full

    def wait_s(self, caller: str) -> float:
        """Return the seconds until there is a token again."""
        return max(0.0, (1 - self.left(caller)) / self._rate)

    def __len__(self) -> int:
        return len(self._buckets)

    def _filled(self, caller: str) -> _Bucket:
        now = self._now()
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = _Bucket(self._full, now)
            if len(self._buckets) > self._max_callers:
                self._buckets.popitem(last=False)
            return bucket
        bucket.tokens = min(self._full, bucket.tokens + (now - bucket.at) * self._rate)
        bucket.at = now
        self._buckets.move_to_end(caller)
        return bucket


class RateLimits:
    """The limits of a server: one for reads, one for writes."""

    def __init__(
        self,
        *,
        reads_per_minute: int = READS_PER_MINUTE,
        writes_per_minute: int = WRITES_PER_MINUTE,
        burst: int | None = None,
        now: Monotonic = time.monotonic,
    ) -> None:
        self._reads = TokenBuckets(reads_per_minute, burst=burst, now=now)
        self._writes = TokenBuckets(writes_per_minute, burst=burst, now=now)

    def charge(self, caller: str, *, read: bool) -> list[tuple[bytes, bytes]]:
        """Count one request of ``caller``; return the headers that tell where it stands.

        They follow draft-ietf-httpapi-ratelimit-headers-10.

        Raises:
            Unavailable: none is left (``rate_limited``); the same headers and the time to wait are in its details.
        """
        buckets, policy = (self._reads, "reads") if read else (self._writes, "writes")
        left = buckets.take(caller)
        wait_s = 0 if left >= 1 else math.ceil(buckets.wait_s(caller))
        headers = {
            "ratelimit-policy": f'"{policy}";q={buckets.per_minute};w={PERIOD_S}',
            "ratelimit": f'"{policy}";r={max(0, int(left))};t={wait_s}',
        }
        if left < 0:
            raise Unavailable(
                f"more than {buckets.per_minute} {policy} a minute",
                code="rate_limited",
                resolution=f"wait {max(1, wait_s)} s; spread the requests or use one token for each program",
                details={"headers": headers, "retry_after_s": max(1, wait_s)},
            )
        return [(name.encode(), value.encode()) for name, value in headers.items()]


class LoginThrottle:
    """Slows down guessing: after some failures an address must wait before its next unknown credential is looked at.

    Credentials that were accepted before still pass, so one misled program does not lock out its neighbours behind
    the same address. Only keyed digests of them are kept, under a key that this process made for itself.
    """

    def __init__(
        self,
        *,
        failures_per_minute: int = FAILED_LOGINS_PER_MINUTE,
        max_callers: int = MAX_CALLERS,
        now: Monotonic = time.monotonic,
    ) -> None:
        self._failures = TokenBuckets(failures_per_minute, max_callers=max_callers, now=now)
        self._max_accepted = max_callers
        self._accepted: OrderedDict[bytes, None] = OrderedDict()
        self._key = secrets.token_bytes(32)

    def check(self, address: str, headers: Mapping[str, str]) -> None:
        """Refuse an address that failed too often.

        Raises:
            Unavailable: it has to wait (``rate_limited``).
        """
        if self._failures.left(address) >= 1 or self._digest(headers) in self._accepted:
            return
        wait_s = max(1, math.ceil(self._failures.wait_s(address)))
        raise Unavailable(
            "too many failed logins from this address",
            code="rate_limited",
            resolution=f"wait {wait_s} s and check the credential",
            details={"retry_after_s": wait_s},
        )

    def failed(self, address: str, error: Forbidden) -> None:
        """Count a refusal; having sent no credential at all is not a guess."""
        if error.code == "invalid_credentials":
            self._failures.take(address)

    def succeeded(self, headers: Mapping[str, str]) -> None:
        """Remember that this credential is good."""
        digest = self._digest(headers)
        if digest in self._accepted:
            self._accepted.move_to_end(digest)
            return
        self._accepted[digest] = None
        if len(self._accepted) > self._max_accepted:
            self._accepted.popitem(last=False)

    def _digest(self, headers: Mapping[str, str]) -> bytes:
        credential = headers.get("authorization") or headers.get("x-api-key", "")
        return hashlib.blake2b(credential.encode("latin-1", "replace"), key=self._key, digest_size=16).digest()


def client_address(peer: str, forwarded_for: str | None, trusted_proxies: Collection[Network]) -> str:
    """Return who asks: the peer, or the last address in ``X-Forwarded-For`` that is not a trusted proxy's."""
    if not trusted_proxies or not forwarded_for or not _trusted(peer, trusted_proxies):
        return peer
    address = peer
    for claimed in reversed(forwarded_for.split(",")):
        candidate = claimed.strip().strip("[]")
        if not _is_address(candidate):
            return address
        address = candidate
        if not _trusted(address, trusted_proxies):
            return address
    return address


def _trusted(address: str, proxies: Collection[Network]) -> bool:
    if not _is_address(address):
        return False
    parsed = ip_address(address)
    return any(parsed in network for network in proxies)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
