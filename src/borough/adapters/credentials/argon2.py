"""API keys against their Argon2id hashes: off the event loop, few at a time, remembered for a short while."""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import Type, verify_secret

from borough.auth.credentials import KEY_BYTES, ApiKey, check_phc, format_key, usable_keys
from borough.auth.principals import Principal
from borough.core.clock import utc_now
from borough.core.errors import Forbidden, Invalid, Unavailable

_LONGEST_KEY = 1024
_REMEMBERED = 256
_REMEMBER_RIGHT_S = 300.0
_REMEMBER_WRONG_S = 10.0
_LONGEST_QUEUE = 32
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1, hash_len=32, salt_len=16, type=Type.ID)


def new_api_key() -> tuple[str, str]:
    """Return a fresh key and its hash."""
    key = format_key(secrets.token_bytes(KEY_BYTES))
    return key, _HASHER.hash(key)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a verification found: whose it is, or that it was none of ``tried``."""

    key: ApiKey | None
    tried: frozenset[ApiKey]
    until: float


class ArgonKeys:
    """Knows whose key a secret is. A verified key is remembered by its HMAC under a key of this process.

    What is remembered holds only as long as the key it was found to be is still among ``keys`` and its time has not
    run out: rotation, expiry and revocation take effect at the next request.
    """

    def __init__(
        self,
        keys: Sequence[ApiKey],
        *,
        threads: int = 1,
        now: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = tuple(keys)
        self._now = now
        self._monotonic = monotonic
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="argon2")
        self._salt = secrets.token_bytes(32)
        self._outcomes: OrderedDict[bytes, _Outcome] = OrderedDict()
        self._under_way: dict[bytes, asyncio.Future[_Outcome]] = {}
        self.verifications = 0
        """How often Argon2 really ran, for one secret against all keys."""

    def replace_keys(self, keys: Sequence[ApiKey]) -> None:
        """Use ``keys`` from now on."""
        self._keys = tuple(keys)

    def close(self) -> None:
        """End the threads; what they compute now is finished first."""
        self._pool.shutdown(wait=True)

    async def verify(self, secret: str) -> Principal:
        """Return whose key ``secret`` is.

        Raises:
            Forbidden: nobody's at this time (``invalid_credentials``).
            Unavailable: too many unknown keys wait to be verified (``verification_busy``).
        """
        if len(secret) > _LONGEST_KEY:
            raise _refused()
        digest = hmac.digest(self._salt, secret.encode(), hashlib.sha256)
        outcome = self._remembered(digest) or await self._verified(digest, secret)
        if outcome.key is None or outcome.key not in usable_keys(self._keys, at=self._now()):
            raise _refused()
        return outcome.key.principal

    def _remembered(self, digest: bytes) -> _Outcome | None:
        outcome = self._outcomes.get(digest)
        if outcome is None:
            return None
        usable = set(usable_keys(self._keys, at=self._now()))
        holds = outcome.key in usable if outcome.key else usable <= outcome.tried
        if self._monotonic() >= outcome.until or not holds:
            del self._outcomes[digest]
            return None
        return outcome

    async def _verified(self, digest: bytes, secret: str) -> _Outcome:
        """Let Argon2 decide; requests with the same secret wait for one decision."""
        future = self._under_way.get(digest)
        if future is None:
            if len(self._under_way) >= _LONGEST_QUEUE:
                raise Unavailable(
                    "too many unknown keys wait to be verified",
                    code="verification_busy",
                    resolution="try again in a second",
                )
            candidates = usable_keys(self._keys, at=self._now())
            future = asyncio.ensure_future(self._decide(digest, secret, candidates))
            self._under_way[digest] = future
            future.add_done_callback(lambda _: self._under_way.pop(digest, None))
        # One caller that goes away must not take the decision from the others.
        return await asyncio.shield(future)

    async def _decide(self, digest: bytes, secret: str, candidates: tuple[ApiKey, ...]) -> _Outcome:
        self.verifications += 1
        found = await asyncio.get_running_loop().run_in_executor(self._pool, _owner, secret, candidates)
        lasts = _REMEMBER_WRONG_S if found is None else _REMEMBER_RIGHT_S
        outcome = _Outcome(key=found, tried=frozenset(candidates), until=self._monotonic() + lasts)
        self._outcomes[digest] = outcome
        while len(self._outcomes) > _REMEMBERED:
            self._outcomes.popitem(last=False)
        return outcome


def _owner(secret: str, candidates: tuple[ApiKey, ...]) -> ApiKey | None:
    for key in candidates:
        try:
            verify_secret(check_phc(key.phc).encode(), secret.encode(), Type.ID)
        except (VerificationError, InvalidHashError, Invalid):
            # Not this one, or its hash is broken: the start-up checks say so to the operator.
            continue
        return key
    return None


def _refused() -> Forbidden:
    return Forbidden(
        "Invalid credentials",
        code="invalid_credentials",
        resolution="check the key and its dates; 'tt auth gen-key' makes a new one",
    )
