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


_CLAIM = """
  INSERT INTO replies VALUES (?, ?, NULL, '', x'', ?) ON CONFLICT (key) DO NOTHING RETURNING key
"""
_KEEP = """
  INSERT OR REPLACE INTO replies (key, fingerprint, status, content_type, body, expires_at_ms) VALUES (?, ?, ?, ?, ?, ?)
"""


class SqlReplies:
    """The port ``Replies``: answers by idempotency key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, key: str, *, fingerprint: str, ttl: timedelta) -> StoredReply | None:
        """Claim ``key``; return what is stored under it if somebody was first, else ``None``."""
        now = utc_now()
        claim = (key, fingerprint, to_ms(now + ttl))

        def step(connection: apsw.Connection) -> StoredReply | None:
            rows(connection, "DELETE FROM replies WHERE expires_at_ms <= ?", (to_ms(now),))
            if row(connection, _CLAIM, claim) is not None:
                return None
            columns = "fingerprint, status, content_type, body"
            found = row(connection, f"SELECT {columns} FROM replies WHERE key = ?", (key,))
            if found is None:
                raise RuntimeError("a claim was refused for a key that is not there")
            return StoredReply(fingerprint=found[0], status=found[1], content_type=found[2], body=found[3])

        return await self._database.write(step)

    async def hold(self, key: str, *, ttl: timedelta) -> None:
        """Let a claim last ``ttl`` from now on; one that has ended stays so."""
        await self._run(
            "UPDATE replies SET expires_at_ms = ? WHERE key = ? AND status IS NULL", to_ms(utc_now() + ttl), key
        )

    async def finish(self, key: str, reply: StoredReply, *, ttl: timedelta) -> None:
        """Keep the answer."""
        until = to_ms(utc_now() + ttl)
        await self._run(_KEEP, key, reply.fingerprint, reply.status, reply.content_type, reply.body, until)

    async def abandon(self, key: str) -> None:
        """Free ``key``: the request failed in a way that may be repeated."""
        await self._run("DELETE FROM replies WHERE key = ? AND status IS NULL", key)

    async def _run(self, statement: str, *values: object) -> None:
        await self._database.write(lambda connection: rows(connection, statement, values))
