"""Answers by idempotency key, in the town's store (port ``Replies``)."""

from datetime import timedelta
from uuid import uuid4

import msgspec

from borough.adapters.valkey.client import Client
from borough.town.ports.replies import StoredReply


class _Record(msgspec.Struct, array_like=True, frozen=True):
    """How a reply is stored."""

    claim: str
    """Who claimed the key, so that a claim that was sent twice (its answer was lost) is known as one's own."""
    fingerprint: str
    status: int | None = None
    content_type: str = ""
    body: bytes = b""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Record).decode


class Replies:
    """Replies as keys that expire by themselves."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def begin(self, key: str, *, fingerprint: str, ttl: timedelta) -> StoredReply | None:
        """Claim ``key``; return what is stored under it if somebody was first, else ``None``."""
        mine = _Record(claim=uuid4().hex, fingerprint=fingerprint)
        words = ("SET", self._name(key), _encode(mine), "NX", "GET", "PX", _milliseconds(ttl))
        there = await self._client.command(*words)
        if there is None:
            return None
        found = _decode(there)
        if found.claim == mine.claim:
            return None
        return StoredReply(
            fingerprint=found.fingerprint, status=found.status, content_type=found.content_type, body=found.body
        )

    async def hold(self, key: str, *, ttl: timedelta) -> None:
        """Let a claim last ``ttl`` from now on; one that has ended stays so."""
        await self._client.command("PEXPIRE", self._name(key), _milliseconds(ttl))

    async def finish(self, key: str, reply: StoredReply, *, ttl: timedelta) -> None:
        """Keep the answer."""
        record = _Record(
            claim="",
            fingerprint=reply.fingerprint,
            status=reply.status,
            content_type=reply.content_type,
            body=reply.body,
        )
        await self._client.command("SET", self._name(key), _encode(record), "PX", _milliseconds(ttl))

    async def abandon(self, key: str) -> None:
        """Free ``key``: the request failed in a way that may be repeated."""
        await self._client.command("DEL", self._name(key))

    def _name(self, key: str) -> str:
        return f"{self._client.prefix}reply:{key}"


def _milliseconds(ttl: timedelta) -> int:
    return max(1, round(ttl.total_seconds() * 1000))
