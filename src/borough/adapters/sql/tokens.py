"""The gateway's tokens in an SQLite file of their own; all of them also in memory, where requests look them up.

The one process that has the file open is the only one that changes it, so memory is never behind: it follows each
commit before whoever asked for the change goes on.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import apsw
import structlog

from borough.adapters.sql.engine import Database, Follower, Migration
from borough.core.clock import utc_now
from borough.core.errors import BoroughError, Conflict, NotFound
from borough.core.ids import AgentId
from borough.governance.tokens import ApiToken, Role, StreamTicket, TokenScope

log = structlog.get_logger(__name__)

MIGRATIONS: Final = (
    Migration(
        number=1,
        statements=(
            """CREATE TABLE api_tokens (
                name TEXT PRIMARY KEY, agent_id TEXT NOT NULL, token_hash TEXT NOT NULL UNIQUE,
                created_at TEXT NOT NULL, last_used_at TEXT, expires_at TEXT,
                role TEXT NOT NULL, scopes TEXT NOT NULL, revoked_at TEXT, previous_hash TEXT, previous_until TEXT
            ) STRICT""",
        ),
    ),
)
COLUMNS: Final = (
    "name, agent_id, token_hash, created_at, last_used_at, expires_at,"
    " role, scopes, revoked_at, previous_hash, previous_until"
)
_USED: Final = "UPDATE api_tokens SET last_used_at = max(ifnull(last_used_at, ''), ?) WHERE name = ?"
USES_WRITTEN_AFTER_S: Final = 5.0
"""How long the time of a token's last use may be in memory only."""
MOST_TICKETS: Final = 10_000


