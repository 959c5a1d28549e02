"""``Administration`` on Valkey."""

from borough.adapters.valkey.link import Link
from borough.adapters.valkey.town.asking import ask

TASKS_AT_ONCE = 2000


class ValkeyAdministration:
    """Implements ``borough.town.ports.administration.Administration``."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def reset(self, *, agents_only: bool) -> int:
        """See the port. Events are kept, so that the reset itself is on record and readers can resume.

        A large town goes in parts, so that nobody else waits long; agents and their mail go with the first.
        """
        total, more = 0, True
        while more:
            removed, more = await ask(self._link, "town_reset", agents_only, TASKS_AT_ONCE)
            total += removed
        return total
