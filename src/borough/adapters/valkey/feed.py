"""Events as they happen: one connection reads the town's stream, and everybody in this process is told from it.

Those who wait for work are rung as they stand in line; a safety tick rings all of them, so that due retries, and
anything that could have been missed, are found within it.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from valkey.asyncio import Valkey

from borough.adapters.valkey.batches import LOST
from borough.adapters.valkey.bells import AgentBell, WaitingLine, WorkBell
from borough.adapters.valkey.client import Client
from borough.core.clock import from_ms
from borough.core.errors import Unavailable
from borough.core.events import Event
from borough.core.ids import AgentId
from borough.town.ports.events import Bell

TICK_S = 1.0
WORK_EVENTS = frozenset({"task_queued", "task_assigned", "task_released", "task_replayed", "task_requeued"})
_READ_COUNT = 500
_OVERDUE_S = 5.0
"""How much later than asked a blocking read may answer before its connection counts as dead."""
_LONGEST_PAUSE_S = 1.0

_log = structlog.get_logger(__name__)


class Feed:
    """The town's events, fanned out inside this process (port ``EventFeed``)."""

    def __init__(self, client: Client, *, tick_s: float = TICK_S) -> None:
        self._client = client
        self._stream = f"{client.prefix}events"
        self._tick_s = tick_s
        self._line = WaitingLine()
        self._agent_bells: dict[AgentId, set[AgentBell]] = {}
        self._readers: set[_Reader] = set()
        self._last_id = ""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin with the events that come from now on; raises ``Unavailable``."""
        self._last_id = await self._newest_id()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """End every subscription and the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._cut_off_readers()

    @asynccontextmanager
    async def subscribe(self, *, capacity: int = 1000) -> AsyncIterator[AsyncIterator[Event]]:
        """Yield every event from now on. A reader that falls ``capacity`` behind is cut off: what it has been given
        up to then still comes, then its iterator ends. So it does when events may have been missed.
        """
        reader = _Reader(capacity)
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)

    @asynccontextmanager
    async def work_arrives(self, *, timeout_s: float) -> AsyncIterator[Bell]:
        """Stand in line for new work, for at most ``timeout_s``; the one who waits longest is woken first.

        A ring that nobody waited for when the block is left goes to the next in line.
        """
        bell = WorkBell(self._line, deadline=asyncio.get_running_loop().time() + timeout_s)
        try:
            yield bell
        finally:
            bell.leave()

    @asynccontextmanager
    async def agent_changes(self, agent_id: AgentId) -> AsyncIterator[Bell]:
        """Be woken by each event that names this agent."""
        bell = AgentBell()
        bells = self._agent_bells.setdefault(agent_id, set())
        bells.add(bell)
        try:
            yield bell
        finally:
            bells.discard(bell)
            if not bells and self._agent_bells.get(agent_id) is bells:
                del self._agent_bells[agent_id]

    async def _newest_id(self) -> str:
        newest = await self._client.command("XREVRANGE", self._stream, "+", "-", "COUNT", 1)
        return str(newest[0][0].decode()) if newest else "0-0"

    async def _run(self) -> None:
        """Read, and read on after every loss of the connection."""
        pause_s = 0.0
        while True:
            connection: Valkey | None = None
            try:
                connection = await self._client.own_connection()
                if pause_s:
                    await self._catch_up(connection)
                    _log.info("event_feed_is_back")
                pause_s = 0.0
                await self._read_on(connection)
            except (*LOST, TimeoutError, Unavailable) as error:
                if not pause_s:
                    _log.warning("event_feed_lost_its_connection", reason=str(error) or type(error).__name__)
                pause_s = min(_LONGEST_PAUSE_S, max(0.02, pause_s * 2))
            finally:
                if connection is not None:
                    await _close(connection)
            await asyncio.sleep(pause_s)
            self._ring_everybody()

    async def _catch_up(self, connection: Valkey) -> None:
        """Resume where we were; who may have missed events that are trimmed already is cut off, to look itself."""
        oldest = await connection.xrange(self._stream, count=1)
        if oldest and _order(oldest[0][0].decode()) > _order(self._last_id) != (0, 0):
            self._cut_off_readers()
        newest = await connection.xrevrange(self._stream, count=1)
        if newest and _order(newest[0][0].decode()) < _order(self._last_id):
            # Another server's stream, or one begun anew: ids that we know say nothing about it.
            self._last_id = "0-0"
            self._cut_off_readers()

    async def _read_on(self, connection: Valkey) -> None:
        loop = asyncio.get_running_loop()
        next_tick = loop.time() + self._tick_s
        while True:
            left_s = max(0.001, next_tick - loop.time())
            async with asyncio.timeout(left_s + _OVERDUE_S):
                answer: Any = await connection.xread(
                    {self._stream: self._last_id}, count=_READ_COUNT, block=max(1, int(left_s * 1000))
                )
            for _, entries in answer or ():
                for entry_id, fields in entries:
                    self._last_id = entry_id.decode()
                    self._tell(self._last_id, fields)
            if loop.time() >= next_tick - 0.001:
                self._line.tick()
                next_tick = loop.time() + self._tick_s

    def _tell(self, event_id: str, fields: Mapping[bytes, bytes] | None) -> None:
        if not (self._readers or self._agent_bells or self._line):
            return  # nobody listens: an event costs nothing then
        try:
            event, is_work = decode_event(event_id, fields or {})
        except ValueError as error:
            # Not one of ours. It must not stop the others, and somebody should know.
            _log.error("unreadable_event", id=event_id, reason=str(error))
            return
        for reader in tuple(self._readers):
            if not reader.put(event):
                self._readers.discard(reader)
        agent_id = event.subjects.get("agent_id")
        if agent_id is not None:
            for bell in self._agent_bells.get(AgentId(agent_id), ()):
                bell.ring()
        if is_work:
            self._line.ring()

    def _ring_everybody(self) -> None:
        self._line.tick()
        for bells in self._agent_bells.values():
            for bell in bells:
                bell.ring()

    def _cut_off_readers(self) -> None:
        for reader in self._readers:
            reader.cut_off()
        self._readers.clear()