class SqlTokens(Follower):
    """The ``Tokens`` in a file."""

    def __init__(self, database: Database, tokens: list[ApiToken], *, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now
        self._by_name: dict[str, ApiToken] = {}
        self._name_of: dict[str, str] = {}
        self._changed: list[ApiToken] = []
        """What the group that is being written changes."""
        self._used: dict[str, datetime] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._tickets: OrderedDict[str, StreamTicket] = OrderedDict()
        self._remember_all(tokens)
        database.follow(self)

    @classmethod
    async def open(cls, path: Path, *, now: Callable[[], datetime] = utc_now) -> Self:
        """Open the file, made owner-only where there is none; raises as ``Database.open`` does."""
        database = await Database.open(path, MIGRATIONS)
        return cls(database, await database.read(_all), now=now)

    async def close(self) -> None:
        """Write what is not written yet and close the file."""
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            await asyncio.wait([self._writing])
        await self._write_uses()
        await self._database.close()

    # -- the port ------------------------------------------------------------------------------------------------------

    async def add(self, token: ApiToken) -> None:
        """Store a new token; the name of a revoked one is free. Raises ``Conflict`` (``token_exists``)."""
        await self._database.write(lambda connection: self._add(connection, token))

    async def by_digest(self, digest: str) -> ApiToken | None:
        """Return the token with this SHA-256, current or previous; from memory."""
        name = self._name_of.get(digest)
        return None if name is None else self._by_name[name]

    def knows(self, digest: str) -> bool:
        """Tell whether a token has this SHA-256, also one that was revoked; from memory, at once."""
        return digest in self._name_of

    async def get(self, name: str) -> ApiToken:
        """Return a token by its name; raises ``NotFound`` (``token_not_found``)."""
        if name not in self._by_name:
            raise _not_found(name)
        return self._by_name[name]

    async def all(self) -> tuple[ApiToken, ...]:
        """Return every token that was not revoked, oldest first."""
        held = [token for token in self._by_name.values() if token.revoked_at is None]
        return tuple(sorted(held, key=lambda token: (token.created_at, token.name)))

    async def replace(self, token: ApiToken) -> None:
        """Store a changed token over the one of its name; raises ``NotFound`` and ``Conflict``."""
        await self._database.write(lambda connection: self._replace(connection, token))

    async def used(self, name: str, *, at: datetime) -> None:
        """Note that a token was used; one that is gone meanwhile is passed over."""
        token = self._by_name.get(name)
        if token is None or (token.last_used_at is not None and token.last_used_at >= at):
            return
        self._by_name[name] = replace(token, last_used_at=at)
        self._used[name] = at
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(USES_WRITTEN_AFTER_S, self._start_writing, loop)

    async def keep_ticket(self, ticket: StreamTicket) -> None:
        """Keep a stream ticket, in memory; of too many the oldest are forgotten."""
        now = self._now()
        while self._tickets and (
            len(self._tickets) >= MOST_TICKETS or next(iter(self._tickets.values())).expires_at <= now
        ):
            self._tickets.popitem(last=False)
        self._tickets[ticket.digest] = ticket

    async def take_ticket(self, digest: str, *, at: datetime) -> StreamTicket | None:
        """Return a ticket and forget it; a second taker, or one too late, gets ``None``."""
        ticket = self._tickets.pop(digest, None)
        return ticket if ticket is not None and at < ticket.expires_at else None

    # -- in step with the database -------------------------------------------------------------------------------------

    def mark(self) -> int:
        """Return how much this group changes up to now."""
        return len(self._changed)

    def undo(self, mark: object) -> None:
        """Forget the changes of a step that was undone."""
        assert isinstance(mark, int)  # noqa: S101 - what ``mark`` returned
        del self._changed[mark:]

    def rebuild(self, connection: apsw.Connection) -> None:
        """Forget the changes of a group that was undone: what requests see is only ever what was committed."""
        del connection
        self._changed.clear()

    def committed(self) -> Callable[[], None] | None:
        """Return what lets requests see this group's changes."""
        changed, self._changed = self._changed, []
        return partial(self._remember_all, changed) if changed else None

    def _remember_all(self, tokens: list[ApiToken]) -> None:
        for token in tokens:
            self._remember(token)

    def _remember(self, token: ApiToken) -> None:
        before = self._by_name.get(token.name)
        if before is not None:
            for digest in _digests(before):
                self._name_of.pop(digest, None)
            if before.created_at != token.created_at:
                self._used.pop(token.name, None)  # another token under a name that became free
            elif before.last_used_at is not None:
                used_at = max(before.last_used_at, token.last_used_at or before.last_used_at)
                token = replace(token, last_used_at=used_at)
        self._by_name[token.name] = token
        self._name_of.update(dict.fromkeys(_digests(token), token.name))

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _add(self, connection: apsw.Connection, token: ApiToken) -> None:
        statement = "SELECT 1 FROM api_tokens WHERE name = ? AND revoked_at IS NULL"
        if connection.execute(statement, (token.name,)).get:
            raise Conflict(
                f"there is a key {token.name!r} already",
                code="token_exists",
                resolution="choose another name, or revoke that key first: ash api-key revoke",
            )
        connection.execute("DELETE FROM api_tokens WHERE name = ?", (token.name,))
        self._insert(connection, token)

    def _replace(self, connection: apsw.Connection, token: ApiToken) -> None:
        connection.execute("DELETE FROM api_tokens WHERE name = ?", (token.name,))
        if not connection.changes():
            raise _not_found(token.name)
        self._insert(connection, token)

    def _insert(self, connection: apsw.Connection, token: ApiToken) -> None:
        marks = ", ".join("?" * len(_row(token)))
        connection.execute(f"INSERT INTO api_tokens ({COLUMNS}) VALUES ({marks})", _row(token))  # noqa: S608 - constants of ours
        self._changed.append(token)

    def _start_writing(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._writing = loop.create_task(self._write_uses())

    async def _write_uses(self) -> None:
        used, self._used = self._used, {}
        rows = [(_text(at), name) for name, at in used.items()]
        if not rows:
            return
        try:
            await self._database.write(lambda connection: connection.executemany(_USED, rows).fetchall())
        except BoroughError as error:
            # It is only when tokens were used last; the next use is written again.
            log.warning("tokens.uses_not_written", error=error.message, code=error.code, reason=error.reason)


def _all(connection: apsw.Connection) -> list[ApiToken]:
    return [_token(row) for row in connection.execute(f"SELECT {COLUMNS} FROM api_tokens")]  # noqa: S608 - constants of ours


def _digests(token: ApiToken) -> list[str]:
    return [digest for digest in (token.token_sha256, token.previous_sha256) if digest is not None]


def _row(token: ApiToken) -> tuple[str | None, ...]:
    return (
        token.name,
        token.agent_id,
        token.token_sha256,
        _text(token.created_at),
        _text(token.last_used_at),
        _text(token.expires_at),
        token.role.value,
        " ".join(sorted(token.scopes)),
        _text(token.revoked_at),
        token.previous_sha256,
        _text(token.previous_until),
    )


def _token(row: tuple[Any, ...]) -> ApiToken:
    name, agent_id, digest, created, used, expires, role, scopes, revoked, previous, until = row
    return ApiToken(
        name=name,
        agent_id=AgentId(agent_id),
        token_sha256=digest,
        created_at=datetime.fromisoformat(created),
        last_used_at=_moment(used),
        expires_at=_moment(expires),
        role=Role(role),
        scopes=frozenset(map(TokenScope, scopes.split())),
        revoked_at=_moment(revoked),
        previous_sha256=previous,
        previous_until=_moment(until),
    )


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="microseconds")


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _not_found(name: str) -> NotFound:
    return NotFound(f"there is no key {name!r}", code="token_not_found", resolution="see 'ash api-key list'")
