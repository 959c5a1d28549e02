"""How busy everything was: a reading every few seconds, for as long as an hour, in memory alone."""

from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from borough.core.clock import from_ms, to_ms, utc_now
from borough.core.errors import BoroughError
from borough.fleet.ports.fleet import Totals
from borough.overview.services.needs_of_fleet import OpenedFleet
from borough.town.services.readings import ReadingService

EVERY_S: Final = 5
MOST: Final = 720
"""An hour of them; some 100 KiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One reading; what could not be read just then is ``None``."""

    at: datetime
    waiting: int | None
    """Tasks."""
    underway: int | None
    cpu: float | None
    """Promised of all hosts, from 0 to 1."""
    memory: float | None


class FigureService:
    """Takes readings, keeps the newest, and forgets them with its process."""

    def __init__(self, town: ReadingService, fleet: OpenedFleet, *, most: int = MOST) -> None:
        self._town = town
        self._fleet = fleet
        self._kept: deque[Figures] = deque(maxlen=most)

    async def take(self) -> None:
        """Take one reading now."""
        waiting, underway = await self._work()
        totals = await self._hosts()
        self._kept.append(
            Figures(
                at=from_ms(
                    to_ms(utc_now())
                ),  # as exact as it is told, so that whoever asks for newer ones gets no old one
                waiting=waiting,
                underway=underway,
                cpu=_share(totals.cpu_used, totals.cpu_total),
                memory=_share(totals.mem_used, totals.mem_total),
            )
        )

    def since(self, moment: datetime | None) -> tuple[Figures, ...]:
        """Return what was taken after a moment, or all that is kept, oldest first."""
        return tuple(one for one in self._kept if moment is None or one.at > moment)

    async def _work(self) -> tuple[int | None, int | None]:
        try:
            signal = await self._town.scaling()
        except BoroughError:  # a store that is away is told by /ready; the line has a hole there
            return None, None
        return signal.pending_tasks, signal.in_flight_tasks

    async def _hosts(self) -> Totals:
        try:
            return await (await self._fleet()).totals()
        except BoroughError:  # as above; the fleet tells it itself
            return Totals()


def _share(used: int, total: int) -> float | None:
    return used / total if total else None
