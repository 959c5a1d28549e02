"""Answers that are kept for their repetition."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReply:
    """An answer kept for its repetition."""

    fingerprint: str
    status: int | None
    """``None`` while the first request is still under way."""
    content_type: str = ""
    body: bytes = b""


class Replies(Protocol):
    """Answers by idempotency key."""

    async def begin(self, key: str, *, fingerprint: str, ttl: timedelta) -> StoredReply | None:
        """Claim ``key``; return what is stored under it if somebody was first, else ``None``.

        ``ttl``: how long the claim of a server that was killed keeps others away, at the most.
        """

    async def hold(self, key: str, *, ttl: timedelta) -> None:
        """Let a claim last ``ttl`` from now on; one that has ended stays so."""

    async def finish(self, key: str, reply: StoredReply, *, ttl: timedelta) -> None:
        """Keep the answer."""

    async def abandon(self, key: str) -> None:
        """Free ``key``: the request failed in a way that may be repeated."""
