"""``Idempotency-Key``: a POST that is repeated under its key is done once and answered the same.

The key is the caller's own (scoped by principal, method and path), so nobody can fetch another's answer with it.
Errors below 500 are answers too and are repeated. After 408 and 5xx the key is free again: whether the first try
had an effect is unknown, and since ids derive from the key, trying again finds what it made.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus

from starlette.responses import Response

from borough.core.errors import Conflict, Invalid
from borough.core.ids import derived_id, new_id
from borough.http.answers import Rendered
from borough.town.ports.replies import Replies, StoredReply

KEPT = timedelta(hours=24)
CLAIMED = timedelta(seconds=4)
"""How long a claim lasts without being renewed. It is short, since a server that is killed leaves its claims behind,
and whoever repeats a request then waits for their end."""

_KEY = re.compile(r"[\x21-\x7e]{1,255}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoped:
    """Whose key, for what."""

    principal: str
    method: str
    path: str
    key: str

    def operation_key(self) -> str:
        """Return the id from which the request's ids derive."""
        return derived_id(self.principal, self.method, self.path, self.key)

    def store_key(self) -> str:
        """Return the name under which the answer is kept."""
        joined = f"{self.principal}\x1f{self.method}\x1f{self.path}\x1f{self.key}"
        return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()


def read_key(headers: Mapping[str, str], *, principal: str, method: str, path: str) -> Scoped | None:
    """Return the request's key, if it is a POST that has one.

    Raises:
        Invalid: it is not 1 to 255 visible ASCII characters (``invalid_idempotency_key``).
    """
    key = headers.get("idempotency-key")
    if key is None or method != "POST":
        return None
    if not _KEY.match(key):
        raise Invalid(
            "the Idempotency-Key is not usable",
            code="invalid_idempotency_key",
            reason="it must be 1 to 255 visible ASCII characters",
            resolution="use a fresh UUID for each operation and the same one for its repetitions",
        )
    return Scoped(principal=principal, method=method, path=path, key=key)


def operation_key(scoped: Scoped | None) -> str:
    """Return what ``Call.operation_key`` is."""
    return new_id() if scoped is None else scoped.operation_key()


class Idempotency:
    """Repeats answers. ``kept`` is how long an answer is remembered."""

    def __init__(self, replies: Replies, *, kept: timedelta = KEPT, claimed: timedelta = CLAIMED) -> None:
        self._replies = replies
        self._kept = kept
        self._claimed = claimed

    async def once(
        self, scoped: Scoped, *, query: bytes, body: bytes, act: Callable[[], Awaitable[Rendered | Response]]
    ) -> Rendered | Response:
        """Return the kept answer of the key, or that of ``act``, which then is kept.

        Raises:
            Conflict: the first request is still under way (``idempotency_key_in_use``).
            Invalid: the key was used for another request (``idempotency_key_reused``).
        """
        name = scoped.store_key()
        fingerprint = hashlib.sha256(query + b"\0" + body).hexdigest()
        stored = await self._replies.begin(name, fingerprint=fingerprint, ttl=self._claimed)
        if stored is not None:
            return _repeated(stored, fingerprint)
        finished = False
        hold = asyncio.ensure_future(self._hold(name))
        try:
            answer = await act()
            if isinstance(answer, Rendered) and _is_final(answer.status):
                reply = StoredReply(
                    fingerprint=fingerprint, status=answer.status, content_type=answer.content_type, body=answer.body
                )
                await self._replies.finish(name, reply, ttl=self._kept)
                finished = True
            return answer
        finally:
            hold.cancel()
            if not finished:
                await self._replies.abandon(name)

    async def _hold(self, name: str) -> None:
        """Renew a claim as long as its request is under way."""
        while True:
            await asyncio.sleep(self._claimed.total_seconds() / 2)
            await self._replies.hold(name, ttl=self._claimed)


def _is_final(status: int) -> bool:
    return status < HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.REQUEST_TIMEOUT


def _repeated(stored: StoredReply, fingerprint: str) -> Rendered:
    if stored.fingerprint != fingerprint:
        raise Invalid(
            "the Idempotency-Key was used for another request",
            code="idempotency_key_reused",
            resolution="use a fresh key for a different body",
        )
    if stored.status is None:
        raise Conflict(
            "the first request with this Idempotency-Key is still under way",
            code="idempotency_key_in_use",
            resolution="wait and repeat the request with the same key",
            details={"retry_after_s": 1},
        )
    return Rendered(
        status=stored.status,
        content_type=stored.content_type,
        body=stored.body,
        headers=[(b"idempotency-replayed", b"true")],
    )
