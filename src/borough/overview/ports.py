"""What is asked of each context."""

from collections.abc import Sequence
from typing import Protocol

from borough.overview.occurrences import Context, Occurrence


class Stream(Protocol):
    """The events of one context, in the order of what happened. Every method raises ``Unavailable`` where they cannot
    be had now.
    """

    @property
    def context(self) -> Context:
        """Whose they are."""

    async def bounds(self) -> tuple[str, str]:
        """Return the positions before the first event that is kept and of the newest."""

    async def after(self, position: str, *, limit: int) -> tuple[Sequence[Occurrence], str]:
        """Return what happened after a position, oldest first, and up to where was looked: the same position where
        there is nothing more.
        """

    async def newest(self, *, limit: int) -> Sequence[Occurrence]:
        """Return what happened last, oldest first."""

    async def comes(self, *, after: str) -> None:
        """Return as soon as there is something after a position; sooner does no harm."""
