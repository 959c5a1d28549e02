"""What is kept or served beside a surface, as the surface's open routes tell of it."""

from typing import Protocol


class Beside(Protocol):
    """Something that has troubles of its own: they are told, and are not the surface's."""

    async def told(self) -> str:
        """Return how it stands: ``ready``, or another word and why."""

    async def metrics(self) -> str:
        """Return its sums as Prometheus reads them; nothing while there are none."""
