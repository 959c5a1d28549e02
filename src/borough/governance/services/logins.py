"""Failed logins: recorded as they come, but a flood of them from one address is recorded in sum."""

from dataclasses import dataclass
from datetime import datetime

from borough.core.clock import rfc3339, utc_now
from borough.governance.actions import Action
from borough.governance.ledger import Outcome, Via
from borough.governance.services.asking import Asker
from borough.governance.services.recording import Recorder
from borough.governance.services.tallies import Counted, Tally
from borough.governance.tokens import NOBODY, Caller, Role

MOST_ADDRESSES = 64
"""For each minute. The others are recorded together, so that no number of addresses fills the disk."""
MOST_ADDRESS_CHARACTERS = 64
STRANGER = Caller(token_name="stranger", agent_id=NOBODY, role=Role.AGENT, scopes=frozenset())  # noqa: S106 - a name
"""Who asks when nobody knows who asks."""


@dataclass(frozen=True, slots=True)
class _Failure:
    address: str
    code: str
    via: Via


class LoginService:
    """Counts failures in memory: the first of an address in a minute is due at once, the rest when it is over."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._tally: Tally[_Failure] = Tally(most_keys=MOST_ADDRESSES, first_at_once=True)

    def failed(self, address: str, code: str, *, via: Via = Via.HTTP) -> None:
        """Note that somebody at ``address`` was not let in; does not wait. What was presented is not told."""
        self._tally.add(_Failure(address[:MOST_ADDRESS_CHARACTERS], code, via), at=utc_now())

    async def flush(self, *, at: datetime | None = None, everything: bool = False) -> int:
        """Record what is due and return how many entries that were; to be called about every second.

        Raises:
            Unavailable: the ledger cannot be written (``ledger_unavailable``); what was not recorded is kept.
        """
        return await self._tally.record_due(self._record, at=at or utc_now(), everything=everything)

    async def _record(self, counted: Counted[_Failure]) -> None:
        failure, minute = counted.key, rfc3339(counted.minute)
        address = failure.address if failure else "many addresses"
        code = failure.code if failure else "many"
        reason = f"logins of {minute}"
        await self._recorder.event(
            Asker(caller=STRANGER, via=failure.via if failure else Via.HTTP, request_id=reason, operation_key=reason),
            Action.AUTH_FAILURE,
            outcome=Outcome.DENIED,
            detail=f"{code} from {address or 'this machine'} ({counted.count})",
            data={"address": address, "code": code, "count": counted.count, "minute": minute},
        )
