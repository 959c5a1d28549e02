"""What can be read off the machine on which a host daemon runs."""

from typing import Protocol

from borough.fleet.hosts import Pressure


class HostSigns(Protocol):
    """The host's own state. What it does not tell is absent; nothing is raised."""

    async def pressure(self) -> Pressure:
        """Return how the host feels now."""

    async def boot_id(self) -> str:
        """Return what is another after each start of the host."""
