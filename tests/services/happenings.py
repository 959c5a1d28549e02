"""Acts of a source, to be taken into a ledger."""

from borough.core.clock import utc_now
from borough.governance.ledger import Outcome
from borough.governance.services.intake import Happening

SOURCE = "town:test"


def happenings(first: int, end: int) -> list[Happening]:
    return [
        Happening(
            id=f"{number}-0",
            at=utc_now(),
            action="town.note",
            outcome=Outcome.SUCCESS,
            message=f"note {number}",
            agent_id=None,
            facts={"number": str(number)},
        )
        for number in range(first, end)
    ]
