"""Requests for agreement, and whoever waits for a decision on one."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import apsw
import orjson

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance.following import Following
from borough.adapters.sql.governance.rows import Row, json_text, moment, ms, places, row, rows
from borough.core.clock import from_ms, to_ms
from borough.core.errors import Conflict, NotFound
from borough.core.ids import AgentId
from borough.governance.approvals import Approval, ApprovalState

_COLUMNS = (
    "id, agent_id, tool, call_digest, shown, rule, submitted_at_ms, expires_at_ms, state, needed, approved_by, "
    "decided_by, decided_at_ms"
)
_NAMES = _COLUMNS.split(", ")
_ADD = f"INSERT INTO approvals ({_COLUMNS}) VALUES ({places(_COLUMNS)}) ON CONFLICT (id) DO NOTHING"
_SELECT = f"SELECT {_COLUMNS} FROM approvals"
# The constant is spelled out so that SQLite takes the index of what waits.
_WAITING = f"{_SELECT} WHERE state = '{ApprovalState.PENDING}' ORDER BY number"
# One who agrees is added at the end: a request on which another has agreed meanwhile is not what was decided on.
_REPLACE = """
  UPDATE approvals SET state = ?, approved_by = ?, decided_by = ?, decided_at_ms = ?
  WHERE id = ? AND state = ? AND approved_by IN (?, ?) RETURNING id
"""


class SqlApprovals:
    """The port ``Approvals``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self._decisions: Following[str] = Following(self._wake, reload=lambda _: tuple(self._waiters))
        database.follow(self._decisions)

    async def add(self, approval: Approval) -> None:
        """Store a request."""
        await self._database.write(lambda connection: rows(connection, _ADD, _values(approval)))

    async def get(self, approval_id: str) -> Approval:
        """Return a request."""
        found = await self._database.read(lambda connection: row(connection, f"{_SELECT} WHERE id = ?", (approval_id,)))
        if found is None:
            raise _not_found(approval_id)
        return _approval(found)

    async def waiting(self) -> tuple[Approval, ...]:
        """Return what waits for a decision, oldest first."""
        found = await self._database.read(lambda connection: rows(connection, _WAITING))
        return tuple(map(_approval, found))

    async def replace(self, approval: Approval, *, was: ApprovalState) -> None:
        """Store a changed request."""
        agreed = approval.approved_by
        values = (approval.state, json_text(agreed), approval.decided_by, ms(approval.decided_at))
        before = (approval.id, was, json_text(agreed), json_text(agreed[:-1]))

        def step(connection: apsw.Connection) -> None:
            if row(connection, _REPLACE, (*values, *before)) is None:
                if row(connection, "SELECT 1 FROM approvals WHERE id = ?", (approval.id,)) is None:
                    raise _not_found(approval.id)
                raise Conflict(
                    f"request {approval.id} is not as it was",
                    code="stale_approval",
                    resolution="read it again and decide anew",
                )
            if approval.state is not ApprovalState.PENDING:
                self._decisions.note(approval.id)

        await self._database.write(step)

    async def decided(self, approval_id: str, *, timeout_s: float) -> Approval:
        """Return the request as soon as it is not pending, or as it is when the time is over."""
        with self._waiter(approval_id) as woken:  # before the look, so that no decision falls between
            try:
                async with asyncio.timeout(timeout_s):
                    while (approval := await self.get(approval_id)).state is ApprovalState.PENDING:
                        await woken.wait()
                        woken.clear()
                    return approval
            except TimeoutError:
                return await self.get(approval_id)

    @contextmanager
    def _waiter(self, approval_id: str) -> Iterator[asyncio.Event]:
        woken = asyncio.Event()
        waiters = self._waiters.setdefault(approval_id, set())
        waiters.add(woken)
        try:
            yield woken
        finally:
            waiters.discard(woken)
            if not waiters:
                self._waiters.pop(approval_id, None)

    def _wake(self, approval_id: str) -> None:
        for woken in self._waiters.get(approval_id, ()):
            woken.set()


def _values(approval: Approval) -> Row:
    return (
        approval.id,
        approval.agent_id,
        approval.tool,
        approval.call_digest,
        json_text(approval.shown),
        approval.rule,
        to_ms(approval.submitted_at),
        to_ms(approval.expires_at),
        approval.state,
        approval.needed,
        json_text(approval.approved_by),
        approval.decided_by,
        ms(approval.decided_at),
    )


def _approval(stored: Row) -> Approval:
    of = dict(zip(_NAMES, stored, strict=True))
    return Approval(
        id=of["id"],
        agent_id=AgentId(of["agent_id"]),
        tool=of["tool"],
        call_digest=of["call_digest"],
        shown=orjson.loads(of["shown"]),
        rule=of["rule"],
        submitted_at=from_ms(of["submitted_at_ms"]),
        expires_at=from_ms(of["expires_at_ms"]),
        state=ApprovalState(of["state"]),
        needed=of["needed"],
        approved_by=tuple(orjson.loads(of["approved_by"])),
        decided_by=of["decided_by"],
        decided_at=moment(of["decided_at_ms"]),
    )


def _not_found(approval_id: str) -> NotFound:
    return NotFound(
        f"there is no request {approval_id}", code="approval_not_found", resolution="list what waits: ash pending"
    )
