"""The town's events and the fleet's, as acts for the ledger."""

from collections.abc import Mapping
from typing import Final

from borough.controllers.outbox import Origin
from borough.core.events import Event
from borough.governance.ledger import Outcome
from borough.governance.services.intake import Happening
from borough.town.services.events import event_order

TOWN_OUTCOMES: Final[Mapping[str, Outcome]] = {
    "login_refused": Outcome.DENIED,
    "task_failed": Outcome.FAILURE,
    "task_retry_scheduled": Outcome.FAILURE,
    "agent_failed": Outcome.FAILURE,
    "unreadable": Outcome.UNKNOWN,
}
FLEET_OUTCOMES: Final[Mapping[str, Outcome]] = {
    "login.refused": Outcome.DENIED,
    "request.refused": Outcome.DENIED,
    "env.refused": Outcome.DENIED,
    "host.offline": Outcome.FAILURE,
}
_FAILED: Final = frozenset({"failed", "partial"})
"""States of machines and operations in which something went wrong."""


def town_origin(name: str) -> Origin:
    """Return whose events those of a town are."""
    return Origin(context="town", source=f"town:{name}", order=event_order, happening=_of_town)


def fleet_origin(store_id: str) -> Origin:
    """Return whose events those of a fleet's file are."""
    return Origin(
        context="fleet", source=f"fleet:{store_id}", order=lambda event_id: (int(event_id or 0),), happening=_of_fleet
    )


def _of_town(event: Event) -> Happening:
    return Happening(
        id=event.id,
        at=event.at,
        action=f"town.{event.type}",
        outcome=TOWN_OUTCOMES.get(event.type, Outcome.SUCCESS),
        message=event.message,
        agent_id=event.subjects.get("agent_id"),
        facts={**event.subjects, "event_id": event.id},
    )


def _of_fleet(event: Event) -> Happening:
    failed = not _FAILED.isdisjoint((event.subjects.get("new_state"), event.subjects.get("state")))
    usual = Outcome.FAILURE if failed else Outcome.SUCCESS
    return Happening(
        # Numbers are used again where the file is put back to what it was earlier.
        id=f"{event.id} {event.at.isoformat()}",
        at=event.at,
        action=f"fleet.{event.type}",
        outcome=FLEET_OUTCOMES.get(event.type, usual),
        message=event.message,
        agent_id=None,
        facts={**event.subjects, "event_id": event.id},
    )
