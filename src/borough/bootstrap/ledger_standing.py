"""What the program does whose ledger others share, and how every one of them tells who writes it."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from borough.adapters.sql.ledger import SqlLedger
from borough.adapters.sql.ledger_lease import Standing
from borough.controllers.loops import Controller
from borough.core.errors import BoroughError

KEEP_EVERY: Final = timedelta(seconds=0.1)


class TellsStanding:
    """Tells on open routes who writes the ledger."""

    def __init__(self, standing: Callable[[], Awaitable[Standing]]) -> None:
        self._standing = standing

    async def told(self) -> str:
        """Return how it stands."""
        try:
            found = await self._standing()
        except BoroughError as error:
            return f"not ready: {error.message}"
        who = f"{found.holder.name or 'nobody'}{', this program' if found.here else ''}"
        return f"written by {who}, epoch {found.holder.epoch}; {found.waiting} handed in and not sealed"

    async def metrics(self) -> str:
        """Return who writes it, as Prometheus reads it."""
        try:
            found = await self._standing()
        except BoroughError as error:
            return f"# borough_ledger_error {' '.join(error.message.split())}\n"
        families = (
            ("writer", "Whether this program writes the shared ledger.", int(found.here)),
            ("writer_epoch", "How often the place of the ledger's writer was taken.", found.holder.epoch),
            ("waiting", "What was handed in for the ledger and is not sealed.", found.waiting),
        )
        return "".join(
            f"# HELP borough_ledger_{name} {told}\n# TYPE borough_ledger_{name} gauge\nborough_ledger_{name} {value}\n"
            for name, told, value in families
        )


def keeps_place(ledger: SqlLedger) -> Controller:
    """Return the loop of the program whose store it is: it seals what others hand in."""

    async def keep() -> None:
        if await ledger.is_due():
            await ledger.keep_place()

    return Controller(name="write the shared ledger", every=KEEP_EVERY, act=keep)
