"""Another program's ledger, shared: what is done here is handed in there; it is written here while nobody else does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog

from borough.adapters.sql.governance.tables import MIGRATIONS
from borough.adapters.sql.ledger_member import LedgerMember
from borough.bootstrap.governance_stores import STORE_FILE
from borough.bootstrap.ledger_standing import TellsStanding
from borough.bootstrap.running import running
from borough.bootstrap.town import Town
from borough.controllers.loops import Controller
from borough.controllers.outbox import Outbox
from borough.controllers.outgoing import town_origin
from borough.core.errors import BoroughError
from borough.governance.ledger import Via
from borough.governance.services.intake import IntakeService
from borough.governance.services.scrubbing import Scrubber

log = structlog.get_logger(__name__)

STAND_EVERY: Final = timedelta(seconds=0.25)


class SharedLedger(TellsStanding):
    """Another program's ledger, as it is used here."""

    def __init__(self, member: LedgerMember) -> None:
        super().__init__(member.standing)
        self._member = member

    def intake(self, via: Via) -> IntakeService:
        """Return what takes acts in. The secrets of its program are not known here, so none is looked for."""
        return IntakeService(self._member, Scrubber(lambda _digest: False), via=via)


@asynccontextmanager
async def shared_ledger(folder: Path, *, program: str) -> AsyncIterator[SharedLedger]:
    """Share the ledger in an ``agentd``'s data folder: hand in there, and write it while nobody else does.

    It may not be there yet: then what is to be recorded waits, and nothing new may begin.
    """
    member = LedgerMember(folder / STORE_FILE, MIGRATIONS, program=program)
    stands = _Stands(member)
    try:
        async with running([Controller(name="stand for the ledger", every=STAND_EVERY, act=stands.act)]):
            yield SharedLedger(member)
    finally:
        await member.close()


@asynccontextmanager
async def recorded_town(ledger: SharedLedger, town: Town) -> AsyncIterator[Outbox]:
    """Hand in what a town does, each event once, from now on."""
    await town.events.keep_until_read(keep=True)
    outbox = Outbox(town.events, ledger.intake(Via.TOWN), origin=town_origin(town.services.facts.name))
    async with running([outbox.controller()]):
        yield outbox
    await outbox.act()  # what the town did until its end


class _Stands:
    """Stands for the place again and again; what hinders it is told once."""

    def __init__(self, member: LedgerMember) -> None:
        self._member = member
        self._hindered: str | None = None

    async def act(self) -> None:
        try:
            await self._member.stand()
        except BoroughError as error:
            if self._hindered != error.code:
                log.warning("ledger.not_shared_yet", error=error.message, code=error.code, reason=error.reason)
            self._hindered = error.code
        else:
            self._hindered = None
