"""Live events: the ledger's entries as they are written, after those that a reader has missed."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from borough.core.clock import utc_now
from borough.core.errors import Forbidden, NotFound, Unavailable
from borough.core.ids import AgentId
from borough.core.paging import PageRequest
from borough.governance.access import Verb
from borough.governance.ports.ledger import EntryFilter, Ledger, LedgerFeed
from borough.governance.services.asking import Asker
from borough.governance.services.fanout import MOST_QUEUED, Fanout, Frame, frame_of
from borough.governance.services.gate import Gate

MOST_STREAMS = 2000
PAGE = 500
SEEN_ANEW_EVERY = timedelta(seconds=30)
"""How long it may take until a stream notices that its reader may see less, or more."""
EVERYTHING = EntryFilter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Entries that cannot be had any more: those after ``after`` and before ``resumes_at``."""

    after: int
    resumes_at: int


@dataclass(slots=True)
class _Horizon:
    """Which agents' entries a reader sees, as long as that is not too old to go by."""

    reach: frozenset[AgentId] | None
    """``None``: all."""
    until: datetime
    verdicts: dict[str, bool]


class EventService:
    """Streams of entries. A reader that is slow reads on from the ledger, and costs the others nothing."""

    def __init__(self, ledger: Ledger, feed: LedgerFeed, gate: Gate, *, capacity: int = MOST_QUEUED) -> None:
        self._ledger = ledger
        self._gate = gate
        self._fanout = Fanout(feed, capacity=capacity)

    async def follow(
        self, asker: Asker, wanted: EntryFilter, after: int | None
    ) -> AsyncIterator[tuple[Frame, ...] | Gap]:
        """Return the entries after ``after`` (``None``: from now on), a few at a time, without end.

        Raises:
            Forbidden: the caller may not read events.
            Unavailable: too many read already (``too_many_streams``).
        """
        if self._fanout.listening >= MOST_STREAMS:
            raise Unavailable(
                f"{MOST_STREAMS} streams are open already",
                code="too_many_streams",
                resolution="close some, or come back later",
                details={"retry_after_s": 30},
            )
        horizon = await self._horizon(asker)
        position = (await self._ledger.head()).size - 1 if after is None else after
        return self._entries(asker, replace(wanted, since=None, until=None), position, horizon)

    async def _entries(
        self, asker: Asker, wanted: EntryFilter, position: int, horizon: _Horizon
    ) -> AsyncIterator[tuple[Frame, ...] | Gap]:
        async with self._fanout.listen(wanted) as listener:
            try:
                while True:
                    # First let new entries in, then read the old ones: what is in both is passed over below.
                    listener.begin()
                    gap = await self._gap(position)
                    if gap is not None:
                        yield gap
                        position = gap.resumes_at - 1
                    after: str | None = _after(position)
                    while after is not None:
                        frames, after = await self._page(_narrowed(wanted, horizon), after)
                        position = frames[-1].seq if frames else position
                        horizon, seen = await self._seen(asker, horizon, frames)
                        if seen:
                            yield seen
                    while (frames_now := await listener.take()) is not None:
                        new = tuple(frame for frame in frames_now if frame.seq > position)
                        position = max(position, frames_now[-1].seq)
                        horizon, seen = await self._seen(asker, horizon, new)
                        if seen:
                            yield seen
            except Forbidden:
                return  # the reader may see nothing any more, which is recorded: the stream is over

    async def _page(self, wanted: EntryFilter, after: str) -> tuple[tuple[Frame, ...], str | None]:
        page = await self._ledger.find(wanted, PageRequest(limit=PAGE, after=after))
        return tuple(frame_of(entry) for entry in page.items), page.after

    async def _gap(self, position: int) -> Gap | None:
        """Return what lies between ``position`` and the first entry after it that is there."""
        size = (await self._ledger.head()).size
        if position + 1 == size:
            return None
        if position + 1 > size:
            # What is on disk can be read a moment before the head tells of it: only then has the reader seen it here.
            if await self._is_there(position):
                return None
            # The reader has seen more than there is: this ledger is another one, or was put back to an older state.
            return Gap(after=position, resumes_at=size)
        if await self._is_there(position + 1):
            return None
        kept = await self._ledger.find(EVERYTHING, PageRequest(limit=1, after=_after(position)))
        return Gap(after=position, resumes_at=kept.items[0].seq if kept.items else size)

    async def _is_there(self, seq: int) -> bool:
        try:
            await self._ledger.get(seq)
        except NotFound:
            return False
        return True

    async def _horizon(self, asker: Asker) -> _Horizon:
        reach = await self._gate.reach(asker, Verb.READ_EVENTS)
        return _Horizon(reach=reach, until=utc_now() + SEEN_ANEW_EVERY, verdicts={})

    async def _seen(
        self, asker: Asker, horizon: _Horizon, frames: tuple[Frame, ...]
    ) -> tuple[_Horizon, tuple[Frame, ...]]:
        if horizon.until <= utc_now():
            horizon = await self._horizon(asker)
        if horizon.reach is None:
            return horizon, frames
        return horizon, tuple([frame for frame in frames if await self._shows(asker, horizon, frame)])

    async def _shows(self, asker: Asker, horizon: _Horizon, frame: Frame) -> bool:
        for agent_id in (frame.agent_id, frame.on_behalf_of):
            if agent_id is None:
                continue
            if horizon.reach is not None and agent_id in horizon.reach:
                return True
            if agent_id not in horizon.verdicts:
                # An agent that was not there when the horizon was drawn: a child, perhaps.
                verdict = await self._gate.sees(asker, Verb.READ_EVENTS, AgentId(agent_id))
                horizon.verdicts[agent_id] = verdict
            if horizon.verdicts[agent_id]:
                return True
        return False


def _narrowed(wanted: EntryFilter, horizon: _Horizon) -> EntryFilter:
    if horizon.reach is None:
        return wanted
    agents = horizon.reach if wanted.agents is None else wanted.agents & horizon.reach
    return replace(wanted, agents=agents)


def _after(position: int) -> str:
    return "" if position < 0 else str(position)