def decode_event(event_id: str, fields: Mapping[bytes, bytes]) -> tuple[Event, bool]:
    """Return the event of a stream entry, and whether it tells of new work.

    Fields are ``event_type`` and ``data``: JSON with ``message``, ``timestamp`` (RFC 3339; the id's time without it),
    ``work`` and the subjects; subjects that are no text come as JSON, those that are null not at all.

    Raises:
        ValueError: the entry is not an event.
    """
    event_type = fields.get(b"event_type", b"").decode()
    if not event_type:
        raise ValueError("it has no event_type")
    try:
        data = msgspec.json.decode(fields.get(b"data", b"{}"), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ValueError(f"its data are not a JSON object: {error}") from error
    message, timestamp = str(data.pop("message", "")), data.pop("timestamp", None)
    is_work = data.pop("work", False) is True or event_type in WORK_EVENTS
    at = datetime.fromisoformat(str(timestamp)).astimezone(UTC) if timestamp else from_ms(_order(event_id)[0])
    subjects = {name: _subject(value) for name, value in data.items() if value is not None}
    return Event(id=event_id, type=event_type, at=at, message=message, subjects=subjects), is_work


def _subject(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _order(event_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = event_id.partition("-")
    return int(milliseconds), int(sequence or 0)


async def _close(connection: Valkey) -> None:
    with contextlib.suppress(*LOST):  # it is lost anyway
        await connection.aclose()


class _Reader:
    """One subscriber: a bounded queue with an end."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._events: deque[Event] = deque()
        self._ended = False
        self._news = asyncio.Event()

    def put(self, event: Event) -> bool:
        """Queue ``event``; return ``False`` when there is no room, which ends the subscription."""
        if len(self._events) >= self._capacity:
            self.cut_off()
            return False
        self._events.append(event)
        self._news.set()
        return True

    def cut_off(self) -> None:
        self._ended = True
        self._news.set()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._events.popleft()
