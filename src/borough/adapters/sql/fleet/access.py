"""Beside the fleet's rows: what was agreed with hosts, and answers that are kept for requests that are repeated."""

from datetime import timedelta

import apsw

from borough.adapters.sql.engine import Database
from borough.adapters.sql.fleet.rows import row, rows
from borough.core.clock import to_ms, utc_now
from borough.fleet.trust import HostTrust
from borough.town.ports.replies import StoredReply


async def host_trust(database: Database) -> dict[tuple[str, str], HostTrust]:
    """Return what was agreed with hosts, by id and address; of a file that was opened with ``tables.CONTROLLER``."""
    statement = "SELECT host_id, addr, credential, fingerprint FROM host_trust"
    found = await database.read(lambda connection: rows(connection, statement))
    return {
        (host_id, addr): HostTrust(credential=credential, fingerprint=fingerprint)
        for host_id, addr, credential, fingerprint in found
    }


class SqlControllers:
    """The controllers that joined this host: digests of the credentials that they were given."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, digest: str) -> None:
        """Let whoever has the credential of this digest in from now on."""
        statement = "INSERT OR IGNORE INTO controllers VALUES (?, ?)"
        await self._database.write(lambda connection: rows(connection, statement, (digest, to_ms(utc_now()))))

    async def all(self) -> frozenset[str]:
        """Return the digests."""
        found = await self._database.read(lambda connection: rows(connection, "SELECT digest FROM controllers"))
        return frozenset(digest for (digest,) in found)


_KEPT = """
  SELECT fingerprint, status, content_type, body FROM replies
  WHERE key = ? AND status IS NOT NULL AND expires_at_ms > ?
"""
_KEEP = """
  INSERT OR REPLACE INTO replies (key, fingerprint, status, content_type, body, expires_at_ms) VALUES (?, ?, ?, ?, ?, ?)
"""


class SqlReplies:
    """The port ``Replies``: answers by idempotency key.

    Answers are in the file, claims are not: the file is this process's alone, and whatever had claimed a key ends with
    it. So nobody waits for the claim of a server that was killed, and to claim one flushes nothing.
    """

    def __init__(self, database: Database) -> None:
        """``database`` is no other process's, as one that was opened and not joined."""
        self._database = database
        self._claimed: dict[str, str] = {}
        """Fingerprints of what is under way, by key."""

    async def begin(self, key: str, *, fingerprint: str, ttl: timedelta) -> StoredReply | None:  # noqa: ARG002 - port
        """Claim ``key``; return what is stored under it if somebody was first, else ``None``."""
        if key in self._claimed:
            return StoredReply(fingerprint=self._claimed[key], status=None)
        self._claimed[key] = fingerprint
        wanted = key, to_ms(utc_now())
        found = None
        try:
            found = await self._database.read(lambda connection: row(connection, _KEPT, wanted))
        except BaseException:
            del self._claimed[key]
            raise
        if found is None:
            return None
        del self._claimed[key]
        return StoredReply(fingerprint=found[0], status=found[1], content_type=found[2], body=found[3])

    async def hold(self, key: str, *, ttl: timedelta) -> None:
        """Do nothing: a claim lasts until it is finished or abandoned, or this process ends."""

    async def finish(self, key: str, reply: StoredReply, *, ttl: timedelta) -> None:
        """Keep the answer."""
        now = utc_now()
        kept = (key, reply.fingerprint, reply.status, reply.content_type, reply.body, to_ms(now + ttl))

        def step(connection: apsw.Connection) -> None:
            rows(connection, "DELETE FROM replies WHERE expires_at_ms <= ?", (to_ms(now),))
            rows(connection, _KEEP, kept)

        await self._database.write(step)
        self._claimed.pop(key, None)

    async def abandon(self, key: str) -> None:
        """Free ``key``: the request failed in a way that may be repeated."""
        self._claimed.pop(key, None)
