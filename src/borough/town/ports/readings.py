"""What is counted and measured."""

from collections.abc import Mapping
from typing import Protocol

from borough.town.scaling import Snapshot
from borough.town.tasks import TaskState


class Readings(Protocol):
    """Counts, cheap whatever the number of finished tasks."""

    async def snapshot(self) -> Snapshot:
        """Return all counts at one moment."""

    async def waiting(self) -> Mapping[str | None, int]:
        """Return how many tasks of the shared backlog wait for each role, those for anybody under ``None``."""

    async def counts(self) -> Mapping[TaskState, int]:
        """Return how many tasks are in each state, every state included."""

    async def ping(self) -> float:
        """Return the store's round trip in seconds; raises ``Unavailable``."""

    async def durability(self) -> str:
        """Return what an acknowledged write survives: ``always``, ``everysec`` or ``none``."""
