"""``Administration`` on Valkey."""

from borough.adapters.valkey.link import Link
from borough.adapters.valkey.town.asking import ask


class ValkeyAdministration:
    """Implements ``borough.town.ports.Administration``."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def reset(self, *, agents_only: bool) -> int:
        """See the port. Events are kept, so that the reset itself is on record and readers can resume."""
        removed: int = await ask(self._link, "town_reset", agents_only)
        return removed
