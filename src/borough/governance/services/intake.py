"""Taking acts into the ledger that were recorded elsewhere first, each of them once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from borough.core.errors import Invalid
from borough.core.ids import derived_id
from borough.governance.canonical import Json
from borough.governance.ledger import GENESIS, Draft, Outcome, Via, fit_detail, seal
from borough.governance.ports.ledger import Intake
from borough.governance.services.scrubbing import Scrubber
from borough.governance.tokens import NOBODY


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """An act as its source tells of it."""

    id: str
    """Unique within the source; the ledger's entry has one that follows from it."""
    at: datetime
    action: str
    outcome: Outcome
    message: str
    agent_id: str | None
    """The agent that it is about."""
    facts: Mapping[str, str]


def entry_id(source: str, happening_id: str) -> str:
    """Return the id of the ledger's entry for an act of a source."""
    return derived_id("intake", source, happening_id)


class IntakeService:
    """Takes acts in. Taking one again changes nothing, for as long as its entry is kept."""

    def __init__(self, intake: Intake, scrubber: Scrubber, *, via: Via) -> None:
        self._intake = intake
        self._scrubber = scrubber
        self._via = via

    async def position(self, source: str) -> str:
        """Return up to where the acts of ``source`` were taken; '' before the first."""
        return await self._intake.position(source)

    async def take(self, source: str, happenings: Sequence[Happening], *, up_to: str) -> None:
        """Record acts, and that those up to ``up_to`` were taken, in one step.

        One that the ledger cannot hold as it is (it is too long, say) is recorded without its words.

        Raises:
            Unavailable: the ledger cannot be written.
        """
        try:
            await self._intake.take(source, [self._draft(source, one) for one in happenings], up_to=up_to)
        except Invalid:
            await self._intake.take(source, [self._fitting(source, one) for one in happenings], up_to=up_to)

    def _draft(self, source: str, one: Happening) -> Draft:
        facts: dict[str, Json] = {name: self._scrubber.text(value) for name, value in one.facts.items()}
        return self._sealed_as(source, one, detail=fit_detail(self._scrubber.text(one.message)), facts=facts)

    def _fitting(self, source: str, one: Happening) -> Draft:
        draft = self._draft(source, one)
        try:
            seal(draft, GENESIS)
        except Invalid:
            return self._bare(source, one)
        return draft

    def _bare(self, source: str, one: Happening) -> Draft:
        return self._sealed_as(source, one, detail="it cannot be shown; its source has it", facts={"id": one.id[:64]})

    def _sealed_as(self, source: str, one: Happening, *, detail: str, facts: Mapping[str, Json]) -> Draft:
        return Draft(
            id=entry_id(source, one.id),
            at=one.at,
            agent_id=one.agent_id or NOBODY,
            agent_name="" if one.agent_id else self._via.value,
            action=one.action,
            outcome=one.outcome,
            via=self._via,
            detail=detail,
            data=facts,
        )
