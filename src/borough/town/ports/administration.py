"""Acts on the town as a whole."""

from typing import Protocol


class Administration(Protocol):
    """Acts on the town as a whole."""

    async def reset(self, *, agents_only: bool) -> int:
        """Delete everything of the town (or its agents and their mail only; their work returns to the backlog);
        return how many records went.
        """
