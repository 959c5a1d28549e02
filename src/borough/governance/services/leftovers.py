"""What a crash leaves in the ledger: acts whose outcome was never told."""

from typing import cast

import orjson

from borough.core.clock import utc_now
from borough.core.ids import derived_id
from borough.governance.canonical import Json
from borough.governance.ledger import OPTIONAL_FIELDS, Draft, Kind, Outcome, Sealed, Via
from borough.governance.ports.ledger import Ledger

_TOLD = "the daemon ended before its outcome was known"
_CARRIED = tuple(name for name in OPTIONAL_FIELDS if name != "intent_id")


async def conclude_open_intents(ledger: Ledger) -> int:
    """Record for each intent without an outcome that it is unknown; return how many there were. To be called before
    anything new begins; calling it again records nothing twice.
    """
    drafts = [_unknown(intent) for intent in await ledger.open_intents()]
    if drafts:
        await ledger.append(drafts)
    return len(drafts)


def _unknown(intent: Sealed) -> Draft:
    told: dict[str, str] = orjson.loads(intent.canonical)
    carried = {name: told.get(name) for name in _CARRIED}
    return Draft(
        id=derived_id("unknown outcome", intent.id),
        at=utc_now(),
        agent_id=told["agent_id"],
        agent_name=told["agent_name"],
        action=told["action"],
        outcome=Outcome.UNKNOWN,
        kind=Kind.OUTCOME,
        via=Via(told["via"]),
        detail=told["detail"],
        intent_id=intent.id,
        data=cast("dict[str, Json]", {"reason": _TOLD}),
        **carried,
    )
