"""Reads are recorded in sum: one entry for each principal, route and minute."""

from dataclasses import dataclass
from datetime import datetime

from borough.core.clock import rfc3339, utc_now
from borough.governance.actions import Action
from borough.governance.ledger import Via
from borough.governance.services.asking import Asker, daemon
from borough.governance.services.recording import Recorder
from borough.governance.services.tallies import Counted, Tally
from borough.governance.tokens import Caller

OTHERS = "others"
"""What reads are called that there was no room to tell apart."""


@dataclass(frozen=True, slots=True)
class _Read:
    caller: Caller
    via: Via
    route: str


class ReadService:
    """Counts reads in memory, and records the counts when a minute is over."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._tally: Tally[_Read] = Tally()

    def note(self, asker: Asker, route: str) -> None:
        """Count a read; does not wait."""
        self._tally.add(_Read(asker.caller, asker.via, route), at=utc_now())

    async def flush(self, *, at: datetime | None = None, everything: bool = False) -> int:
        """Record what is due and return how many entries that were; ``everything`` before the daemon ends.

        Raises:
            Unavailable: the ledger cannot be written (``ledger_unavailable``); what was not recorded is kept.
        """
        return await self._tally.record_due(self._record, at=at or utc_now(), everything=everything)

    async def _record(self, counted: Counted[_Read]) -> None:
        read, minute = counted.key, rfc3339(counted.minute)
        route = read.route if read else OTHERS
        reason = f"reads of {minute}"
        asker = daemon(reason)
        if read is not None:
            asker = Asker(caller=read.caller, via=read.via, request_id=reason, operation_key=reason)
        await self._recorder.event(
            asker,
            Action.READS_AGGREGATED,
            detail=f"{route} ({counted.count})",
            data={"route": route, "count": counted.count, "minute": minute},
        )
